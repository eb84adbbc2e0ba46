"""The contenders of a comparison (baselines, default recipe, best settings of the study, champion), and its seeds."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from src.comparison.pick import describe, pick_trial
from src.comparison.saved_study import CONFIG_FILE, SavedStudy
from src.config import compose
from src.config.settings import PER_LABEL, ComparisonSettings, Settings
from src.core.cache import content_key
from src.core.errors import InvalidInput
from src.core.record_files import read_record, without_schema, write_json
from src.core.records import DEFAULT_RECIPE, Params, Record, State, TrainingResult, TrialRecord
from src.search import stopping
from src.tracking import run_tree
from src.training.pretrained import BEST_DIR
from src.verdict.records import AVERAGE, REFIT, SINGLE, STUDENT

BASELINE, DEFAULT, TUNED, CHAMPION = "baseline", "default", "tuned", "champion"
CONTENDERS_FILE = "line-up.json"
SEED_STREAM = 2007  # keeps the fresh seeds different from other seeds derived from the study's seed
TRAINING_DIR = "training"  # in a seed run's folder: checkpoints and best weights


@dataclass(frozen=True)
class Contender(Record):
    """One contender.

    `key` names its folder: for a recipe, a hash of everything but the seed that a training depends on.
    """

    name: str
    kind: str
    key: str
    about: str
    yaml: str = ""  # of a recipe: the whole config of the training
    trial: int | None = None
    search_score: float | None = None
    version: str = ""  # of the champion, in the registry
    uri: str = ""  # of the champion's model
    note: str = ""
    form: str = SINGLE  # of a recipe
    recipe: str = ""  # of a form: the key of its recipe
    violates: str = ""  # constraints of the study that the trial is not within

    @property
    def is_recipe(self) -> bool:
        """Whether it is a recipe, which is trained on fresh seeds."""
        return self.kind in (DEFAULT, TUNED)

    @property
    def recipe_key(self) -> str:
        """The key of the recipe, whatever its form."""
        return self.recipe or self.key

    def settings(self, seed: int | None = None) -> Settings:
        """The settings of its training, with `seed` in place of the stored one."""
        return compose.restore_settings(self.yaml, seed)


@dataclass(frozen=True)
class Contenders:
    """The contenders of one comparison, and its fresh seeds."""

    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()
    not_judged: tuple[tuple[str, str], ...] = ()  # baselines of the study without a result, and why
    forms: tuple[str, ...] = (SINGLE,)  # in which the winner is judged
    deliver: str = SINGLE  # the form that is to be registered, or auto
    unlabelled: str = ""  # with STUDENT: a hash of the unlabelled texts and how they are taught
    temperature: float = 1.0  # of the students' soft labels
    has_thresholds: bool = False  # whether decision thresholds are chosen on validation
    thresholds_per_label: bool = False  # one for each label
    picked: str = ""  # the name of the recipe that compare.pick takes on; empty: the best of the candidates wins
    pick: str = ""  # how it was picked, as typed
    merge: bool = True  # whether an adapter is registered merged into its base

    def with_champion(self, champion: Contender) -> "Contenders":
        """The same with the current champion."""
        notes = (f"the champion ({champion.about}) {champion.note}",) if champion.note else ()
        return replace(self, contenders=(*self.contenders, champion), notes=(*self.notes, *notes))

    def in_form(self, recipe: Contender, form: str) -> Contender:
        """The recipe in another form, which is a contender of its own."""
        if form == SINGLE:
            return recipe
        # what a student learns depends on the texts, and on which trainings have answered them
        learned = [self.unlabelled, seeds_key(self.seeds)] if form == STUDENT else []
        key = "-".join([recipe.key, form, *learned])
        return replace(recipe, name=f"{recipe.name}-{form}", key=key, form=form, recipe=recipe.key, search_score=None)

    @property
    def candidates(self) -> list[Contender]:
        """The recipes from which the winner is selected: tuned ones, best first, then the default recipe.

        It is only the picked one, if there is one. A default recipe outside the study's constraints is not among them.
        """
        if self.picked:
            return [c for c in self.recipes if c.name == self.picked]
        return [*self.tuned_recipes, *(c for c in self.contenders if c.kind == DEFAULT and not c.violates)]

    @property
    def tuned_recipes(self) -> list[Contender]:
        """Recipes with settings that the search found, best first."""
        return [c for c in self.contenders if c.kind == TUNED]

    @property
    def recipes(self) -> list[Contender]:
        """All recipes: they are trained on fresh seeds."""
        return [c for c in self.contenders if c.is_recipe]

    @property
    def without_training(self) -> list[Contender]:
        """Baselines and the champion, which are evaluated as they are."""
        return [c for c in self.contenders if not c.is_recipe]

    @property
    def champion(self) -> Contender | None:
        """The current champion, if it is compared."""
        return next((c for c in self.contenders if c.kind == CHAMPION), None)

    @property
    def key(self) -> str:
        """A hash that changes with everything that changes what is compared."""
        forms = () if self.forms == (SINGLE,) else (*self.forms, self.deliver, *filter(None, [self.unlabelled]))
        forms = (*forms, "tuned threshold") if self.has_thresholds else forms
        forms = (*forms, "per label") if self.thresholds_per_label else forms
        forms = (*forms, f"picked {self.picked}") if self.picked else forms
        forms = forms if self.merge else (*forms, "adapter")
        return content_key(*(f"{c.name} {c.key}" for c in self.contenders), *map(str, self.seeds), *forms)

    @property
    def key_without_champion(self) -> str:
        """The key without the champion."""
        return replace(self, contenders=tuple(c for c in self.contenders if c.kind != CHAMPION)).key

    def write(self, folder: Path) -> None:
        """Save them in a comparison's folder, for its workers."""
        content = {**asdict(self), "contenders": [asdict(c) for c in self.contenders]}
        write_json(folder / CONTENDERS_FILE, content, indent=1)

    @staticmethod
    def read(folder: Path) -> "Contenders":
        """Read them from a comparison's folder."""
        stored = without_schema(json.loads((folder / CONTENDERS_FILE).read_text(encoding="utf-8")))
        contenders = tuple(Contender(**c) for c in stored["contenders"])
        without = tuple((name, why) for name, why in stored.get("not_judged", []))
        return Contenders(
            contenders,
            tuple(stored["seeds"]),
            tuple(stored["notes"]),
            without,
            tuple(stored.get("forms", [SINGLE])),
            stored.get("deliver", SINGLE),
            stored.get("unlabelled", ""),
            stored.get("temperature", 1.0),
            stored.get("has_thresholds", False),
            stored.get("thresholds_per_label", False),
            stored.get("picked", ""),
            stored.get("pick", ""),
            stored.get("merge", True),
        )


