"""Precision, recall and F1 of each label, with intervals."""

from collections.abc import Iterator, Sequence

import numpy as np

from src.core.metric import AVERAGED
from src.core.task import decided, has_several, present
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.records import Interval, LabelScores

N_DRAWS = 500  # for each label


def label_scores(labels: np.ndarray, predictions: Predictions, names: Sequence[str]) -> Iterator[LabelScores]:
    """The scores of each label, with 95 % intervals over examples, and over seeds if there are several.

    Args:
        labels: [n_examples] or [n_examples, n_labels].
        predictions: of one contender.
        names: by label index.
    """
    several, true = has_several(labels), present(labels, len(names)).astype(int)
    given = decided(predictions.probabilities, several)
    given_without_one = None if predictions.leave_one_out is None else decided(predictions.leave_one_out, several)
    for label, name in enumerate(names):
        of_label = Predictions(
            _as_probabilities(given[..., label]),
            None if given_without_one is None else _as_probabilities(given_without_one[..., label]),
        )
        bootstrap = PairedBootstrap(true[:, label], {name: of_label}, N_DRAWS, metric="f1")
        estimates = [bootstrap.estimate(name, metric) for metric in AVERAGED]
        intervals = {name: Interval(e.value, e.low, e.high) for name, e in zip(AVERAGED, estimates, strict=True)}
        chosen = round(float(of_label.probabilities[..., 1].sum(axis=1).mean()))
        yield LabelScores(name, int(true[:, label].sum()), chosen, **intervals)


def _as_probabilities(given: np.ndarray) -> np.ndarray:
    """1 where a label is given, as probabilities of not having and of having it, [n_seeds, n_examples, 2]."""
    return np.stack([~given, given], axis=2).astype(np.float64)
