"""Which difference a comparison can detect, estimated before anything is trained for it.

The two variances below are fractions of p(1-p) for a score p. They were measured on seed runs of MiniLM on the starter
reviews and on SST-2 (1,000 sentences), and are a guide only: nothing is known of the data at hand yet. They serve for
averages, too: on the starter reviews n times the jackknife's variance of an average of n trainings was 0.0015 to 0.0043
of p(1-p), and the standard errors of differences between forms were 0.007 to 0.015, where these say 0.014.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from src.core.metric import EACH_LABEL, EXAMPLES, METRICS

TARGET_POWER = 0.8  # probability of detecting a true difference
BETWEEN_SEEDS = 0.002  # variance of one training's score between seeds
BETWEEN_RECIPES = 0.35  # variance, per example, of the difference between two recipes' mean answers
MAX_SEEDS = 40


def deciding_examples(metric: str, examples: int, label_counts: Sequence[int], several: bool = False) -> int:
    """How many examples a metric's error rests on.

    accuracy rests on all of them. f1, precision and recall of label 1 rest on its examples. Of an average over K labels
    with n_k examples the variance is about the sum of 1 / n_k over K squared, as of K^2 / sum(1 / n_k) examples; this
    serves for other metrics of each label, too.

    Args:
        metric: accuracy, f1, f1_macro, ...
        examples: in the test split.
        label_counts: test examples by label; empty if they are not known.
        several: whether a text can have several labels.
    """
    present = [n for n in label_counts if n]
    rests_on = METRICS[metric].rests_on
    if rests_on == EXAMPLES or len(present) < 2:
        return examples
    if rests_on == EACH_LABEL or len(label_counts) > 2 or several:
        return max(1, round(len(present) ** 2 / sum(1 / n for n in present)))
    return max(1, label_counts[1])


@dataclass(frozen=True)
class Power:
    """What `examples` and `seeds` can detect for a score near `score`, if the winner is selected from `among`."""

    examples: int
    seeds: int
    score: float
    among: int = 1

    def standard_error(self) -> float:
        """Expected standard error of the difference of two mean scores."""
        seeds, examples = self._variances()
        return math.sqrt(seeds + examples)

    def smallest_difference(self) -> float:
        """The smallest true difference that comes out as better in 80 of 100 comparisons."""
        return (self._critical_value() + float(stats.norm.ppf(TARGET_POWER))) * self.standard_error()

    def probability(self, difference: float) -> float:
        """The probability that a true `difference` comes out as better."""
        return float(stats.norm.sf(self._critical_value() - difference / self.standard_error()))

    def examples_and_seeds_for(self, difference: float) -> "Power | None":
        """The fewest examples, and the fewest seeds, that detect `difference`; None beyond 40 seeds."""
        for seeds in [self.seeds, *(s for s in (10, 20, MAX_SEEDS) if s > self.seeds)]:
            enough = replace(self, seeds=seeds, examples=10**9)
            if enough.smallest_difference() > difference * 0.9:
                continue
            low, high = 1, 10**9
            while low < high:
                middle = (low + high) // 2
                is_shown = replace(self, seeds=seeds, examples=middle).smallest_difference() <= difference
                low, high = (low, middle) if is_shown else (middle + 1, high)
            return replace(self, seeds=seeds, examples=low)
        return None

    def describe(self, margin: float = 0.0) -> str:
        """The sentence of the plan. A difference must be larger than `margin`."""
        least = self.smallest_difference()
        beyond = f" beyond the margin of {_points(margin)}" if margin else ""
        words = (
            f"a true difference between two recipes or forms of {_points(least)}{beyond} in 80 of 100 cases, with "
            f"{self.examples} test examples and {self.seeds} seeds; one of {_points(least / 2)} in "
            f"{self.probability(least / 2) * 100:.0f}"
        )
        more = self.examples_and_seeds_for(least / 2)
        if more is None:
            return words
        return (
            f"{words}, and to show it in 80 would take about {_rounded(more.examples)} examples and {more.seeds} seeds"
        )

    def _variances(self) -> tuple[float, float]:
        spread = self.score * (1 - self.score)
        return 2 * BETWEEN_SEEDS * spread / self.seeds, BETWEEN_RECIPES * spread / self.examples

    def _critical_value(self) -> float:
        seeds, examples = self._variances()
        freedom = (seeds + examples) ** 2 / (
            seeds**2 / (2 * (self.seeds - 1)) + examples**2 / max(1, self.examples - 1)
        )
        return float(stats.t.ppf(1 - 0.025 / self.among, freedom))


def _points(difference: float) -> str:
    return f"{difference * 100:.1f} points"


def _rounded(n: int) -> str:
    step = 10 ** max(0, len(str(n)) - 2)
    return f"{math.ceil(n / step) * step:,}"
