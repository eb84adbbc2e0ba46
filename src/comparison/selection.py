"""Selects the winner by validation scores on fresh seeds, before the test split is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.comparison import contenders
from src.comparison.contenders import BASELINE, DEFAULT, Contender, Contenders, SeedRun
from src.core.errors import CommandFailed
from src.core.record_files import read_json, write_json
from src.core.records import State, TrainingResult
from src.verdict import decision

SELECTION_FILE = "choice.json"


@dataclass(frozen=True)
class Selection:
    """The selected winner, and the opening of the test split that followed."""

    contenders: Contenders
    folder: Path
    winner: str
    tuned: str  # the best of the tuned settings: the winner, unless that is the default recipe
    best_baseline: str
    opening: int
    key: str
    seed: int | None = None  # of the winner's seed run that is registered; an earlier version did not store it

    @property
    def tested_seed_runs(self) -> list[SeedRun]:
        """Trainings that predict the test split: of the winner, the default recipe and the best tuned settings.

        A recipe that failed on a seed is left out.
        """
        names = [c for c in self.contenders.recipes if c.name in (self.winner, self.tuned) or c.kind == DEFAULT]
        complete = [c for c in names if len(scores(c, self.contenders, self.folder)) == len(self.contenders.seeds)]
        return [contenders.seed_run(c, seed, self.folder) for c in complete for seed in self.contenders.seeds]

    @property
    def without_training(self) -> list[Contender]:
        """Baselines and the champion, which are evaluated as they are."""
        return self.contenders.without_training

    @property
    def registered_seed_run(self) -> SeedRun:
        """The winner's training with the median validation score. Its weights are kept to be registered."""
        contender = next(c for c in self.contenders.recipes if c.name == self.winner)
        seed = median_seed(contender, self.contenders, self.folder) if self.seed is None else self.seed
        return contenders.seed_run(contender, seed, self.folder)

    def write(self) -> None:
        """Save it in the comparison's folder."""
        values = {"winner": self.winner, "tuned": self.tuned, "best_baseline": self.best_baseline,
                  "opening": self.opening, "key": self.key, "seed": self.seed,
                  "line_up": self.contenders.key}  # fmt: skip
        write_json(self.folder / SELECTION_FILE, values, indent=1)

    @staticmethod
    def read(folder: Path, comparison: Contenders) -> "Selection | None":
        """The selection that was made for these contenders, or None."""
        stored = read_json(folder / SELECTION_FILE, {})
        if stored.pop("line_up", None) != comparison.key:
            return None
        return Selection(comparison, folder, **stored)


def is_complete(result: TrainingResult | None) -> bool:
    """Whether a training ended with a score."""
    return result is not None and result.state == State.COMPLETE and result.score is not None


def scores(contender: Contender, comparison: Contenders, folder: Path) -> list[float]:
    """Validation scores of a recipe in the order of the seeds; fewer than seeds if trainings failed."""
    outcomes = [contenders.seed_run(contender, seed, folder).result() for seed in comparison.seeds]
    return [o.score for o in outcomes if o is not None and o.score is not None and is_complete(o)]


def median_seed(contender: Contender, comparison: Contenders, folder: Path) -> int:
    """The fresh seed with the median validation score."""
    return comparison.seeds[decision.median_index(scores(contender, comparison, folder))]


def best_recipe(candidates: Sequence[Contender], comparison: Contenders, folder: Path, metric: str) -> str:
    """The name of the recipe with the best mean score over all fresh seeds; empty if every recipe failed on a seed.

    Of equal means the default recipe wins, then the better one in the search.

    Args:
        candidates: the recipes to select from.
        comparison: has the fresh seeds.
        folder: of the comparison, with the results of its seed runs.
        metric: whose direction says what is best.
    """
    scores_by_name = {
        c.name: scores(c, comparison, folder) for c in sorted(candidates, key=lambda c: c.kind != DEFAULT)
    }
    means = {name: float(np.mean(each)) for name, each in scores_by_name.items() if len(each) == len(comparison.seeds)}
    return decision.best_name(means, metric) if means else ""


def select_winner(comparison: Contenders, folder: Path, metric: str) -> str:
    """The best candidate. Raises CommandFailed if none could be trained on every seed."""
    name = best_recipe(comparison.candidates, comparison, folder, metric)
    if not name:
        reasons = {o.reason for c in comparison.candidates for s in comparison.seeds
                   if (o := contenders.seed_run(c, s, folder).result()) and o.state == State.FAIL}  # fmt: skip
        raise CommandFailed(
            "None of the candidates could be trained on every fresh seed, so there is nothing to judge: "
            f"{'; '.join(sorted(map(str, reasons)))}. The same command tries the failed ones again."
        )
    return name


def best_baseline(comparison: Contenders, metric: str) -> str:
    """The baseline with the best validation score."""
    scores_by_name = {
        c.name: c.search_score for c in comparison.contenders if c.kind == BASELINE and c.search_score is not None
    }
    return decision.best_name(scores_by_name, metric) if scores_by_name else ""
