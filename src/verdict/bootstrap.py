"""Bootstrap intervals over examples and seeds, paired on the same examples, and McNemar's test.

Each draw resamples the examples, the same ones for all contenders, and independently the seeds of each contender (a
crossed, or 'pigeonhole', bootstrap: Owen 2007, doi:10.1214/07-AOAS122). Intervals over examples alone would call equal
recipes different far too often.

- A draw takes one seed less than there are: the variance over a few seeds is then unbiased (Rao & Wu 1988,
  doi:10.1080/01621459.1988.10478591).
- Resampling both counts the interaction of seeds and examples three times; resampling only examples, or only seeds,
  counts it once. Twice the sum of these two variances minus the first one therefore counts it once.
- Limits are the estimate plus and minus a t quantile times the standard error, with Welch and Satterthwaite's degrees
  of freedom: for five seeds, or few examples of a rare label, the normal quantile is too small.
- An average of n trainings' weights is one model, so its seeds cannot be resampled. Its variance over seeds is the
  jackknife's, (n - 1) / n times the sum of squares of the leave-one-out averages about their mean (Efron & Stein 1981,
  doi:10.1214/aos/1176345462). Seed i stands for the value v + (n - 1) (m - v_i), where v is the average's, v_i that
  without member i, and m their mean: the mean of these is v, and the variance of their mean is the jackknife's.
- An average and its members are the same trainings, and are paired on them, too. All other trainings are taken as
  independent, which makes intervals too wide rather than too narrow if they are alike.
- A difference that fewer examples carry than an exact sign test needs (six at 95 %) is not shown, whatever its
  interval.

How often equal recipes come out as different is tested by simulation (tests/verdict/test_verdict.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from src.core.metric import METRICS, PROBABILITIES
from src.core.task import are_numbers, is_right, kind_of
from src.verdict import estimates

N_DRAWS = 2000
MAX_COUNTS = 4_000_000  # counts held at once


@dataclass(frozen=True)
class Predictions:
    """A contender's probabilities, [n_seeds, n_examples, n_labels].

    n_seeds is 1 for one that is not trained, and for an average, which has those of its leave-one-out averages, too,
    [n_members, n_examples, n_labels]. Contenders with the same `trainings` are made of the same ones, in one order.
    """

    probabilities: np.ndarray
    leave_one_out: np.ndarray | None = None
    trainings: str = ""

    @property
    def n_seeds(self) -> int:
        """The number of seeds that its values vary over."""
        return len(self.probabilities if self.leave_one_out is None else self.leave_one_out)

    def weighted_metrics(self, labels: np.ndarray, counts: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Metric -> [n_draws, n_seeds], the mean of which over seeds is the contender's.

        Args:
            labels: [n_examples].
            counts: how often each draw holds each example, [n_draws, n_examples].
            names: of the metrics.
        """
        values = estimates.weighted_metrics(labels, self.probabilities, counts, names)
        if self.leave_one_out is None:
            return values
        without_one = estimates.weighted_metrics(labels, self.leave_one_out, counts, names)
        return {name: _jackknife_values(values[name], without_one[name]) for name in values}


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float
    error: float  # standard error