class ModelFolder:
    """Where a comparison keeps a model and what it predicts."""

    folder: Path

    @property
    def training_dir(self) -> Path:
        """The folder of its checkpoints and weights."""
        return self.folder / TRAINING_DIR

    @property
    def weights_dir(self) -> Path:
        """The weights; they exist from the end of the training or averaging until the comparison deletes them."""
        return self.training_dir / BEST_DIR

    @property
    def test_probabilities_path(self) -> Path:
        """The file of probabilities on the test split, [n_examples, n_labels]."""
        return self.folder / "test.npy"


@dataclass(frozen=True)
class SeedRun(ModelFolder):
    """One training of a recipe, from one fresh seed."""

    contender: Contender
    seed: int
    folder: Path

    def result(self) -> TrainingResult | None:
        """Its result, or None if it has not ended."""
        return read_record(self.folder / "outcome.json", TrainingResult.from_json)


def seed_runs(comparison: Contenders, folder: Path) -> Iterator[SeedRun]:
    """Every training of the comparison, seed by seed, so that all recipes progress at the same pace."""
    for seed in comparison.seeds:
        for contender in comparison.recipes:
            yield seed_run(contender, seed, folder)


def seeds_key(seeds: Sequence[int]) -> str:
    """A short hash of the seeds."""
    return content_key(*map(str, seeds))[:8]


def seed_run(contender: Contender, seed: int, folder: Path) -> SeedRun:
    """The training of a contender from `seed`, in the comparison's `folder`."""
    return SeedRun(contender, seed, seed_run_dir(contender.key, seed, folder))


def seed_run_dir(key: str, seed: int, folder: Path) -> Path:
    """The folder of one training."""
    return folder / "repeats" / key / str(seed)


def fixed_probabilities_path(contender: Contender, folder: Path) -> Path:
    """The file of a contender that is not trained: its probabilities on the test split."""
    return folder / "fixed" / contender.key / "test.npy"


def fixed_validation_path(contender: Contender, folder: Path) -> Path:
    """The file of a baseline that is fitted for the comparison: its probabilities on the validation split."""
    return beside_test_probabilities(fixed_probabilities_path(contender, folder))


def beside_test_probabilities(file: Path) -> Path:
    """The file of probabilities on the validation split beside that on the test split."""
    return file.with_name("validation.npy")


