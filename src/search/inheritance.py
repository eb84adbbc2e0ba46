"""What a study has from others: trials that it takes over, and settings that it tries first.

Trials that are taken over are known to the study's sampler and pruner from the beginning.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from src.config.settings import Bounds
from src.core.records import Params, TrainingResult
from src.search.asha import PROMOTED_ATTR
from src.search.constraints import excesses_of
from src.search.space import Space

INHERITED_ATTR = "inherited"  # attribute of an inherited trial: its source
LEARNED_ATTR = "learned_from"  # attribute of a trial with settings that were learned: their source
COPIED_ATTRS = ("outcome", "run_id", PROMOTED_ATTR)


@dataclass(frozen=True)
class Source:
    """A trial of another study."""

    study: str
    uid: str  # of that study, since another one may get the same name
    trial: int


@dataclass(frozen=True)
class InheritedTrial:
    """A trial of another study, as a trial of a new one."""

    source: Source
    trial: FrozenTrial  # of the other study
    params: Params  # in the new study's space
    origin: str  # there: SAMPLER, DEFAULT_RECIPE, ...
    config: str = ""  # of its training, as YAML


@dataclass(frozen=True)
class LearnedTrial:
    """Settings of another study's trial that a new study tries first."""

    source: Source
    params: Params


def source_of(trial: FrozenTrial) -> Source | None:
    """Where an inherited trial was trained; None for a trial of the study itself."""
    return _source(trial, INHERITED_ATTR)


def learned_from(trial: FrozenTrial) -> Source | None:
    """The trial that a trial has its settings from; None if they were not learned."""
    return _source(trial, LEARNED_ATTR)


def _source(trial: FrozenTrial, attribute: str) -> Source | None:
    stored: dict[str, Any] | None = trial.user_attrs.get(attribute)
    return None if stored is None else Source(**stored)


def own_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the study itself: without inherited ones."""
    return [t for t in trials if INHERITED_ATTR not in t.user_attrs]


def to_frozen_trial(inherited: InheritedTrial, space: Space, constraints: Mapping[str, Bounds]) -> FrozenTrial:
    """The trial to add to a new study: with its scores, its times, and the parameters of the study's space."""
    there = inherited.trial
    complete = there.state == TrialState.COMPLETE
    stored = there.user_attrs.get("outcome", {"state": there.state.name})
    excesses = excesses_of(TrainingResult(**stored), constraints) if complete else {}
    attributes = {key: there.user_attrs[key] for key in COPIED_ATTRS if key in there.user_attrs}
    added = create_trial(
        state=there.state,
        values=there.values,
        params=inherited.params,
        distributions={p.key: p.distribution for p in space.parameters if p.key in inherited.params},
        user_attrs={**attributes, "origin": inherited.origin, INHERITED_ATTR: asdict(inherited.source)},
        intermediate_values=there.intermediate_values,
        constraints=excesses or None,
    )
    added.datetime_start, added.datetime_complete = there.datetime_start, there.datetime_complete
    return added
