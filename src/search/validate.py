"""Checks a study's definition before anything is trained."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from src.config.settings import (
    DTYPES,
    FOUR_BIT,
    NO_ADAPTER,
    PER_LABEL,
    WEIGHTINGS,
    LossSettings,
    Settings,
    StudySettings,
)
from src.core import own_code, own_metrics
from src.core.errors import InvalidInput, did_you_mean
from src.core.task import Task, labels_of
from src.search.instantiate import instantiate
from src.search.sampler import SCREENED_KEY, build_sampler
from src.search.space import Parameter, Space
from src.training import arguments, class_weights, objectives, own_baseline

MIN_SCREENING_EXAMPLES = 50  # training texts
MIN_RUNG_NUMBERS = 10  # validation texts that a rung of a regression is judged on
SEARCHABLE_GROUPS = ("model", "optimizer", "schedule", "trainer", "loss", "adapter")
NOT_SEARCHED = {  # what to search instead
    **dict.fromkeys(("model.name", "model.pins", "model.learning_rate"), "models, use space.model.choices"),
    "adapter.method": "adapters, use space.adapter.choices",
    "adapter.learning_rate": "learning rates, use space.optimizer.learning_rate",
}
WORDS = {"loss.class_weights": WEIGHTINGS, "model.dtype": DTYPES}  # that may be searched
RANDOM_WHEN_CONDITIONAL = {"GPSampler": "GP", "QMCSampler": "QMC", "CmaEsSampler": "CMA-ES"}


def check_study(settings: Settings, space: Space, options: Mapping[str, list[str]]) -> list[str]:
    """Returns warnings. Raises InvalidInput with all problems together. `options`: the options of each config group."""
    problems: list[str] = []
    for parameter in space.parameters:
        problems += _key_problems(parameter, settings, space, options) + _condition_problems(parameter, space)
    if not space.parameters:
        problems.append(
            "space is empty: a study needs at least one key to search (python -m src.train trains a single "
            "configuration)."
        )
    problems += _study_problems(settings, space) + _enqueued_problems(settings, space)
    problems += _screening_problems(settings, space) + _four_bit_problems(space)
    study, node = settings.study, settings.pruner
    attempts: tuple[Callable[[], object], ...] = (
        lambda: build_sampler(settings.sampler, study.seed),
        lambda: instantiate(node, "pruner"),
    )
    for attempt in attempts:
        try:
            attempt()
        except InvalidInput as error:
            problems += error.problems
    InvalidInput.raise_if_any(problems)
    return _warnings(settings, space)


def check_task(settings: Settings, task: Task) -> str:
    """Returns the metric's direction. Raises InvalidInput for what does not go with the data's labels."""
    study, n_labels = settings.study, len(task.label_names)
    objectives.check_measured(study, task)
    if task.is_regression:
        InvalidInput.raise_if_any(_of_labels_only(settings))
        if study.rung_examples is not None and study.rung_examples < MIN_RUNG_NUMBERS:
            raise InvalidInput(
                f"study.rung_examples is {study.rung_examples}; of a regression it is at least {MIN_RUNG_NUMBERS}, or "
                "null for all of validation: study.rung_examples=null."
            )
        return objectives.resolve_direction(study.metric, study.direction, task)
    class_weights.check_class_weights(settings.recipe.loss, task.label_names)
    direction = objectives.resolve_direction(study.metric, study.direction, task)
    if study.has_tuned_threshold and n_labels != 2 and not task.has_several_labels:
        raise InvalidInput(
            f"study.threshold is {study.threshold}, and the data have {n_labels} labels; a threshold is for two, or "
            "for texts that can have several (data.task=multi_label). Leave it out."
        )
    if study.threshold == PER_LABEL and not task.has_several_labels:
        raise InvalidInput("study.threshold is per_label, and each text has one label; type study.threshold=tuned.")
    if study.rung_examples is not None and study.rung_examples < 2 * n_labels:
        raise InvalidInput(
            f"study.rung_examples is {study.rung_examples}, and the data have {n_labels} labels; it is at least two "
            "per label, or null for all of validation: study.rung_examples=null."
        )
    return direction


def _of_labels_only(settings: Settings) -> Iterator[str]:
    """Settings that are about labels, in a study of numbers."""
    loss, smoothing = settings.recipe.loss, settings.recipe.trainer.get("label_smoothing_factor", 0)
    given = {
        f"study.threshold={settings.study.threshold}": settings.study.has_tuned_threshold,
        f"loss.class_weights={loss.class_weights}": loss.class_weights != LossSettings().class_weights,
        f"loss.focal_gamma={loss.focal_gamma:g}": loss.focal_gamma > 0,
        f"trainer.label_smoothing_factor={smoothing}": bool(smoothing),
        **{f"space.loss.{key}": True for key in settings.space.get("loss") or ()},
        "space.trainer.label_smoothing_factor": "label_smoothing_factor" in (settings.space.get("trainer") or ()),
    }
    for setting, is_given in given.items():
        if is_given:
            yield f"{setting} is about labels, and data.task is regression, where each text has a number. Leave it out."


def try_own_code(settings: Settings, train: pd.DataFrame, n_labels: int) -> None:
    """Compute a metric of the user's own, and fit such baselines, on a few texts.

    Args:
        settings: of the study.
        train: columns text, text_pair (of pairs), label.
        n_labels: of the data.

    Raises:
        InvalidInput: one of them raises an error, or returns what it should not.
    """
    for name in filter(own_code.is_own, settings.study.measured):
        own_metrics.try_metric(name, labels_of(train), n_labels)
    for name in filter(own_code.is_own, settings.study.baselines):
        own_baseline.try_baseline(name, train, n_labels)


def _key_problems(
    parameter: Parameter, settings: Settings, space: Space, options: Mapping[str, list[str]]
) -> list[str]:
    key, group = parameter.key, parameter.key.split(".", maxsplit=1)[0]
    if key == "seed" or key.endswith(".seed"):
        return [f"space.{key}: a seed cannot be searched; the search would only pick a lucky one."]
    if group not in SEARCHABLE_GROUPS:
        return [f"space.{key}: only {', '.join(SEARCHABLE_GROUPS)} can be searched; the data and the study stay fixed."]
    if "." not in key:
        unknown = [str(c) for c in parameter.values() or [] if c not in options[group]]
        if unknown or parameter.values() is None:
            return [f"space.{key}: {', '.join(unknown) or 'a range'} is no option of the group {group}; it has "
                    f"{', '.join(options[group])}."]  # fmt: skip
        return []
    searched_groups = {p.key for p in space.parameters if "." not in p.key}
    if key not in space.base and group not in searched_groups:
        near = did_you_mean(key, space.base)
        if group not in arguments.OPEN_GROUPS:
            return [f"space.{key}: the config has no {key}; searching it would change nothing.{near}"]
        return [
            f"space.{key}: the config has no {key}, so the default recipe has no value for it.{near} If it is a "
            f"field of transformers.TrainingArguments, give it one beside the space: +{key}=<value>."
        ]
    if key in NOT_SEARCHED:
        return [f"space.{key}: nothing in a training reads {key}; to search {NOT_SEARCHED[key]}."]
    if (why := arguments.unused_arguments(settings.recipe).get(key)) and not parameter.when:
        return [f"space.{key}: it would have no effect, because {why}."]
    values = parameter.values() or parameter.bounds()
    if words := [str(v) for v in values if v not in WORDS.get(key, values)]:
        return [f"space.{key} has {', '.join(words)}; it is searched in {', '.join(WORDS[key])}."]
    wrong = arguments.out_of_limits(key, parameter.bounds()) or arguments.not_divisible(
        key, values, settings.worker.devices_per_trial
    )
    return [f"space.{key} has {wrong}."] if wrong else []


def _condition_problems(parameter: Parameter, space: Space) -> list[str]:
    problems = []
    by_key = {p.key: p for p in space.parameters}
    for key, allowed in parameter.when.items():
        if key not in by_key and key not in space.base:
            problems.append(f"space.{parameter.key}.when: {key} is neither searched nor in the config.")
        elif key in by_key and (bad := [v for v in allowed if not by_key[key].contains(v)]):
            problems.append(f"space.{parameter.key}.when: {key} never is {bad[0]}; it is searched in {by_key[key]}.")
        elif key not in by_key and space.base[key] not in allowed:
            problems.append(
                f"space.{parameter.key}.when: {key} is always {space.base[key]}, so the parameter would never be used."
            )
    return problems


def _study_problems(settings: Settings, space: Space) -> list[str]:
    study, problems = settings.study, []
    least = {"n_trials": 1, "max_failures": 1, "keep_checkpoints": 1, "max_restarts": 0, "seed": 0}
    problems += [
        f"study.{key} is {getattr(study, key)}; it is at least {low}." for key, low in least.items()
        if getattr(study, key) < low
    ]  # fmt: skip
    if study.average != "auto" and not (isinstance(study.average, int) and study.average in (0, *range(2, 101))):
        problems.append(f"study.average is {study.average!r}; it is auto, 0, or a number of trials from 2 to 100.")
    if study.threshold != 0.5 and not study.has_tuned_threshold:
        problems.append(f"study.threshold is {study.threshold!r}; it is 0.5, tuned or per_label.")
    if study.patience is not None and study.patience < 1:
        problems.append(f"study.patience is {study.patience}; it is at least 1, or null.")
    problems += [
        f"study.{key} is {value}; it is above 0, or null."
        for key in ("disk_budget_gb", "budget_minutes", "budget_epochs")
        if (value := getattr(study, key)) is not None and not value > 0
    ]
    if study.budget_epochs is not None and settings.recipe.trainer.get("max_steps", -1) > 0:
        problems.append(
            "study.budget_epochs counts epochs, and trainer.max_steps decides how long trials are; take one."
        )
    rungs = study.rungs
    if not rungs or rungs[-1] != 1 or sorted(set(rungs)) != rungs or not 0 < rungs[0] <= 1:
        problems.append(f"study.rungs is {rungs}; it is a rising list of shares of the schedule that ends with 1.0.")
    if not all(math.isfinite(r) for r in rungs):
        problems.append(f"study.rungs is {rungs}; its entries are numbers.")
    problems += _baseline_problems(study.baselines, settings.data.task)
    sampler = str(settings.sampler.get("_target_", "")).rsplit(".", 1)[-1]
    if sampler in ("BruteForceSampler", "GridSampler") and not space.is_finite():
        open_ended = [p.key for p in space.parameters if p.values() is None]
        problems.append(f"sampler=grid needs a finite space; give {', '.join(open_ended)} a step or choices.")
    if study.has_several_objectives:
        problems += _several_objectives_problems(study, sampler, str(settings.pruner.get("_target_", "")))
    if sampler == "CmaEsSampler" and not any(p.values() is None or len(p.values() or ()) > 1 for p in space.parameters):
        problems.append("sampler=cmaes needs at least one range of numbers to search.")
    return problems


def _several_objectives_problems(study: StudySettings, sampler: str, pruner: str) -> list[str]:
    """What does not go with several objectives."""
    problems = []
    if sampler == "CmaEsSampler":
        problems.append("sampler=cmaes searches for one metric; with several take tpe, gp, nsgaii or nsgaiii.")
    if "Hyperband" in pruner:
        problems.append("pruner=hyperband judges by one metric; with several take median, asha, halving or none.")
    if study.direction is not None:
        problems.append(
            f"study.direction is {study.direction!r}, and there are {len(study.objectives)} metrics, each with its own "
            "direction. Leave it out."
        )
    return problems


def _baseline_problems(names: Sequence[str], task: str) -> list[str]:
    problems: list[str] = []
    for name in names:
        try:
            objectives.check_baseline(name, task)
        except InvalidInput as error:
            problems += error.problems
    return problems


def _screening_problems(settings: Settings, space: Space) -> list[str]:
    screening, problems = settings.screening, []
    if screening.keep is None:
        return []
    if screening.keep < 1:
        problems.append(f"screening.keep is {screening.keep}; it is at least 1, or null.")
    if screening.examples < MIN_SCREENING_EXAMPLES:
        problems.append(f"screening.examples is {screening.examples}; it is at least {MIN_SCREENING_EXAMPLES}.")
    if not any(parameter.key == SCREENED_KEY for parameter in space.parameters):
        problems.append(
            f"screening.keep is {screening.keep}, and no model is searched, so there is nothing to choose from. Name "
            "the models: '+space.model.choices=[minilm,distilbert]'."
        )
    if settings.worker.home is not None:
        problems.append(
            "screening.keep with worker.home: a screening is kept in the study's folder, which workers on other "
            "machines do not see. Screen on one machine first, and search the models that it keeps."
        )
    return problems


def _four_bit_problems(space: Space) -> list[str]:
    by_key = {p.key: p for p in space.parameters}
    dtypes, adapters = by_key.get("model.dtype"), by_key.get("adapter")
    if dtypes is None or adapters is None or FOUR_BIT not in (dtypes.values() or ()):
        return []
    if NO_ADAPTER not in dtypes.when.get("adapter", (NO_ADAPTER,)) or NO_ADAPTER not in (adapters.values() or ()):
        return []
    return [
        "space.model.dtype has 4bit, and space.adapter has none, without which such weights cannot be trained. Write "
        "space.model.dtype={choices: [float32, 4bit], when: {adapter: lora}}."
    ]


def _enqueued_problems(settings: Settings, space: Space) -> list[str]:
    return [
        f"study.enqueue[{i}]: {problem}."
        for i, params in enumerate(settings.study.enqueue)
        for problem in space.problems_with(params)
    ]


def _warnings(settings: Settings, space: Space) -> list[str]:
    warnings = []
    sampler = str(settings.sampler.get("_target_", "")).rsplit(".", 1)[-1]
    if (name := RANDOM_WHEN_CONDITIONAL.get(sampler)) and space.conditional_keys:
        warnings.append(f"{name} samples conditional parameters at random: {', '.join(space.conditional_keys)}.")
    if outside := space.problems_with(space.default_params()):
        warnings.append(f"The default recipe lies outside the space, so it is not trial 0: {'; '.join(outside)}.")
    elif edges := space.edges():
        warnings.append(f"The default recipe is at the edge of the space: {'; '.join(edges)}.")
    return warnings
