"""From answers on the test split to the verdict's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.verdict import scores
from src.verdict.paired import Answers, Draws, mcnemar
from src.verdict.record import BETTER, NOT_SHOWN, WORSE, Against, Interval

LEVEL = 0.95


@dataclass(frozen=True)
class Question:
    """Whether `winner`, chosen among so many, is better than `others`, by more than `margin` of `metric`."""

    winner: str
    others: tuple[str, ...]
    metric: str
    margin: float
    among: int

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return -1.0 if self.metric == "loss" else 1.0


def intervals(draws: Draws, name: str, n_labels: int) -> dict[str, Interval]:
    """Every metric of one contender, with its interval."""
    found = {metric: draws.estimate(name, metric, LEVEL) for metric in scores.metric_names(n_labels)}
    return {metric: Interval(e.value, e.low, e.high) for metric, e in found.items()}


def against(
    draws: Draws, question: Question, labels: np.ndarray, registered: Mapping[str, np.ndarray]
) -> tuple[Against, ...]:
    """The winner against each of the others. `registered`: per contender the chances of the weights that would be, or
    are, registered, [n_examples, n_labels]."""
    return tuple(_one(draws, question, other, labels, registered) for other in question.others)


def verdict(question: Question, difference: Interval, enough: bool = True) -> str:
    """better: the whole interval lies beyond the margin; worse: all of it lies on the other side of zero. `enough`:
    examples tell the two apart for anything to be shown."""
    if not enough:
        return NOT_SHOWN
    ends = sorted((question.sign * difference.low, question.sign * difference.high))
    if ends[0] > question.margin:
        return BETTER
    return WORSE if ends[1] < 0 else NOT_SHOWN


def best(scored: Mapping[str, float], metric: str) -> str:
    """The name with the best score; of equals the first."""
    sign = -1.0 if metric == "loss" else 1.0
    return max(scored, key=lambda name: sign * scored[name])


def median_of(values: Sequence[float]) -> int:
    """The index of the median value; of an even number, the lower one of the middle two."""
    return sorted(range(len(values)), key=lambda i: (values[i], i))[(len(values) - 1) // 2]


def draws(labels: np.ndarray, answers: Mapping[str, np.ndarray]) -> Draws:
    """`answers`: per contender chances [n_repeats, n_examples, n_labels]."""
    return Draws(labels, {name: Answers(chances) for name, chances in answers.items()})


def _one(
    draws: Draws, question: Question, other: str, labels: np.ndarray, registered: Mapping[str, np.ndarray]
) -> Against:
    found = draws.difference(question.winner, other, question.metric, LEVEL, question.among)
    difference = Interval(found.value, found.low, found.high)
    enough = draws.enough_apart(question.winner, other, question.metric, LEVEL, question.among)
    test = mcnemar(labels, registered[question.winner], registered[other])
    said = verdict(question, difference, enough)
    return Against(other, question.metric, difference, said, test.only_first, test.only_second, test.p)
