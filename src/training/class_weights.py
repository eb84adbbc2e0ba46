"""How much each label counts in the loss. Light: no heavy import."""

from collections.abc import Sequence

import numpy as np

from src.config.settings import LossSettings
from src.core.errors import InvalidInput, did_you_mean

BETA = 0.999  # of effective numbers; the largest weight is then at most 1000 times the smallest


def positive_weights(
    loss: LossSettings, counts: Sequence[float], n_texts: int, label_names: Sequence[str]
) -> np.ndarray | None:
    """How much more texts with a label count than texts without it, where a text can have several, [n_labels].

    - balanced: texts without the label by texts with it, so that both weigh the same.
    - effective: the same of effective numbers (see class_weights).
    - a mapping: as given; a label that it leaves out weighs 1.

    None if all texts weigh the same. A label without texts weighs 1.

    Args:
        loss: the settings.
        counts: training texts with each label, [n_labels].
        n_texts: training texts.
        label_names: by label index.
    """
    if loss.class_weights == "none":
        return None
    if isinstance(loss.class_weights, dict):
        return np.array([loss.class_weights.get(name, 1.0) for name in label_names])
    of_label = np.asarray(counts, dtype=np.float64)
    others = n_texts - of_label
    if loss.class_weights == "effective":
        of_label, others = _effective(of_label), _effective(others)
    return np.divide(others, of_label, out=np.ones_like(of_label), where=(of_label > 0) & (others > 0))


def class_weights(loss: LossSettings, counts: Sequence[float], label_names: Sequence[str]) -> np.ndarray | None:
    """The weight of each label in the loss; None if all weigh the same.

    - balanced: inversely proportional to the label's number of texts, as in scikit-learn.
    - effective: inversely proportional to its effective number of texts, (1 - BETA^n) / (1 - BETA), which grows slower
      than n. Source: Cui and others 2019, arXiv:1901.05555.
    - a mapping: as given; a label that it leaves out weighs 1.

    They are scaled so that their mean over the texts is 1, and a learning rate means what it means without them. A
    label without texts weighs 0 unless it is in the mapping.

    Args:
        loss: the settings.
        counts: training texts of each label, [n_labels].
        label_names: by label index.
    """
    numbers = np.asarray(counts, dtype=np.float64)
    if loss.class_weights == "none":
        return None
    if isinstance(loss.class_weights, dict):
        weights = np.array([loss.class_weights.get(name, 1.0) for name in label_names])
    else:
        sizes = numbers if loss.class_weights == "balanced" else _effective(numbers)
        weights = np.divide(1.0, sizes, out=np.zeros_like(numbers), where=numbers > 0)
    return weights * numbers.sum() / (weights * numbers).sum()


def _effective(numbers: np.ndarray) -> np.ndarray:
    return np.asarray(-np.expm1(numbers * np.log(BETA)) / (1 - BETA))


def check_class_weights(loss: LossSettings, label_names: Sequence[str]) -> None:
    """Raise InvalidInput for class weights of labels that the data do not have."""
    if not isinstance(loss.class_weights, dict):
        return
    InvalidInput.raise_if_any(
        [
            f"loss.class_weights has {name!r}, which is no label of the data; they have {', '.join(label_names)}."
            f"{did_you_mean(name, label_names)}"
            for name in loss.class_weights
            if name not in label_names
        ]
    )
