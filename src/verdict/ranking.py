"""Metrics of a ranking, of thousands of weighted draws of the examples at once.

In all of them `positive` says which examples have the label, [n_examples]; `scores` rank them, [n_seeds, n_examples];
`counts` says how often each draw holds each example, [n_draws, n_examples]. Examples of equal scores count as one step.
Results are [n_draws, n_seeds].
"""

from collections.abc import Iterator

import numpy as np


def average_precision(positive: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean precision at each positive example, ranked from the highest score; 0 in a draw without any."""
    columns = []
    for hits, false_alarms in _steps(positive, scores, counts):
        precision = ratio(hits, hits + false_alarms)
        columns.append(ratio((np.diff(hits, axis=1, prepend=0.0) * precision).sum(axis=1), hits[:, -1]))
    return np.stack(columns, axis=1)


def roc_auc(positive: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The chance that a positive example ranks above a negative one; 0.5 in a draw without one of either."""
    columns = []
    for hits, false_alarms in _steps(positive, scores, counts):
        before = np.concatenate([np.zeros((len(hits), 1)), hits[:, :-1]], axis=1)
        area = (np.diff(false_alarms, axis=1, prepend=0.0) * (before + hits) / 2).sum(axis=1)
        pairs = hits[:, -1] * false_alarms[:, -1]
        columns.append(np.where(pairs > 0, ratio(area, pairs), 0.5))
    return np.stack(columns, axis=1)


def _steps(positive: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each seed the positive and the negative examples above each distinct score, [n_draws, n_distinct] each."""
    for row in scores:
        order = np.argsort(-row, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(row[order])), len(row) - 1)  # the last example of each distinct score
        ranked = counts[:, order]
        hits = np.cumsum(ranked * positive[order], axis=1)[:, ends]
        yield hits, np.cumsum(ranked, axis=1)[:, ends] - hits


def ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """`over` divided by `under`; 0 where `under` is 0."""
    return np.divide(over, under, out=np.zeros_like(over, dtype=np.float64), where=under > 0)
