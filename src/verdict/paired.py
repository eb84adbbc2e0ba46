"""Intervals over examples and seeds, paired on the same examples; McNemar's test of two predictors.

Both are drawn anew: examples, the same ones for all contenders, and each contender's seeds by themselves (a crossed, or
'pigeonhole', bootstrap: Owen 2007, doi:10.1214/07-AOAS122). Intervals over examples alone call equal recipes different
far too often.

- A draw takes one seed less than there are: the variance over a few seeds is then unbiased (Rao & Wu 1988,
  doi:10.1080/01621459.1988.10478591).
- Drawing both counts three times what a seed does to single examples; drawing examples alone, and seeds alone, each
  count it once. Twice the sum of the two less the first counts it once, as it should be.
- Limits are the estimate plus and minus a t quantile times the standard error, with Welch and Satterthwaite's degrees
  of freedom: for five seeds, or few examples of a rare label, the normal quantile is too small.
- A difference that fewer examples carry than an exact sign test needs (six at 95 %) is not shown, whatever its
  interval.

How often equal recipes come out as different is tested by simulation (tests/test_verdict.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from src.verdict import scores

DRAWS = 2000
CHUNK = 4_000_000  # counts held at once


@dataclass(frozen=True)
class Answers:
    """What a contender answered: chances [n_repeats, n_examples, n_labels]; one repeat is a predictor as it stands."""

    chances: np.ndarray

    @property
    def repeats(self) -> int:
        return len(self.chances)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float
    error: float  # standard error


class Draws:
    """The metrics of every contender in every draw of examples."""

    def __init__(self, labels: np.ndarray, answers: Mapping[str, Answers], draws: int = DRAWS, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.labels, self.answers, self.n_examples = labels, answers, len(labels)
        self.support = {name: scores.support(labels, a.chances) for name, a in answers.items()}
        self.points = {name: scores.points(labels, a.chances) for name, a in answers.items()}
        parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in answers}
        left = draws
        while left:
            size = min(left, max(1, CHUNK // self.n_examples))
            counts = _counts(generator, size, self.n_examples)
            for name, a in answers.items():
                parts[name].append(scores.weighted(labels, a.chances, counts))
            left -= size
        self._values = {
            name: {metric: np.concatenate([part[metric] for part in each]) for metric in each[0]}
            for name, each in parts.items()
        }
        self._seeds = {name: _seed_weights(generator, draws, a.repeats) for name, a in answers.items()}

    def estimate(self, name: str, metric: str, level: float = 0.95) -> Estimate:
        """The mean over the contender's seeds. Of a share, the interval is made on the logit scale (0 to 1 is kept, and
        near the ends it is not too narrow); where there are no errors, or errors only, it is the exact binomial one."""
        found = self._estimate({name: 1.0}, metric, 1 - level)
        if metric == "loss":
            return found
        value, wrong = found.value, 1 - level
        if not 0 < value < 1:
            reach = 1 - (wrong / 2) ** (1 / self.support[name][metric])
            low, high = (1 - reach, 1.0) if value >= 1 else (0.0, reach)
            return Estimate(value, low, high, found.error)
        reach = (found.high - value) / (value * (1 - value))
        middle = math.log(value / (1 - value))
        return Estimate(value, float(expit(middle - reach)), float(expit(middle + reach)), found.error)

    def difference(self, name: str, other: str, metric: str, level: float = 0.95, among: int = 1) -> Estimate:
        """`name` minus `other`. `among`: of how many `name` was chosen; the interval is widened for it (Bonferroni)."""
        found = self._estimate({name: 1.0, other: -1.0}, metric, (1 - level) / among)
        if metric == "loss":
            return found
        return Estimate(found.value, max(-1.0, found.low), min(1.0, found.high), found.error)

    def enough_apart(self, name: str, other: str, metric: str, level: float = 0.95, among: int = 1) -> bool:
        """Whether the two answer differently on as many examples as an exact sign test needs if all favour one."""
        if metric == "loss":
            return True
        first, second = self.answers[name].chances, self.answers[other].chances
        return scores.apart(metric, self.labels, first, second) >= math.ceil(math.log2(2 * among / (1 - level)))

    def _estimate(self, signs: Mapping[str, float], metric: str, error_rate: float) -> Estimate:
        value, drawn, fixed = 0.0, np.zeros(0), np.zeros(0)
        parts: list[tuple[float, int]] = []  # variance, degrees of freedom
        for name, sign in signs.items():
            each, values = self.points[name][metric], self._values[name][metric]
            value += sign * float(each.mean())
            drawn = sign * (values * self._seeds[name]).sum(axis=1) + (drawn if drawn.size else 0.0)
            fixed = sign * values.mean(axis=1) + (fixed if fixed.size else 0.0)
            if len(each) > 1:
                parts.append((float(each.var(ddof=1)) / len(each), len(each) - 1))
        seeds, examples = sum(v for v, _ in parts), float(fixed.var(ddof=1))
        parts.append((examples, max(1, min(self.support[name][metric] for name in signs) - 1)))
        variance = max(2 * (seeds + examples) - float(drawn.var(ddof=1)), seeds, examples)
        reach = math.sqrt(variance) * float(stats.t.ppf(1 - error_rate / 2, _freedom(variance, parts)))
        return Estimate(value, value - reach, value + reach, math.sqrt(variance))


@dataclass(frozen=True)
class McNemar:
    """Two predictors on the same examples: who alone was right how often, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> McNemar:
    """`first`, `second`: chances [n_examples, n_labels]. Source: McNemar 1947; exact binomial form."""
    hit, other = first.argmax(axis=1) == labels, second.argmax(axis=1) == labels
    a, b = int((hit & ~other).sum()), int((other & ~hit).sum())
    return McNemar(a, b, float(stats.binomtest(a, a + b, 0.5).pvalue) if a + b else 1.0)


def _counts(generator: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """How often each of `n` examples comes in each draw of `n` with replacement."""
    rows = generator.integers(0, n, (draws, n)) + np.arange(draws)[:, None] * n
    return np.bincount(rows.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def _seed_weights(generator: np.random.Generator, draws: int, repeats: int) -> np.ndarray:
    """Weights [n_draws, n_repeats] of a draw of one seed less than there are; a single repeat is always itself."""
    if repeats == 1:
        return np.ones((draws, 1))
    return generator.multinomial(repeats - 1, np.full(repeats, 1 / repeats), size=draws) / (repeats - 1)


def _freedom(total: float, parts: list[tuple[float, int]]) -> float:
    """Welch and Satterthwaite's degrees of freedom of a variance `total`, made of independent ones."""
    under = sum(v * v / d for v, d in parts)
    return max(1.0, total * total / under) if under > 0 else 1e6
