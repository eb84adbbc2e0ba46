"""Plans which trials of another study a new one takes over (study.inherit): those that it would train in the same way.

A trial fits if the new study, given the trial's settings, would train the same recipe from the same weights. So its
space may be wider or narrower, and a setting that is searched in one of the two studies may be fixed in the other.
"""

import itertools
import shlex
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.comparison import contenders, saved_study
from src.comparison.saved_study import SavedStudy
from src.config import compose
from src.config.settings import Recipe, Settings
from src.core.errors import InvalidInput, mask_secrets
from src.core.formatting import plural
from src.core.paths import Paths
from src.core.records import DEFAULT_RECIPE, ENQUEUED, LEARNED, Params, State, TrialRecord
from src.search.inheritance import InheritedTrial
from src.search.space import Space
from src.search.study import CODE_PREFIX, LABELS_KEY, LOCATION_KEYS
from src.tracking import run_tree
from src.tracking.run_log import RunTail
from src.training import pretrained
from src.training.pretrained import BEST_DIR
from src.workflows.sweep import recipes

# what both studies must have in common: its key in their definitions, and how it is called where it is not the same
IN_COMMON = {
    "data": "other data",
    LABELS_KEY: "other labels",
    "metric": "another metric",
    "rungs": "other rungs",
    "rung_examples": "another study.rung_examples",
}
MOST_REASONS = 6  # that a message lists


@dataclass(frozen=True)
class Inheritance:
    """What a new study takes over from another one."""

    study: str
    trials: tuple[InheritedTrial, ...]
    left_out: Mapping[str, list[int]]  # why trials do not fit -> their numbers there
    n_weights: int  # how many of the trials still have their weights

    def describe(self) -> str:
        """What is taken over, in words."""
        n_left = sum(map(len, self.left_out.values()))
        left = f"; {n_left} more {'does' if n_left == 1 else 'do'} not fit" if n_left else ""
        return f"{plural(len(self.trials), 'trial')} of {self.study}, {self.n_weights} of them with weights{left}"

    def notes(self) -> list[str]:
        """Why the other trials do not fit."""
        return [f"{why}: {_numbers(numbers)} of {self.study}" for why, numbers in _most_common(self.left_out)]


def plan_inheritance(settings: Settings, space: Space, definition: Mapping[str, Any], paths: Paths) -> Inheritance:
    """Compare every ended trial of study.inherit with what the new study would train.

    Args:
        settings: of the new study.
        space: of the new study.
        definition: of the new study.
        paths: of the folder that has both studies.

    Raises:
        InvalidInput: there is no such study, it is on other data or judged otherwise, or none of its trials fits.
    """
    name = str(settings.study.inherit)
    parent = load_other_study(name, "study.inherit", settings, paths)
    _check_in_common(parent, settings, definition)
    fits: list[InheritedTrial] = []
    left_out: dict[str, list[int]] = defaultdict(list)
    for trial in sorted(parent.study.ended_trials(), key=lambda t: t.number):
        params, config, why = _params_here(trial, parent, settings, space, paths)
        if why:
            left_out[why].append(trial.number)
        else:
            frozen = parent.study.frozen_trial(trial.number)
            fits.append(InheritedTrial(parent.source_of(trial), frozen, params, _origin(trial, params, space), config))
    n_weights = sum((parent.study.training_folder(fit.trial.number) / BEST_DIR).is_dir() for fit in fits)
    planned = Inheritance(name, tuple(fits), dict(left_out), n_weights)
    if not fits:
        why = "; ".join(planned.notes()) or "none has ended"
        raise InvalidInput(
            f"study.inherit is {name}, and none of its trials fits into {settings.study.name}: {why}. Give the "
            "settings that they have, search a space that has them, or leave study.inherit out."
        )
    return planned


def way_out(settings: Settings, before: Mapping[str, Any], now: Mapping[str, Any], paths: Paths) -> str:
    """How to keep the trials of a study that is defined otherwise: the command that inherits them, or nothing.

    Args:
        settings: of the command.
        before: the definition that the study has.
        now: the definition that the command asks for.
        paths: of the folder with the studies.
    """
    if any(before.get(key) != now.get(key) for key in _keys_in_common(before, now)):
        return ""
    name = settings.study.name
    new = next(f"{name}-{n}" for n in itertools.count(2) if not paths.study_dir(f"{name}-{n}").exists())
    own = [o for o in settings.overrides if o.lstrip("+").partition("=")[0] not in ("study.name", "study.inherit")]
    words = ["python", "-m", "src.sweep", "-m", *own, f"study.name={new}", f"study.inherit={name}"]
    return f" A new study can take over the trials that fit: {mask_secrets(shlex.join(words))}"


