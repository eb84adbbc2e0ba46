"""Precision, recall and F1 of each label, with intervals."""

from collections.abc import Iterator, Sequence

import numpy as np

from src.core.metric import AVERAGED
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.records import Interval, LabelScores

N_DRAWS = 500  # for each label


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
        estimates = [bootstrap.estimate(name, metric) for metric in AVERAGED]
        intervals = {name: Interval(e.value, e.low, e.high) for name, e in zip(AVERAGED, estimates, strict=True)}
        chosen = round(float(of_label.probabilities[..., 1].sum(axis=1).mean()))
        yield LabelScores(name, int((labels == label).sum()), chosen, **intervals)


def _answers(probabilities: np.ndarray, label: int) -> np.ndarray:
    """1 where `label` is predicted, as probabilities of not having and of having it, [n_seeds, n_examples, 2]."""
    chosen = probabilities.argmax(axis=2) == label
    return np.stack([~chosen, chosen], axis=2).astype(np.float64)
