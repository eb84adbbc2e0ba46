"""What is wrong with a study's definition, found before anything is spent."""

import math
from collections.abc import Mapping

from src.errors import Refusal, near
from src.learning import arguments, names
from src.search.proposals import build_sampler
from src.search.space import Parameter, Space
from src.search.targets import build
from src.settings import Settings

SEARCHABLE = ("model", "optimizer", "schedule", "trainer")
RANDOM_WHEN_CONDITIONAL = {"GPSampler": "GP", "QMCSampler": "QMC", "CmaEsSampler": "CMA-ES"}


def check(settings: Settings, space: Space, options: Mapping[str, list[str]]) -> list[str]:
    """Raises Refusal with all problems together; returns warnings. `options`: config groups and their YAMLs."""
    problems: list[str] = []
    for parameter in space.parameters:
        problems += _key(parameter, settings, space, options) + _when(parameter, space)
    if not space.parameters:
        problems.append("space is empty: a study needs at least one key to search (python -m src.train trains one).")
    problems += _study(settings, space) + _enqueued(settings, space)
    study, node = settings.study, settings.pruner
    for attempt in (
        lambda: names.direction_of(study.metric, study.direction, len(settings.data.label_names)),
        lambda: build_sampler(settings.sampler, study.seed),
        lambda: build(node, "pruner"),
    ):
        try:
            attempt()
        except Refusal as refusal:
            problems += refusal.problems
    Refusal.when_any(problems)
    return _warnings(settings, space)


def _key(parameter: Parameter, settings: Settings, space: Space, options: Mapping[str, list[str]]) -> list[str]:
    key, group = parameter.key, parameter.key.split(".", maxsplit=1)[0]
    if key == "seed" or key.endswith(".seed"):
        return [f"space.{key}: a seed is not searched; it would only pick a lucky one."]
    if group not in SEARCHABLE:
        return [f"space.{key}: only {', '.join(SEARCHABLE)} can be searched; the data and the study stay fixed."]
    if "." not in key:
        unknown = [str(c) for c in parameter.values() or [] if c not in options[group]]
        if unknown or parameter.values() is None:
            return [f"space.{key}: {', '.join(unknown) or 'a range'} is no option of the group {group}; it has "
                    f"{', '.join(options[group])}."]  # fmt: skip
        return []
    searched_groups = {p.key for p in space.parameters if "." not in p.key}
    if key not in space.base and group not in searched_groups:
        return [f"space.{key}: the config has no {key}; searching it would change nothing.{near(key, space.base)}"]
    if key in ("model.name", "model.pins", "model.learning_rate"):
        return [f"space.{key}: nothing in a training reads {key}; to search models, use space.model.choices."]
    if (why := arguments.unconsumed(settings.recipe).get(key)) and not parameter.when:
        return [f"space.{key}: nothing would read it, because {why}."]
    values = parameter.values() or parameter.ends()
    wrong = arguments.out_of_limits(key, parameter.ends()) or arguments.indivisible(
        key, values, settings.worker.devices_per_trial
    )
    return [f"space.{key} has {wrong}."] if wrong else []


def _when(parameter: Parameter, space: Space) -> list[str]:
    problems = []
    by_key = {p.key: p for p in space.parameters}
    for key, allowed in parameter.when.items():
        if key not in by_key and key not in space.base:
            problems.append(f"space.{parameter.key}.when: {key} is neither searched nor in the config.")
        elif key in by_key and (bad := [v for v in allowed if not by_key[key].holds(v)]):
            problems.append(f"space.{parameter.key}.when: {key} never is {bad[0]}; it is searched in {by_key[key]}.")
        elif key not in by_key and space.base[key] not in allowed:
            problems.append(f"space.{parameter.key}.when: {key} is always {space.base[key]}, so it would never count.")
    return problems


def _study(settings: Settings, space: Space) -> list[str]:
    study, problems = settings.study, []
    least = {"n_trials": 1, "max_failures": 1, "keep_checkpoints": 1, "max_restarts": 0, "seed": 0}
    problems += [
        f"study.{key} is {getattr(study, key)}; it is at least {low}." for key, low in least.items()
        if getattr(study, key) < low
    ]  # fmt: skip
    if study.patience is not None and study.patience < 1:
        problems.append(f"study.patience is {study.patience}; it is at least 1, or null.")
    if study.rung_examples is not None and study.rung_examples < 2 * len(settings.data.label_names):
        problems.append(f"study.rung_examples is {study.rung_examples}; it is at least two per label, or null.")
    if study.disk_budget_gb is not None and study.disk_budget_gb <= 0:
        problems.append(f"study.disk_budget_gb is {study.disk_budget_gb}; it is above 0, or null.")
    if study.budget_minutes is not None and not study.budget_minutes > 0:
        problems.append(f"study.budget_minutes is {study.budget_minutes}; it is above 0, or null.")
    rungs = study.rungs
    if not rungs or rungs[-1] != 1 or sorted(set(rungs)) != rungs or not 0 < rungs[0] <= 1:
        problems.append(f"study.rungs is {rungs}; it is a rising list of shares of the schedule that ends with 1.0.")
    if not all(math.isfinite(r) for r in rungs):
        problems.append(f"study.rungs is {rungs}; its entries are numbers.")
    if unknown := [b for b in study.baselines if b not in names.BASELINES]:
        problems.append(f"study.baselines names {', '.join(unknown)}; there are {', '.join(names.BASELINES)}.")
    sampler = str(settings.sampler.get("_target_", "")).rsplit(".", 1)[-1]
    if sampler in ("BruteForceSampler", "GridSampler") and not space.finite():
        open_ended = [p.key for p in space.parameters if p.values() is None]
        problems.append(f"sampler=grid needs a finite space; give {', '.join(open_ended)} a step or choices.")
    if sampler == "CmaEsSampler" and not any(p.values() is None or len(p.values() or ()) > 1 for p in space.parameters):
        problems.append("sampler=cmaes needs at least one range of numbers to search.")
    return problems


def _enqueued(settings: Settings, space: Space) -> list[str]:
    return [
        f"study.enqueue[{i}]: {problem}."
        for i, point in enumerate(settings.study.enqueue)
        for problem in space.outside(point)
    ]


def _warnings(settings: Settings, space: Space) -> list[str]:
    found = []
    sampler = str(settings.sampler.get("_target_", "")).rsplit(".", 1)[-1]
    if (name := RANDOM_WHEN_CONDITIONAL.get(sampler)) and space.conditional:
        found.append(f"{name} samples conditional parameters at random: {', '.join(space.conditional)}.")
    if outside := space.outside(space.default()):
        found.append(f"The default recipe lies outside the space, so it is not trial 0: {'; '.join(outside)}.")
    return found
