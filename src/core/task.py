"""What a data set asks of a model, and what a model's numbers mean.

A text has one label, or several: none, one or more of them; or it has a number. Arrays of labels tell which: of texts
with one label they are label indices, [n_examples]; of texts with several a row of 0 and 1 for each text, [n_examples,
n_labels]; of texts with a number they are floats, [n_examples]. Where a classifier has probabilities, [n_examples,
n_labels], a model that predicts numbers has these, [n_examples, 1].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label", "multi_label", "regression"
WITH_LABELS = (SINGLE_LABEL, MULTI_LABEL)
TASKS = (*WITH_LABELS, REGRESSION)
PROBLEM_TYPES = {kind: f"{kind}_classification" for kind in WITH_LABELS} | {REGRESSION: REGRESSION}  # of transformers
TEXT_COLUMNS = "text_columns"  # in the config of a model that classifies pairs: the columns that it was trained on
Threshold = float | tuple[float, ...]  # from which probability on a label is given: one, or one per label
DECISION = 0.5  # of a text with several labels: it gets those whose probability is above


@dataclass(frozen=True)
class Task:
    """The labels that texts are given, how many a text can have, and whether what is classified is a text or a pair."""

    label_names: tuple[str, ...]  # by label index; of numbers the name of their column
    text_columns: tuple[str, ...] = ("text",)  # in the source: one, or two for pairs
    kind: str = SINGLE_LABEL

    @property
    def has_pairs(self) -> bool:
        """Whether pairs of texts are classified."""
        return len(self.text_columns) > 1

    @property
    def has_several_labels(self) -> bool:
        """Whether a text can have several labels, or none."""
        return self.kind == MULTI_LABEL

    @property
    def is_regression(self) -> bool:
        """Whether a number is predicted for each text."""
        return self.kind == REGRESSION

    @property
    def depends_on_scale(self) -> bool:
        """Whether outputs that are all twice as large give other answers: numbers, and decisions by a threshold."""
        return self.kind != SINGLE_LABEL

    @property
    def problem_type(self) -> str:
        """The name of the kind in a config of transformers."""
        return PROBLEM_TYPES[self.kind]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits [..., n_labels]: softmax over the labels, or of each label for itself.

        Of a regression the numbers as they are.
        """
        from scipy.special import expit, softmax

        if self.is_regression:
            return logits

        return np.asarray(expit(logits) if self.has_several_labels else softmax(logits, axis=-1))


def threshold_text(threshold: Threshold) -> str:
    """A threshold with six digits, for tags and file names; those of several labels with commas between them."""
    each = threshold if isinstance(threshold, (list, tuple)) else (threshold,)
    return ",".join(f"{value:.6g}" for value in each)


def pair_columns(config: Any) -> tuple[str, ...]:
    """The two columns that a model for pairs was trained on; empty for a model for single texts.

    `config`: of transformers.
    """
    return tuple(getattr(config, TEXT_COLUMNS, None) or ())


def labels_in(config: Any) -> tuple[str, ...]:
    """The labels of a classifier by index. `config`: of transformers."""
    return tuple(str(name) for _, name in sorted(config.id2label.items()))


def gives_several_labels(config: Any) -> bool:
    """Whether a model gives a text several labels. `config`: of transformers."""
    return kind_in(config) == MULTI_LABEL


def predicts_numbers(config: Any) -> bool:
    """Whether a model predicts a number for each text. `config`: of transformers."""
    return kind_in(config) == REGRESSION


def kind_in(config: Any) -> str:
    """The kind of task of a model. `config`: of transformers."""
    return next((kind for kind, name in PROBLEM_TYPES.items() if name == config.problem_type), SINGLE_LABEL)


def labels_of(frame: Any) -> np.ndarray:
    """The labels of a prepared split (a pandas.DataFrame), [n_examples] or [n_examples, n_labels]."""
    column = frame["label"].to_numpy()
    if column.dtype == object and not len(column):
        return np.zeros((0, 0), dtype=np.int64)
    return np.stack(column).astype(np.int64) if column.dtype == object else np.asarray(column)


def has_several(labels: np.ndarray) -> bool:
    """Whether these are the labels of texts that can have several."""
    return labels.ndim > 1


def are_numbers(labels: np.ndarray) -> bool:
    """Whether these are the numbers of a regression."""
    return labels.ndim == 1 and labels.dtype.kind == "f"  # several labels, too, are floats where a loss reads them


def kind_of(labels: np.ndarray) -> str:
    """The kind of task that texts with these labels are for."""
    return REGRESSION if are_numbers(labels) else MULTI_LABEL if has_several(labels) else SINGLE_LABEL


def present(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Which labels each text has, as truth values [n_examples, n_labels]."""
    return labels > 0 if has_several(labels) else labels[:, None] == np.arange(n_labels)


def decided(probabilities: np.ndarray, several: bool) -> np.ndarray:
    """Which labels a model gives to each text, as truth values [..., n_examples, n_labels].

    Args:
        probabilities: [..., n_examples, n_labels].
        several: whether a text can have several labels; else it gets the most probable one, of equals the first.
    """
    if several:
        return probabilities > DECISION
    return np.asarray(probabilities.argmax(axis=-1)[..., None] == np.arange(probabilities.shape[-1]))


def is_right(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether a model gives each text its label, or exactly its labels, as truth values [..., n_examples].

    Args:
        labels: [n_examples] or [n_examples, n_labels].
        probabilities: [..., n_examples, n_labels].
    """
    if not has_several(labels):
        return np.asarray(probabilities.argmax(axis=-1) == labels)
    return np.asarray((decided(probabilities, several=True) == present(labels, labels.shape[1])).all(axis=-1))
