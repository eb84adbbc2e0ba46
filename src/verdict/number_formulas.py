"""The formulas of a regression's metrics, over many weighted draws of the examples at once."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from src.verdict.ranking import ratio


class NumberDraws:
    """The weighted sums that metrics of numbers are made of. Shapes are [n_draws, n_seeds] where nothing is said."""

    def __init__(self, numbers: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> None:
        """The draws.

        Args:
            numbers: the true ones, [n_examples].
            predicted: [n_seeds, n_examples].
            counts: how often each draw holds each example, [n_draws, n_examples].
        """
        self.numbers, self.predicted, self.counts = numbers, predicted, counts
        self.total = counts.sum(axis=1, keepdims=True)  # [n_draws, 1]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean over examples of values [n_seeds, n_examples]."""
        mean: np.ndarray = self.counts @ values.T / self.total
        return mean

    @cached_property
    def true_ranks(self) -> np.ndarray:
        """The ranks of the true numbers in each draw, [n_draws, n_examples]."""
        return draw_ranks(self.numbers, self.counts)


def draw_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rank of each value among those of a draw, equal values at the middle of theirs, [n_draws, n_examples].

    Args:
        values: [n_examples].
        counts: how often each draw holds each example, [n_draws, n_examples].
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    in_group = np.add.reduceat(counts[:, order], starts, axis=1)  # [n_draws, n_groups]
    middle = np.cumsum(in_group, axis=1) - (in_group - 1) / 2
    ranks: np.ndarray = middle[:, group]
    return ranks


def _mse(draws: NumberDraws) -> np.ndarray:
    return draws.mean((draws.predicted - draws.numbers) ** 2)


def _mae(draws: NumberDraws) -> np.ndarray:
    return draws.mean(np.abs(draws.predicted - draws.numbers))


def _r2(draws: NumberDraws) -> np.ndarray:
    """1 less the squared error over that of the draw's own mean; 0 where all numbers of the draw are the same."""
    centred = draws.numbers - draws.numbers.mean()  # so that no digits are lost in the difference of two large sums
    mean = draws.counts @ centred[:, None] / draws.total
    spread = draws.counts @ (centred**2)[:, None] / draws.total - mean**2
    return np.where(spread > 0, 1 - ratio(_mse(draws), np.broadcast_to(spread, _mse(draws).shape)), 0.0)


def _spearman(draws: NumberDraws) -> np.ndarray:
    """The correlation of the ranks; 0 where all true or all predicted numbers of the draw are the same."""
    middle = (draws.total + 1) / 2
    true = draws.true_ranks - middle
    of_true = (draws.counts * true**2).sum(axis=1)
    values = []
    for of_seed in draws.predicted:
        ranks = draw_ranks(of_seed, draws.counts) - middle
        both = (draws.counts * true * ranks).sum(axis=1)
        values.append(ratio(both, np.sqrt(of_true * (draws.counts * ranks**2).sum(axis=1))))
    return np.stack(values, axis=1)


NUMBER_FORMULAS: dict[str, Callable[[NumberDraws], np.ndarray]] = {
    "mse": _mse,
    "mae": _mae,
    "r2": _r2,
    "spearman": _spearman,
}
