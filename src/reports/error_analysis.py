"""Analyses a classifier's errors: confusion, slices, calibration, and the errors with the highest probability."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.core.task import are_numbers, decided, has_several, is_right, labels_of, present
from src.core.texts import shown, texts_of
from src.reports.number_errors import NumberErrors, analyze_numbers
from src.reports.slices import slice_columns
from src.verdict.records import LabelScores

if TYPE_CHECKING:
    from src.verdict.bootstrap import Predictions

BINS = 10  # bins of the reliability diagram
NO_LABEL = "(no label)"
SHOWN_ERRORS = 100


@dataclass(frozen=True)
class Slice:
    """The examples with one value of one column."""

    column: str
    value: str
    examples: int
    accuracy: float
    low: float  # 95 % interval (Wilson)
    high: float
    baseline: float | None  # accuracy of the best baseline on the same examples


@dataclass(frozen=True)
class Bin:
    """The examples whose predicted label has a probability in (low, high]."""

    low: float
    high: float
    examples: int
    confidence: float  # mean probability of the predicted label
    accuracy: float


@dataclass(frozen=True)
class Misclassified:
    """A misclassified example. Never one of the test split, since people read these."""

    row: int  # in the source
    text: str  # of a pair both, with a bar between them
    label: str
    predicted: str
    chance: float


@dataclass(frozen=True)
class ErrorAnalysis:
    """The error analysis of one set of weights on one split."""

    split: str
    examples: int
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][predicted]; empty where texts can have several labels
    calibration_error: float
    bins: tuple[Bin, ...]
    slices: tuple[Slice, ...]
    wrong: tuple[Misclassified, ...]  # the highest probability first; empty for the test split
    per_label: tuple[LabelScores, ...] = ()  # empty in the records of earlier versions
    n_wrong: int | None = None  # of several labels: examples of which a label is wrong; None: as in the confusion
    numbers: NumberErrors | None = None  # of a regression, which has nothing of the above but split and examples

    @property
    def errors(self) -> int:
        """The number of misclassified examples."""
        if self.n_wrong is not None:
            return self.n_wrong
        return sum(n for i, row in enumerate(self.confusion) for j, n in enumerate(row) if i != j)

    @property
    def accuracy(self) -> float:
        """The fraction of examples that are classified correctly."""
        return 1 - self.errors / self.examples


def analyze_errors(
    split: str,
    frame: pd.DataFrame,
    probabilities: np.ndarray,
    names: tuple[str, ...],
    baseline: np.ndarray | None = None,
    predictions: "Predictions | None" = None,
) -> ErrorAnalysis:
    """Analyse the errors of one set of weights.

    Args:
        split: of the examples.
        frame: columns text, text_pair (of pairs), label, row and extra ones.
        probabilities: of the weights, [n_examples, n_labels]; of a regression the numbers, [n_examples, 1].
        names: of the labels, by index.
        baseline: probabilities of the best baseline, to compare slices with.
        predictions: of all trainings that the weights stand for, for the intervals of each label's scores; by default
            these are over examples only.
    """
    from sklearn.metrics import confusion_matrix

    from src.verdict.bootstrap import Predictions
    from src.verdict.per_label import label_scores

    labels = labels_of(frame)
    if are_numbers(labels):
        others = None if baseline is None else baseline[:, 0]
        found = analyze_numbers(split, frame, probabilities[:, 0], others)
        return ErrorAnalysis(split, len(frame), names, (), 0.0, (), (), (), numbers=found)
    several, right = has_several(labels), is_right(labels, probabilities)
    others = None if baseline is None else is_right(labels, baseline)
    given = decided(probabilities, several)
    confusion = () if several else confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(names)))
    if several:  # a decision per label
        sure, decisions = np.where(given, probabilities, 1 - probabilities).ravel(), (given == labels).ravel()
    else:
        sure, decisions = probabilities.max(axis=1), right
    bins = tuple(_bins(sure, decisions))
    return ErrorAnalysis(
        split=split,
        examples=len(frame),
        labels=names,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        calibration_error=sum(b.examples * abs(b.accuracy - b.confidence) for b in bins) / len(sure),
        bins=bins,
        slices=tuple(_slices(frame, right, others)),
        wrong=() if split == "test" else tuple(_misclassified(frame, probabilities, names)),
        per_label=tuple(label_scores(labels, predictions or Predictions(probabilities[None]), names)),
        n_wrong=int((~right).sum()) if several else None,
    )


def _bins(sure: np.ndarray, right: np.ndarray) -> Iterator[Bin]:
    """Ten bins of equal width. Source: Guo et al. 2017, On Calibration of Modern Neural Networks."""
    edges = np.linspace(0, 1, BINS + 1)
    bin_indices = np.clip(np.digitize(sure, edges, right=True) - 1, 0, BINS - 1)
    for i in range(BINS):
        selected = bin_indices == i
        if selected.any():
            yield Bin(float(edges[i]), float(edges[i + 1]), int(selected.sum()), float(sure[selected].mean()),
                      float(right[selected].mean()))  # fmt: skip


def _slices(frame: pd.DataFrame, right: np.ndarray, others: np.ndarray | None) -> Iterator[Slice]:
    for name, value, selected in slice_columns(frame):
        yield _slice(name, value, right[selected], None if others is None else others[selected])


def _slice(column: str, value: str, right: np.ndarray, others: np.ndarray | None) -> Slice:
    from scipy.stats import binomtest

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    baseline = None if others is None else float(others.mean())
    return Slice(column, value, len(right), float(right.mean()), float(interval.low), float(interval.high), baseline)


def _misclassified(frame: pd.DataFrame, probabilities: np.ndarray, names: tuple[str, ...]) -> Iterator[Misclassified]:
    """Those of which the model is surest; of several labels, of which it is surest of a wrong decision."""
    labels, texts = labels_of(frame), texts_of(frame)
    several = has_several(labels)
    true, given = present(labels, len(names)), decided(probabilities, several)
    of_decisions = (
        np.where(true != given, np.maximum(probabilities, 1 - probabilities), 0.0) if several else probabilities
    )
    sure = of_decisions.max(axis=1)
    errors = np.flatnonzero(~is_right(labels, probabilities))
    for i in errors[np.argsort(-sure[errors], kind="stable")][:SHOWN_ERRORS]:
        text, row = shown(texts[i]), int(frame["row"].iloc[i])
        yield Misclassified(row, text, _in_words(true[i], names), _in_words(given[i], names), float(sure[i]))


def _in_words(has: np.ndarray, names: tuple[str, ...]) -> str:
    return ", ".join(name for name, is_there in zip(names, has, strict=True) if is_there) or NO_LABEL