class PairedBootstrap:
    """The metrics of every contender in every draw of examples.

    `metric`: that of the study, beside those of every evaluation.
    """

    def __init__(
        self,
        labels: np.ndarray,
        answers: Mapping[str, Predictions],
        draws: int = N_DRAWS,
        seed: int = 0,
        metric: str = "",
    ) -> None:
        generator = np.random.default_rng(seed)
        self.labels, self.predictions, self.n_examples = labels, answers, len(labels)
        n_labels = next((a.probabilities.shape[2] for a in answers.values()), 2)
        self.metrics = estimates.metric_names(n_labels, metric, kind_of(labels))
        self.support = {name: estimates.support(labels, a.probabilities, self.metrics) for name, a in answers.items()}
        all_examples = np.ones((1, len(labels)))
        self.point_estimates = {
            name: {
                metric: values[0] for metric, values in a.weighted_metrics(labels, all_examples, self.metrics).items()
            }
            for name, a in answers.items()
        }
        parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in answers}
        left = draws
        while left:
            size = min(left, max(1, MAX_COUNTS // self.n_examples))
            counts = _example_counts(generator, size, self.n_examples)
            for name, a in answers.items():
                parts[name].append(a.weighted_metrics(labels, counts, self.metrics))
            left -= size
        self._values = {
            name: {metric: np.concatenate([part[metric] for part in each]) for metric in each[0]}
            for name, each in parts.items()
        }
        # the contenders of a group are paired on their trainings
        self._groups = {name: (a.trainings or name, a.n_seeds) for name, a in answers.items()}
        distinct = dict.fromkeys(self._groups.values())
        self._seeds = {group: _seed_weights(generator, draws, group[1]) for group in distinct}

    def estimate(self, name: str, metric: str, level: float = 0.95) -> Estimate:
        """The mean over the contender's seeds, with its interval.

        The interval of a bounded metric is made on the logit scale, between its ends: it stays within them, and near
        them it is not too narrow. If there are no errors, or only errors, it is the exact binomial one.
        """
        estimate, known = self._estimate({name: 1.0}, metric, 1 - level), METRICS[metric]
        if not known.is_bounded:
            low, high = max(known.low, estimate.low), min(known.high, estimate.high)
            return Estimate(estimate.value, low, high, estimate.error)
        width, wrong = known.high - known.low, 1 - level
        value = (estimate.value - known.low) / width
        if not 0 < value < 1:
            reach = 1 - (wrong / 2) ** (1 / self.support[name][metric])
            low, high = (1 - reach, 1.0) if value >= 1 else (0.0, reach)
        else:
            reach = (estimate.high - estimate.value) / width / (value * (1 - value))
            middle = math.log(value / (1 - value))
            low, high = float(expit(middle - reach)), float(expit(middle + reach))
        bounded = min(max(estimate.value, known.low), known.high)  # sums of a jackknife are off by their rounding
        return Estimate(bounded, known.low + width * low, known.low + width * high, estimate.error)

    def difference(self, name: str, other: str, metric: str, level: float = 0.95, among: int = 1) -> Estimate:
        """The difference `name` minus `other`, with its interval.

        Args:
            name: a contender.
            other: another contender.
            metric: that is compared.
            level: of the interval, such as 0.95.
            among: from how many candidates `name` was selected; the interval is widened for that (Bonferroni).
        """
        estimate = self._estimate({name: 1.0, other: -1.0}, metric, (1 - level) / among)
        if not METRICS[metric].is_bounded:
            return estimate
        most = METRICS[metric].high - METRICS[metric].low
        return Estimate(estimate.value, max(-most, estimate.low), min(most, estimate.high), estimate.error)

    def difference_over_examples(self, name: str, other: str, metric: str) -> tuple[float, float]:
        """The difference `name` minus `other` of these very seeds, and its standard error over examples."""
        difference = float(self.point_estimates[name][metric].mean() - self.point_estimates[other][metric].mean())
        drawn = self._values[name][metric].mean(axis=1) - self._values[other][metric].mean(axis=1)
        return difference, float(drawn.std(ddof=1))

    def differ_on_enough_examples(
        self, name: str, other: str, metric: str, level: float = 0.95, among: int = 1
    ) -> bool:
        """Whether an exact sign test could be significant if all examples on which they differ favoured one of them.

        Args:
            name: a contender.
            other: another contender.
            metric: says which examples count.
            level: of the test, such as 0.95.
            among: from how many candidates `name` was selected (Bonferroni).
        """
        if METRICS[metric].reads == PROBABILITIES:
            return True
        first, second = self.predictions[name].probabilities, self.predictions[other].probabilities
        return estimates.n_differing_examples(metric, self.labels, first, second) >= math.ceil(
            math.log2(2 * among / (1 - level))
        )

    def _estimate(self, signs: Mapping[str, float], metric: str, error_rate: float) -> Estimate:
        value, both, examples_only = 0.0, np.zeros(0), np.zeros(0)
        of_seeds: dict[tuple[str, int], np.ndarray] = {}  # the values of each group's seeds
        for name, sign in signs.items():
            each, values, group = self.point_estimates[name][metric], self._values[name][metric], self._groups[name]
            value += sign * float(each.mean())
            both = sign * (values * self._seeds[group]).sum(axis=1) + (both if both.size else 0.0)
            examples_only = sign * values.mean(axis=1) + (examples_only if examples_only.size else 0.0)
            of_seeds[group] = sign * each + of_seeds.get(group, 0.0)
        # variances with their degrees of freedom
        parts = [(float(each.var(ddof=1)) / len(each), len(each) - 1) for each in of_seeds.values() if len(each) > 1]
        seeds, examples = sum(v for v, _ in parts), float(examples_only.var(ddof=1))
        parts.append((examples, max(1, min(self.support[name][metric] for name in signs) - 1)))
        variance = max(2 * (seeds + examples) - float(both.var(ddof=1)), seeds, examples)
        reach = math.sqrt(variance) * float(stats.t.ppf(1 - error_rate / 2, _degrees_of_freedom(variance, parts)))
        return Estimate(value, value - reach, value + reach, math.sqrt(variance))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two predictors: on how many examples only one of them was right, and the exact two-sided p.

    Of two that predict numbers, it is the sign test: on how many examples one was nearer to the truth.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> McNemar:
    """`first`, `second`: probabilities [n_examples, n_labels]. Source: McNemar 1947; exact binomial form."""
    if are_numbers(labels):
        off, also = np.abs(first[:, 0] - labels), np.abs(second[:, 0] - labels)
        a, b = int((off < also).sum()), int((also < off).sum())
    else:
        hit, other = is_right(labels, first), is_right(labels, second)
        a, b = int((hit & ~other).sum()), int((other & ~hit).sum())
    return McNemar(a, b, float(stats.binomtest(a, a + b, 0.5).pvalue) if a + b else 1.0)


def _example_counts(generator: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """How often each of `n` examples is in each of `draws` draws of `n` with replacement, [n_draws, n]."""
    rows = generator.integers(0, n, (draws, n)) + np.arange(draws)[:, None] * n
    return np.bincount(rows.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def _seed_weights(generator: np.random.Generator, draws: int, repeats: int) -> np.ndarray:
    """Weights [n_draws, n_seeds] of draws of one seed less than there are. A single seed always has weight 1."""
    if repeats == 1:
        return np.ones((draws, 1))
    return generator.multinomial(repeats - 1, np.full(repeats, 1 / repeats), size=draws) / (repeats - 1)


def _jackknife_values(whole: np.ndarray, without_one: np.ndarray) -> np.ndarray:
    """A value per member, [n_draws, n_members]: their mean is `whole`, the variance of their mean the jackknife's.

    Args:
        whole: values of the average, [n_draws, 1].
        without_one: values of the averages without one member each, [n_draws, n_members].
    """
    spread = without_one.mean(axis=1, keepdims=True) - without_one
    return whole + (without_one.shape[1] - 1) * spread


def _degrees_of_freedom(total: float, parts: list[tuple[float, int]]) -> float:
    """Degrees of freedom of a variance `total` that is the sum of independent ones. Source: Welch and Satterthwaite."""
    under = sum(v * v / d for v, d in parts)
    return max(1.0, total * total / under) if under > 0 else 1e6
