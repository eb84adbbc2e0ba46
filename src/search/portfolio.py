"""Chooses settings that complement each other: a few of which at least one is good on each of several data sets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def choose_portfolio(losses: ArrayLike, size: int, first: Sequence[int] = ()) -> list[int]:
    """Choose candidates greedily: each time the one that lowers the mean, over data sets, of the least loss most.

    Args:
        losses: of each candidate on each data set, [n_candidates, n_sets]; less is better. Ranks or regrets, so that
            the sets count alike.
        size: how many candidates, `first` included; fewer if there are not so many.
        first: candidates that are chosen in any case.

    Returns:
        Indices of candidates, in the order in which they are to be tried. Once no candidate lowers the mean, the best
        of the others by mean loss follow.
    """
    table = np.asarray(losses, dtype=float)
    chosen = list(first)[:size]
    while len(chosen) < min(size, len(table)):
        least = table[chosen].min(axis=0) if chosen else np.full(table.shape[1], np.inf)
        reached = np.minimum(table, least).mean(axis=1)
        left = [index for index in range(len(table)) if index not in chosen]
        chosen.append(min(left, key=lambda index: (reached[index], table[index].mean(), index)))
    return chosen
