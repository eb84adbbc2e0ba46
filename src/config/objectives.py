"""Reads what a study is searched for (its metrics and constraints), and which trial a comparison picks."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from src.config.settings import PickRule, StudySettings
from src.core.metric import ALIASES, COSTS


def with_objectives(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of the group study for StudySettings, where study.metric may be a list; and the problems with them."""
    values = dict(values)
    if values.get("constraints") is None:
        values.pop("constraints", None)
    problems = _bounds_problems(values.get("constraints"))
    metrics = values.get("metric")
    if isinstance(metrics, list):
        metrics = [ALIASES.get(m, m) if isinstance(m, str) else m for m in metrics]
        problems += _list_problems(metrics)
        values |= {"metric": next(iter(metrics), ""), "further_metrics": metrics[1:]}
    return values, problems


def _list_problems(metrics: list[Any]) -> list[str]:
    if not metrics or not all(isinstance(m, str) for m in metrics) or len(set(metrics)) < len(metrics):
        return [
            f"study.metric is {metrics}; it is a metric, or a list of different ones, typed "
            "'study.metric=[accuracy,ms_per_1000_texts]'."
        ]
    if metrics[0] in COSTS:
        return [
            f"study.metric begins with {metrics[0]}, which is a cost; the first is a metric of the answers, by which "
            f"trials are judged at their rungs and compared: 'study.metric=[accuracy,{metrics[0]}]'."
        ]
    return []


def _bounds_problems(constraints: Any) -> list[str]:
    if not isinstance(constraints, dict):
        return []  # of a wrong type, which is found where the settings are read
    names = [ALIASES.get(name, name) for name in constraints]
    if twice := [name for name in names if names.count(name) > 1]:
        return [f"study.constraints has bounds for {twice[0]} under two names; give them together."]
    return [
        f"study.constraints.{name} is {value!r}; it has bounds, typed 'study.constraints={{{name}:{{max:<number>}}}}'."
        for name, value in constraints.items()
        if not isinstance(value, dict)
    ]


def problems_with(study: StudySettings) -> list[str]:
    """Constraints that say nothing, or are no numbers."""
    problems = [
        f"study.constraints.{name} has {value}; a bound is a number."
        for name, bounds in study.constraints.items()
        for value in bounds.given.values()
        if not math.isfinite(value)
    ]
    return problems + [
        f"study.constraints.{name} has no min and no max; it is typed 'study.constraints={{{name}:{{max:<number>}}}}'."
        for name, bounds in study.constraints.items()
        if not bounds.given
    ]


def as_pick(pick: Any) -> int | str | PickRule | None:
    """compare.pick as it is used. Raises ValueError, with the problem, if it is nothing that a trial is picked by."""
    if pick is None or pick == "knee" or (isinstance(pick, int) and not isinstance(pick, bool) and pick >= 0):
        return pick
    if isinstance(pick, dict):
        try:
            rule = TypeAdapter(PickRule).validate_python(pick)
        except ValidationError:
            rule = None
        if rule is not None and rule.within and all(value >= 0 for value in rule.within.values()):
            return rule
    raise ValueError(
        f"compare.pick is {pick}; it is knee, a trial's number, or a rule, typed "
        "'compare.pick={within:{accuracy:0.01},then:ms_per_1000_texts}'."
    )
