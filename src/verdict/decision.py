"""Compares the winner with the other contenders on the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.core.metric import direction_of, gain
from src.verdict.bootstrap import PairedBootstrap, Predictions, mcnemar
from src.verdict.records import BETTER, NOT_SHOWN, WORSE, Interval, PairwiseResult

LEVEL = 0.95


@dataclass(frozen=True)
class Hypothesis:
    """The hypothesis that `winner` is better than each of `others` by more than `margin` of `metric`."""

    winner: str
    others: tuple[str, ...]
    metric: str
    margin: float
    among: int

    @property
    def sign(self) -> float:
        """1 if more of the metric is better, -1 if less is."""
        return gain(1.0, direction_of(self.metric))


def intervals(bootstrap: PairedBootstrap, name: str) -> dict[str, Interval]:
    """Every metric of one contender with its 95 % interval."""
    estimates_by_metric = {metric: bootstrap.estimate(name, metric, LEVEL) for metric in bootstrap.metrics}
    return {metric: Interval(e.value, e.low, e.high) for metric, e in estimates_by_metric.items()}


def compare_with_others(
    bootstrap: PairedBootstrap, hypothesis: Hypothesis, labels: np.ndarray, registered: Mapping[str, np.ndarray]
) -> tuple[PairwiseResult, ...]:
    """Compare the winner with each of the others.

    Args:
        bootstrap: of all contenders, paired over examples.
        hypothesis: about the winner.
        labels: of the test split, [n_examples].
        registered: by contender, probabilities of the weights to register, [n_examples, n_labels].
    """
    return tuple(_compare_with(bootstrap, hypothesis, other, labels, registered) for other in hypothesis.others)


def decide(hypothesis: Hypothesis, difference: Interval, enough: bool = True) -> str:
    """better, worse or not shown.

    better: the whole interval is beyond the margin. worse: the whole interval is on the other side of zero. If `enough`
    is False, too few examples differ for anything to be shown.
    """
    if not enough:
        return NOT_SHOWN
    ends = sorted((hypothesis.sign * difference.low, hypothesis.sign * difference.high))
    if ends[0] > hypothesis.margin:
        return BETTER
    return WORSE if ends[1] < 0 else NOT_SHOWN


def best_name(scored: Mapping[str, float], metric: str) -> str:
    """The name with the best score; of equal scores the first."""
    return max(scored, key=lambda name: gain(scored[name], direction_of(metric)))


def median_index(values: Sequence[float]) -> int:
    """The index of the median; of an even number of values, the lower of the two in the middle."""
    return sorted(range(len(values)), key=lambda i: (values[i], i))[(len(values) - 1) // 2]


def is_shown_worse(labels: np.ndarray, average: np.ndarray, members: np.ndarray, metric: str) -> bool:
    """Whether an average is worse than its members are on average, by more than two standard errors.

    The standard error is that of the difference over examples, on which they are paired. The members are these, so it
    is not over seeds.

    Args:
        labels: [n_examples].
        average: probabilities, [n_examples, n_labels].
        members: probabilities, [n_members, n_examples, n_labels].
        metric: that is compared.
    """
    answers = {"average": Predictions(average[None]), "members": Predictions(members)}
    bootstrap = PairedBootstrap(labels, answers, metric=metric)
    difference, error = bootstrap.difference_over_examples("average", "members", metric)
    return gain(difference, direction_of(metric)) < -2 * error


def _compare_with(
    bootstrap: PairedBootstrap,
    hypothesis: Hypothesis,
    other: str,
    labels: np.ndarray,
    registered: Mapping[str, np.ndarray],
) -> PairwiseResult:
    estimate = bootstrap.difference(hypothesis.winner, other, hypothesis.metric, LEVEL, hypothesis.among)
    difference = Interval(estimate.value, estimate.low, estimate.high)
    enough = bootstrap.differ_on_enough_examples(hypothesis.winner, other, hypothesis.metric, LEVEL, hypothesis.among)
    test = mcnemar(labels, registered[hypothesis.winner], registered[other])
    answer = decide(hypothesis, difference, enough)
    return PairwiseResult(other, hypothesis.metric, difference, answer, test.only_first, test.only_second, test.p)
