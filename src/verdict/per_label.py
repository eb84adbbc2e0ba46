"""Precision, recall and F1 of each label, with intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.records import Interval
from src.verdict.tables import Table, format_interval

N_DRAWS = 500  # for each label
NAMES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class LabelScores:
    """How well one label is predicted."""

    label: str
    examples: int  # that have it
    predicted: int  # that are predicted as it; the mean over seeds, rounded
    precision: Interval
    recall: Interval
    f1: Interval


def label_scores(labels: np.ndarray, predictions: Predictions, names: Sequence[str]) -> Iterator[LabelScores]:
    """The scores of each label, with 95 % intervals over examples, and over seeds if there are several.

    Args:
        labels: [n_examples].
        predictions: of one contender.
        names: by label index.
    """
    for label, name in enumerate(names):
        of_label = Predictions(
            _answers(predictions.probabilities, label),
            None if predictions.leave_one_out is None else _answers(predictions.leave_one_out, label),
        )
        bootstrap = PairedBootstrap((labels == label).astype(int), {name: of_label}, N_DRAWS, metric="f1")
        estimates = [bootstrap.estimate(name, metric) for metric in NAMES]
        intervals = [Interval(e.value, e.low, e.high) for e in estimates]
        chosen = round(float(of_label.probabilities[..., 1].sum(axis=1).mean()))
        yield LabelScores(name, int((labels == label).sum()), chosen, *intervals)


def per_label_table(scores: Sequence[LabelScores]) -> Table:
    """A row per label."""
    head = ["by label", "examples", "predicted", *NAMES]
    rows = [
        [s.label, str(s.examples), str(s.predicted), *(format_interval(getattr(s, name)) for name in NAMES)]
        for s in scores
    ]
    return head, rows


def _answers(probabilities: np.ndarray, label: int) -> np.ndarray:
    """1 where `label` is predicted, as probabilities of not having and of having it, [n_seeds, n_examples, 2]."""
    chosen = probabilities.argmax(axis=2) == label
    return np.stack([~chosen, chosen], axis=2).astype(np.float64)
