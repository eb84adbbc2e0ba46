"""What difference a comparison can show, before anything is trained for it.

The two spreads below are shares of p(1-p) for a score p, as measured on fresh-seed trainings of MiniLM on the starter
reviews and on SST-2 (1,000 sentences): a guide, since the data at hand have not been looked at yet.
"""

import math
from dataclasses import dataclass, replace

from scipy import stats

SHOWN = 0.8  # of the comparisons in which there is such a difference
BETWEEN_SEEDS = 0.002  # variance of one training's score between seeds
BETWEEN_RECIPES = 0.35  # variance, per example, of the difference between two recipes' mean answers
MOST_SEEDS = 40


@dataclass(frozen=True)
class Power:
    """What `examples` and `seeds` can show for a score near `score`, the winner being chosen among `among`."""

    examples: int
    seeds: int
    score: float
    among: int = 1

    def error(self) -> float:
        """Expected standard error of the difference of two mean scores."""
        seeds, examples = self._parts()
        return math.sqrt(seeds + examples)

    def smallest(self) -> float:
        """The smallest true difference that comes out as better in 80 of 100 comparisons."""
        return (self._limit() + float(stats.norm.ppf(SHOWN))) * self.error()

    def chance(self, difference: float) -> float:
        """How often a true `difference` comes out as better."""
        return float(stats.norm.sf(self._limit() - difference / self.error()))

    def sufficient(self, difference: float) -> "Power | None":
        """The fewest examples, with as few more seeds as it takes, that show `difference`; None beyond 40 seeds."""
        for seeds in [self.seeds, *(s for s in (10, 20, MOST_SEEDS) if s > self.seeds)]:
            enough = replace(self, seeds=seeds, examples=10**9)
            if enough.smallest() > difference * 0.9:
                continue
            low, high = 1, 10**9
            while low < high:
                middle = (low + high) // 2
                shown = replace(self, seeds=seeds, examples=middle).smallest() <= difference
                low, high = (low, middle) if shown else (middle + 1, high)
            return replace(self, seeds=seeds, examples=low)
        return None

    def in_words(self, margin: float = 0.0) -> str:
        """For the plan. A difference has to be shown to be larger than `margin`."""
        least = self.smallest()
        beyond = f" beyond the margin of {_points(margin)}" if margin else ""
        words = (
            f"a true difference between two recipes of {_points(least)}{beyond} in 80 of 100 cases, with "
            f"{self.examples} test examples and {self.seeds} seeds; one of {_points(least / 2)} in "
            f"{self.chance(least / 2) * 100:.0f}"
        )
        more = self.sufficient(least / 2)
        if more is None:
            return words
        return (
            f"{words}, and to show it in 80 would take about {_rounded(more.examples)} examples and {more.seeds} seeds"
        )

    def _parts(self) -> tuple[float, float]:
        spread = self.score * (1 - self.score)
        return 2 * BETWEEN_SEEDS * spread / self.seeds, BETWEEN_RECIPES * spread / self.examples

    def _limit(self) -> float:
        seeds, examples = self._parts()
        freedom = (seeds + examples) ** 2 / (
            seeds**2 / (2 * (self.seeds - 1)) + examples**2 / max(1, self.examples - 1)
        )
        return float(stats.t.ppf(1 - 0.025 / self.among, freedom))


def _points(difference: float) -> str:
    return f"{difference * 100:.1f} points"


def _rounded(n: int) -> str:
    step = 10 ** max(0, len(str(n)) - 2)
    return f"{math.ceil(n / step) * step:,}"