def select_contenders(saved: SavedStudy, settings: ComparisonSettings) -> Contenders:
    """The contenders of a study. Raises InvalidInput if it has no tuned settings to compare."""
    study = saved.study
    if held := study.trials_in_progress():
        raise InvalidInput(
            f"The study {saved.name} is being searched: trials {', '.join(map(str, held))} are in work. Compare when "
            "it is over."
        )
    done = study.baseline_results()
    baselines = [
        Contender(name, BASELINE, f"baseline-{name}", "", search_score=done[name].score)
        for name in study.study_settings.baselines
        if name in done and done[name].score is not None
    ]
    judged = {baseline.name for baseline in baselines}
    not_judged = tuple(
        (name, f"failed: {done[name].reason}" if name in done else "was not evaluated")
        for name in study.study_settings.baselines
        if name not in judged
    )
    complete = [t for t in study.trials() if t.state == State.COMPLETE]
    ranked = stopping.rank_trials(complete, study.direction)
    tried = next((t for t in complete if t.origin == DEFAULT_RECIPE), None)
    picked = None if settings.pick is None else pick_trial(settings.pick, study)
    # The config may have changed since: values of what is searched change nothing in a study that has begun.
    yaml = _trial_config(saved, tried) if tried else (study.folder / CONFIG_FILE).read_text(encoding="utf-8")
    default = _recipe(saved, "default", DEFAULT, yaml, tried)
    tuned: list[Contender] = []
    for trial in ranked if picked is None else [picked]:
        if len(tuned) == settings.top_k:
            break
        recipe = _recipe(saved, f"trial-{trial.number}", TUNED, _trial_config(saved, trial), trial)
        if recipe.key not in {c.key for c in (default, *tuned)}:
            tuned.append(recipe)
    if not tuned and picked is None and not study.end_reason():
        n_ended = len(study.own_ended_trials())
        raise InvalidInput(
            f"The study {saved.name} is not over, and no trial with tuned settings is COMPLETE yet: {n_ended} of "
            f"{study.limits().n_trials} trials have ended. Continue it with the same command, and compare then."
        )
    if not tuned and picked is None:
        raise InvalidInput(
            f"The study {saved.name} has no COMPLETE trial with tuned settings: there is nothing to compare with the "
            "default recipe. Continue the search: python -m src.sweep -m study.n_trials=<more>."
        )
    notes = [] if study.end_reason() else ["the study is not over; its search may find other settings yet"]
    if default.violates:
        notes.append(f"the default recipe is not within study.constraints ({default.violates}), so it cannot win")
    return Contenders(
        (*baselines, default, *tuned),
        fresh_seeds(saved, settings.seeds),
        tuple(notes),
        not_judged,
        _forms(saved, settings),
        settings.deliver.form,
        _unlabelled(saved, settings),
        settings.deliver.temperature,
        saved.settings.study.has_tuned_threshold,
        saved.settings.study.threshold == PER_LABEL,
        "" if picked is None else tuned[0].name if tuned else default.name,
        "" if settings.pick is None else f"compare.pick={describe(settings.pick)}",
        settings.deliver.merge,
    )


def _forms(saved: SavedStudy, settings: ComparisonSettings) -> tuple[str, ...]:
    refit = (REFIT,) if settings.deliver.refit else ()
    return (SINGLE, AVERAGE, *refit, *((STUDENT,) if saved.settings.data.unlabelled else ()))


def _unlabelled(saved: SavedStudy, settings: ComparisonSettings) -> str:
    """A hash of the unlabelled texts and of how they are taught; empty without any."""
    texts = saved.unlabelled
    if texts is None:
        if settings.deliver.form == STUDENT:
            raise InvalidInput(
                f"deliver.form=student, and the study {saved.name} has no unlabelled texts. Run its sweep command "
                "again with data.unlabelled=<file>, which changes nothing else, and then compare."
            )
        return ""
    return content_key(texts.fingerprint, f"{settings.deliver.temperature:g}", str(settings.deliver.refit))[:8]


def fresh_seeds(saved: SavedStudy, n: int) -> tuple[int, ...]:
    """The first `n` seeds of a sequence drawn from the study's seed, without those that the search used."""
    settings = saved.settings
    used = {settings.recipe.seed, settings.study.seed}
    row = np.random.default_rng([settings.study.seed, SEED_STREAM]).permutation(np.arange(1, 100_000))
    return tuple(int(seed) for seed in row[: n + len(used)] if int(seed) not in used)[:n]


def params_of(contender: Contender, keys: Sequence[str]) -> Params:
    """The searched settings of a recipe, by dotted key."""
    if not contender.yaml:
        return {}
    settings = contender.settings()
    values = settings.flatten()
    return {key: values[key] for key in keys if key in values}


def _recipe(saved: SavedStudy, name: str, kind: str, yaml: str, trial: TrialRecord | None) -> Contender:
    settings = compose.restore_settings(yaml)
    objective = (settings.study.metric, settings.study.rungs, settings.study.rung_examples)
    recipe = {k: v for k, v in settings.recipe.identity().items() if k not in ("seed", "model.name")}
    key = content_key(json.dumps([recipe, objective], sort_keys=True, default=str), saved.dataset.fingerprint)
    about = "" if trial is None else f"trial {trial.number}"
    violates = "" if trial is None else " and ".join(trial.violates)
    number, score = (trial.number, trial.score) if trial else (None, None)
    return Contender(name, kind, key, about, yaml, number, score, violates=violates)


def config_of(saved: SavedStudy, trial: TrialRecord) -> str | None:
    """The config of a trial's training, as YAML; None if it is not on record."""
    kept = saved.study.inherited_config_path(trial.number)
    if trial.is_inherited and kept.exists():
        return kept.read_text(encoding="utf-8")
    return run_tree.trial_run(saved.study, trial.number).read_text("config.yaml")


def _trial_config(saved: SavedStudy, trial: TrialRecord) -> str:
    config_yaml = config_of(saved, trial)
    if config_yaml is None:
        raise InvalidInput(
            f"Trial {trial.number} of {saved.name} has no config on record: {saved.study.folder} is damaged."
        )
    return config_yaml