def load_other_study(name: str, setting: str, settings: Settings, paths: Paths) -> SavedStudy:
    """A study that the command names beside its own. Raises InvalidInput if it is not there.

    Args:
        name: of the other study.
        setting: that names it.
        settings: of the command.
        paths: of the folder that has both.
    """
    if name == settings.study.name:
        raise InvalidInput(f"{setting} is {name}, which is this study's own name. Name another: study.name=<another>.")
    names = saved_study.study_names(paths)
    if name not in names:
        raise InvalidInput(
            f"{setting} is {name}, and there is no such study in {paths.study_dir(name).parent}; there is "
            f"{', '.join(names) or 'none'}."
        )
    return saved_study.load_study(name, paths)


def _check_in_common(parent: SavedStudy, settings: Settings, now: Mapping[str, Any]) -> None:
    before = parent.study.definition(now)
    names = {
        key: IN_COMMON.get(key, f"another {key.removeprefix(CODE_PREFIX)}") for key in _keys_in_common(before, now)
    }
    if differ := [name for key, name in names.items() if before.get(key) != now.get(key)]:
        shown = "; ".join(
            f"{key} was {_spelled(before.get(key))} and is {_spelled(now.get(key))}"
            for key in ("metric", "rungs", "rung_examples")
            if before.get(key) != now.get(key)
        )
        raise InvalidInput(
            f"study.inherit is {parent.name}, which has {' and '.join(differ)}{f' ({shown})' if shown else ''}, so its "
            f"scores do not compare with those of {settings.study.name}. A study takes trials over from one on the "
            "same data with the same metric and rungs; from others it can learn where to begin: "
            f"study.learn_from=[{parent.name}]."
        )


def _keys_in_common(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys of two definitions that must be equal, or scores do not compare."""
    return [*IN_COMMON, *sorted(key for key in {*before, *now} if key.startswith(CODE_PREFIX))]


def _params_here(
    trial: TrialRecord, parent: SavedStudy, settings: Settings, space: Space, paths: Paths
) -> tuple[Params, str, str]:
    """The trial's settings in the new study's space, its config, and why it does not fit; empty if it does."""
    if trial.state == State.FAIL:
        return {}, "", "failed there"
    config = contenders.config_of(parent, trial)
    if config is None:
        return {}, "", "has no config on record"
    there = compose.restore_settings(config)
    params, why = space.params_from(there.flatten())
    if why:
        return {}, "", why
    why = _difference(trial, there, recipes.recipe_of(settings, params), parent, paths)
    return params, config, why or _without_values(trial, parent, settings)


def _difference(trial: TrialRecord, there: Settings, recipe: Recipe, parent: SavedStudy, paths: Paths) -> str:
    """In what the trial's training differs from one of `recipe`, in words; empty if in nothing."""
    before, now = there.recipe.identity(), recipe.identity()
    for key in dict.fromkeys([*now, *before]):
        if key not in LOCATION_KEYS and before.get(key) != now.get(key):
            values = [each.flatten().get(key) for each in (there.recipe, recipe)]
            return f"{key} is {_spelled(values[0])} there and {_spelled(values[1])} here"
    weights = RunTail(run_tree.trial_run(parent.study, trial.number).folder).read().tags.get("model.weights")
    if weights is not None and weights != pretrained.resolve(recipe.model, paths.cache_dir).fingerprint:
        return f"the weights of {recipe.model.checkpoint} are others here"
    return ""


def _without_values(trial: TrialRecord, parent: SavedStudy, settings: Settings) -> str:
    """Why a complete trial has no value of an objective or a constraint of the new study; empty if it has all."""
    study = settings.study
    if trial.state != State.COMPLETE:
        return ""
    if study.needs_speed and not parent.settings.study.needs_speed:
        return "the speed was not measured with care (ms_per_1000_texts was no metric there)"
    missing = [name for name in study.measured[1:] if trial.result.value_of(name) is None]
    return f"has no {' and no '.join(missing)}" if missing else ""


def _origin(trial: TrialRecord, params: Params, space: Space) -> str:
    """Where the trial comes from, for the new study. Its default recipe may be another one."""
    if params == space.default_params():
        return DEFAULT_RECIPE
    return ENQUEUED if trial.origin in (DEFAULT_RECIPE, LEARNED) else trial.origin


def _most_common(left_out: Mapping[str, list[int]]) -> list[tuple[str, list[int]]]:
    """The reasons that most trials have; the others together."""
    ordered = sorted(left_out.items(), key=lambda item: -len(item[1]))
    rest = sorted(number for _, numbers in ordered[MOST_REASONS:] for number in numbers)
    return [*ordered[:MOST_REASONS], *([("other reasons", rest)] if rest else [])]


def _spelled(value: object) -> str:
    """The value as it is typed."""
    return "null" if value is None else str(value)


def _numbers(numbers: list[int]) -> str:
    return f"{'trial' if len(numbers) == 1 else 'trials'} {', '.join(map(str, numbers))}"
