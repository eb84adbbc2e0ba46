"""Selects the winner by validation scores on fresh seeds, before the test split is opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.comparison import contenders
from src.comparison.contenders import BASELINE, DEFAULT, Contender, Contenders, SeedRun
from src.comparison.forms import AveragedForm, averaged_form, registered_training_dir
from src.core.errors import CommandFailed
from src.core.record_files import read_json, write_json
from src.core.records import State, TrainingResult
from src.core.task import Threshold
from src.verdict import decision
from src.verdict.records import AVERAGE, REFIT, SINGLE, STUDENT

SELECTION_FILE, SOFT_LABELS_FILE = "choice.json", "soft-labels.parquet"


@dataclass(frozen=True)
class Selection:
    """The selected winner, the form of it that is registered, and the opening of the test split that followed."""

    contenders: Contenders
    folder: Path
    winner: str  # the recipe, whatever its form
    tuned: str  # the best of the tuned settings: the winner, unless that is the default recipe
    best_baseline: str
    opening: int  # 0: the test split is not opened yet
    key: str
    seed: int | None = None  # of the winner's median seed run; an earlier version did not store it
    form: str = SINGLE  # that is registered
    forms: tuple[str, ...] = (SINGLE,)  # in which the winner is judged
    form_reason: str = ""  # why that form is registered, in words
    thresholds: dict[str, Threshold] = field(default_factory=dict)  # by contender, if they are chosen on validation

    @property
    def is_opened(self) -> bool:
        """Whether the test split is opened for it."""
        return self.opening > 0

    @property
    def delivered(self) -> str:
        """The name of the contender that is registered: the winner in its form."""
        return self.contenders.in_form(self.winning_recipe, self.form).name

    @property
    def winning_recipe(self) -> Contender:
        """The winner's recipe."""
        return next(c for c in self.contenders.recipes if c.name == self.winner)

    @property
    def tested_recipes(self) -> list[Contender]:
        """The winner, the default recipe and the best tuned settings. A recipe that failed on a seed is left out."""
        names = [c for c in self.contenders.recipes if c.name in (self.winner, self.tuned) or c.kind == DEFAULT]
        return [c for c in names if len(scores(c, self.contenders, self.folder)) == len(self.contenders.seeds)]

    @property
    def tested_seed_runs(self) -> list[SeedRun]:
        """Trainings that predict the test split."""
        return [
            contenders.seed_run(c, seed, self.folder) for c in self.tested_recipes for seed in self.contenders.seeds
        ]

    @property
    def averaged_forms(self) -> list[AveragedForm]:
        """Averages that predict the test split.

        Of the seed runs of every recipe that does, of the refits of the winner and the default recipe, and of the
        winner's students. Once the test split is opened, those of which a training has failed are left out.
        """
        forms = [
            averaged_form(recipe, form, self.contenders, self.folder)
            for recipe in self.tested_recipes
            for form in self.forms
            if form == AVERAGE
            or (form == REFIT and (recipe.name == self.winner or recipe.kind == DEFAULT))
            or (form == STUDENT and recipe.name == self.winner)
        ]
        return [form for form in forms if not (self.is_opened and any(map(has_failed, form.members)))]

    def trainings_of(self, form: str, recipe: str = "") -> list[SeedRun]:
        """The trainings for a form, REFIT or STUDENT. `recipe`: the name of one; empty: of all that are judged."""
        return [
            run
            for each in self.averaged_forms
            if each.contender.form == form and recipe in ("", each.contender.name.removesuffix(f"-{form}"))
            for run in each.members
        ]

    @property
    def further_trainings(self) -> list[SeedRun]:
        """The trainings beyond the seed runs: refits, and students."""
        return [*self.trainings_of(REFIT), *self.trainings_of(STUDENT)]

    @property
    def soft_labels_path(self) -> Path:
        """The file of what the winner's seed runs answer to the unlabelled texts, for students."""
        student = averaged_form(self.winning_recipe, STUDENT, self.contenders, self.folder)
        return student.folder / SOFT_LABELS_FILE

    @property
    def without_training(self) -> list[Contender]:
        """Baselines and the champion, which are evaluated as they are."""
        return self.contenders.without_training

    @property
    def registered_seed_run(self) -> SeedRun:
        """The winner's training with the median validation score, which is registered if its form is SINGLE."""
        contender = self.winning_recipe
        seed = median_seed(contender, self.contenders, self.folder) if self.seed is None else self.seed
        return contenders.seed_run(contender, seed, self.folder)

    @property
    def registered_training_dir(self) -> Path:
        """The folder of the weights to register, laid out as a training's."""
        return registered_training_dir(
            self.contenders.in_form(self.winning_recipe, self.form).key,
            self.form,
            self.registered_seed_run.seed,
            self.contenders.seeds,
            self.folder,
        )

    def write(self) -> None:
        """Save it in the comparison's folder."""
        values = {"winner": self.winner, "tuned": self.tuned, "best_baseline": self.best_baseline,
                  "opening": self.opening, "key": self.key, "seed": self.seed, "form": self.form,
                  "forms": self.forms, "form_reason": self.form_reason, "thresholds": self.thresholds,
                  "line_up": self.contenders.key}  # fmt: skip
        write_json(self.folder / SELECTION_FILE, values, indent=1)

    @staticmethod
    def read(folder: Path, comparison: Contenders) -> "Selection | None":
        """The selection that was made for these contenders, or None."""
        stored = read_json(folder / SELECTION_FILE, {})
        if stored.pop("line_up", None) != comparison.key:
            return None
        stored["forms"] = tuple(stored.get("forms", (SINGLE,)))
        return Selection(comparison, folder, **stored)


def has_failed(run: SeedRun) -> bool:
    """Whether a training has ended as FAIL."""
    result = run.result()
    return result is not None and result.state == State.FAIL


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
