"""Averages of weights whose answers have the scale of their members' answers.

The outputs of an average of weights rank texts as the mean of its members' outputs does, but lie closer together: heads
and features that were trained apart point in different directions, and partly cancel. Where each text has one label,
that changes no answer. Numbers, and probabilities that are compared with a threshold, would be wrong. There the last
layer of an average is stretched: each of its outputs is fitted to the mean of the members' outputs by a line. No true
label is looked at.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import logit

from src.core.task import Task
from src.core.texts import Text
from src.training import inference
from src.training.classification_head import scale_outputs
from src.training.classifiers import load_finetuned
from src.training.pretrained import PROBABILITIES_FILE
from src.training.weight_average import average_weights

CLOSEST = 1e-4  # to 0 and 1, of probabilities whose log odds are fitted
DIGITS = 4  # of slopes and shifts, so that the last bits of a prediction do not decide them


def average_members(
    members: Sequence[Path], answers: np.ndarray, texts: Sequence[Text], task: Task, folder: Path, use_cpu: bool
) -> None:
    """Write the average of saved classifiers into `folder`; stretch its last layer if the task depends on the scale.

    Args:
        members: folders with weights.
        answers: what they predict for `texts`, [n_members, n_texts, n_labels]; read if the task depends on the scale.
        texts: to compare the average with its members on.
        task: of the data.
        folder: what is there is replaced.
        use_cpu: predict on the processor.
    """
    average_weights(dict.fromkeys(members, 1), folder)
    if not task.depends_on_scale:
        return
    own = inference.predict_probabilities(inference.load_classifier(folder, use_cpu), texts)
    slope, shift = fit_lines(_outputs(own, task), _outputs(answers.mean(axis=0), task))
    stretch_last_layer(folder, slope, shift)


def answers_of(members: Sequence[Path], texts: Sequence[Text], task: Task, use_cpu: bool) -> np.ndarray:
    """What saved classifiers say on validation, [n_members, n_texts, n_labels]; nothing where it is not needed.

    Args:
        members: folders with weights, and with what they said there if that was stored.
        texts: of validation.
        task: of the data.
        use_cpu: predict on the processor.
    """
    if not task.depends_on_scale:
        return np.zeros((len(members), 0))
    return np.stack([answers_on_validation(folder, texts, use_cpu) for folder in members])


def answers_on_validation(folder: Path, texts: Sequence[Text], use_cpu: bool) -> np.ndarray:
    """Probabilities (or numbers) on validation as stored with the weights; predicted, if none were stored."""
    stored = folder / PROBABILITIES_FILE
    if stored.exists():
        return np.asarray(np.load(stored))
    return inference.predict_probabilities(inference.load_classifier(folder, use_cpu), texts)


def fit_lines(outputs: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The line for each output that fits `wanted` best, by least squares: slopes and shifts, [n_outputs].

    An output that is always the same has the slope 1.

    Args:
        outputs: [n_texts, n_outputs].
        wanted: [n_texts, n_outputs].
    """
    x, y = outputs.astype(np.float64), wanted.astype(np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    spread = ((x - x_mean) ** 2).mean(axis=0)
    together = ((x - x_mean) * (y - y_mean)).mean(axis=0)
    slope = np.divide(together, spread, out=np.ones_like(spread), where=spread > 0)
    slope = _rounded(slope)
    return slope, _rounded(y_mean - slope * x_mean)


def stretch_last_layer(folder: Path, slope: np.ndarray, shift: np.ndarray) -> None:
    """Multiply each output of the classifier in `folder` by its slope, and add its shift. Both: [n_outputs]."""
    model = load_finetuned(folder)
    scale_outputs(model, slope, shift)
    model.save_pretrained(folder)


def _outputs(answers: np.ndarray, task: Task) -> np.ndarray:
    """Numbers as they are, probabilities as log odds: what the last layer puts out."""
    exact = answers.astype(np.float64)
    return exact if task.is_regression else np.asarray(logit(np.clip(exact, CLOSEST, 1 - CLOSEST)))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.{DIGITS}g}") for value in values])
