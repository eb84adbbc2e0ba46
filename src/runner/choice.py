"""The choice of the winner, on fresh-seed validation, and for whom the test split is opened then."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.errors import StudyEnded
from src.paths import write_whole
from src.records import Outcome, State
from src.runner import contenders
from src.runner.contenders import BASELINE, DEFAULT, Contender, LineUp, Repeat
from src.verdict import judgement

CHOICE = "choice.json"


@dataclass(frozen=True)
class Choice:
    """The winner among the candidates, and the opening of the test split that followed."""

    line_up: LineUp
    folder: Path
    winner: str
    tuned: str  # the best of the tuned settings; the winner itself, unless the default recipe is
    best_baseline: str
    opening: int
    key: str
    seed: int | None = None  # of the winner's training that is registered; None: as of old, from the scores as they are

    @property
    def tested(self) -> list[Repeat]:
        """The trainings of the winner, the default recipe and the best tuned settings: others are not looked at again.

        A recipe that failed on a seed is not judged.
        """
        names = [c for c in self.line_up.recipes if c.name in (self.winner, self.tuned) or c.kind == DEFAULT]
        whole = [c for c in names if len(scores(c, self.line_up, self.folder)) == len(self.line_up.seeds)]
        return [contenders.repeat(c, seed, self.folder) for c in whole for seed in self.line_up.seeds]

    @property
    def fixed(self) -> list[Contender]:
        return self.line_up.fixed

    @property
    def registered(self) -> Repeat:
        """The winner's training with the median validation score when it was chosen: its weights are kept."""
        contender = next(c for c in self.line_up.recipes if c.name == self.winner)
        seed = median_seed(contender, self.line_up, self.folder) if self.seed is None else self.seed
        return contenders.repeat(contender, seed, self.folder)

    def write(self) -> None:
        values = {"winner": self.winner, "tuned": self.tuned, "best_baseline": self.best_baseline,
                  "opening": self.opening, "key": self.key, "seed": self.seed,
                  "line_up": self.line_up.key}  # fmt: skip
        write_whole(self.folder / CHOICE, json.dumps(values, indent=1))

    @staticmethod
    def read(folder: Path, line_up: LineUp) -> "Choice | None":
        """The choice that was made for this line-up, if it was made."""
        file = folder / CHOICE
        found = json.loads(file.read_text()) if file.exists() else {}
        if found.pop("line_up", None) != line_up.key:
            return None
        return Choice(line_up, folder, **found)


def finished(outcome: Outcome | None) -> bool:
    """Whether a training came to its end with a score."""
    return outcome is not None and outcome.state == State.COMPLETE and outcome.score is not None


def scores(contender: Contender, line_up: LineUp, folder: Path) -> list[float]:
    """Fresh-seed validation scores of a recipe, in the order of the seeds; fewer than seeds if trainings failed."""
    outcomes = [contenders.repeat(contender, seed, folder).outcome() for seed in line_up.seeds]
    return [o.score for o in outcomes if o is not None and o.score is not None and finished(o)]


def median_seed(contender: Contender, line_up: LineUp, folder: Path) -> int:
    """The fresh seed with the median validation score."""
    return line_up.seeds[judgement.median_of(scores(contender, line_up, folder))]


def best_of(candidates: Sequence[Contender], line_up: LineUp, folder: Path, metric: str) -> str:
    """Whose mean over all fresh seeds is the best. Empty if all have failed.

    Of equals the default recipe, which nobody had to search for, else the better in the search.
    """
    found = {c.name: scores(c, line_up, folder) for c in sorted(candidates, key=lambda c: c.kind != DEFAULT)}
    means = {name: float(np.mean(each)) for name, each in found.items() if len(each) == len(line_up.seeds)}
    return judgement.best(means, metric) if means else ""


def winner(line_up: LineUp, folder: Path, metric: str) -> str:
    """The best of the candidates. Raises StudyEnded if none could be trained on every seed."""
    found = best_of(line_up.candidates, line_up, folder, metric)
    if not found:
        reasons = {o.reason for c in line_up.candidates for s in line_up.seeds
                   if (o := contenders.repeat(c, s, folder).outcome()) and o.state == State.FAIL}  # fmt: skip
        raise StudyEnded(
            "None of the candidates could be trained on every fresh seed, so there is nothing to judge: "
            f"{'; '.join(sorted(map(str, reasons)))}. The same command tries the failed ones again."
        )
    return found


def best_baseline(line_up: LineUp, metric: str) -> str:
    """The baseline with the best validation score: chosen before the test split is opened."""
    found = {c.name: c.search_score for c in line_up.contenders if c.kind == BASELINE and c.search_score is not None}
    return judgement.best(found, metric) if found else ""
