"""Picks the trial that a comparison takes on, where a study has several objectives (compare.pick)."""

from collections.abc import Sequence

import numpy as np

from src.config.settings import PickRule
from src.core.errors import InvalidInput
from src.core.metric import direction_of, gain
from src.core.records import State, TrialRecord
from src.search.study import Study

ROUNDING = 1e-9  # of differences of floats


def pick_trial(pick: int | str | PickRule, study: Study) -> TrialRecord:
    """The trial that compare.pick names: a number, the knee of the front, or by a rule.

    Raises:
        InvalidInput: there is no such trial, it is not complete or out of bounds, or the rule names no objective.
    """
    if isinstance(pick, int):
        return _by_number(pick, study)
    front = study.front()
    if not front:
        raise InvalidInput(
            f"compare.pick is {describe(pick)}, and no trial of {study.name} is complete and within its constraints."
        )
    objectives = study.study_settings.objectives
    if isinstance(pick, PickRule):
        return _by_rule(pick, front, objectives, study.name)
    if len(objectives) == 1:
        raise InvalidInput(
            f"compare.pick is {pick}, and {study.name} has one objective, {objectives[0]}: it has no front. Leave "
            "compare.pick out for its best trials, or give a trial's number: compare.pick=7."
        )
    return knee_of(front, objectives)


def describe(pick: int | str | PickRule) -> str:
    """The rule as it is typed."""
    if not isinstance(pick, PickRule):
        return str(pick)
    within = ", ".join(f"{name}: {value:g}" for name, value in pick.within.items())
    return f"{{within: {{{within}}}, then: {pick.then}}}"


def knee_of(front: Sequence[TrialRecord], objectives: Sequence[str]) -> TrialRecord:
    """The trial of the front that is nearest to the best of every objective at once.

    Each objective is scaled so that the front's best value is 0 and its worst 1. Of equally near trials it is the
    earlier in `front`.
    """
    costs = -np.array([[_gain(trial, name) for name in objectives] for trial in front])
    ranges = costs.max(axis=0) - costs.min(axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(ranges > 0, ranges, 1.0)
    return front[int(np.argmin(np.linalg.norm(scaled, axis=1)))]


def _gain(trial: TrialRecord, name: str) -> float:
    value = trial.result.value_of(name)
    return gain(np.nan if value is None else value, direction_of(name))


def _by_number(number: int, study: Study) -> TrialRecord:
    trial = next((t for t in study.trials() if t.number == number), None)
    if trial is None:
        raise InvalidInput(f"compare.pick is {number}, and {study.name} has no such trial.")
    if trial.state != State.COMPLETE:
        raise InvalidInput(
            f"compare.pick is {number}, and this trial of {study.name} is {trial.state}; it takes one that is COMPLETE."
        )
    if trial.violates:
        raise InvalidInput(
            f"compare.pick is {number}, and this trial of {study.name} is not within study.constraints: "
            f"{' and '.join(trial.violates)}."
        )
    return trial


def _by_rule(rule: PickRule, front: Sequence[TrialRecord], objectives: Sequence[str], study: str) -> TrialRecord:
    """Of the trials near enough to the best of some objectives, the best of another one."""
    if unknown := [name for name in (*rule.within, rule.then) if name not in objectives]:
        raise InvalidInput(
            f"compare.pick is {describe(rule)}, and {unknown[0]} is no objective of {study}; it has "
            f"{', '.join(objectives)}."
        )
    best = {name: max(_gain(trial, name) for trial in front) for name in rule.within}
    near = [
        t for t in front if all(best[name] - _gain(t, name) <= rule.within[name] + ROUNDING for name in rule.within)
    ]
    if not near:
        raise InvalidInput(
            f"compare.pick is {describe(rule)}, and no trial of the front of {study} is so near to the best of all of "
            f"{' and '.join(rule.within)}. Widen the differences, or take compare.pick=knee."
        )
    return max(near, key=lambda trial: _gain(trial, rule.then))
