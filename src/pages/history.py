"""All that is known of one search, as a frozen record: what its report and its model card are drawn from."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from src.records import Change, Outcome, State, Stretch, TrialRecord


@dataclass(frozen=True)
class Source:
    """The data, and how they were split."""

    name: str
    place: str  # Hub id or path
    hub_id: str | None
    commit: str | None
    label_names: tuple[str, ...]
    sizes: dict[str, int]
    fingerprints: dict[str, str]
    notes: dict[str, int]
    made_from: dict[str, str]  # split -> what of the source it was made from, in words


@dataclass(frozen=True)
class Base:
    """The checkpoint that trainings start from."""

    name: str
    source: str
    commit: str | None
    fingerprint: str
    megabytes: float
    max_tokens: int


@dataclass(frozen=True)
class Curve:
    """A trial's way: points (training examples seen, value)."""

    trial: int
    score: tuple[tuple[float, float], ...]
    loss: tuple[tuple[float, float], ...]  # of training


@dataclass(frozen=True)
class History:
    """One search."""

    study: str
    uid: str
    made: str
    metric: str
    direction: str
    data: Source
    base: Base
    space: dict[str, str]
    default: dict[str, Any]
    sampler: str
    pruner: str
    rungs: tuple[float, ...]
    n_trials: int
    limits: dict[str, float]  # budget_minutes, target, patience, where given
    workers: int
    seed: int
    trials: tuple[TrialRecord, ...]
    curves: tuple[Curve, ...]
    baselines: dict[str, Outcome]
    importances: dict[str, float]  # of the searched settings; empty: too few trials
    importances_by: str
    stretches: tuple[Stretch, ...]
    seconds: float  # wall-clock, of searching
    ending: str
    best: int | None  # trial
    changes: tuple[Change, ...]  # of the best trial's weights, by layer
    commands: dict[str, str]
    run_id: str | None
    machine: str
    versions: dict[str, str]
    commit: str | None  # of this project's code

    def of_state(self, state: State) -> list[TrialRecord]:
        return [t for t in self.trials if t.state == state]

    @property
    def best_trial(self) -> TrialRecord | None:
        return next((t for t in self.trials if t.number == self.best), None)

    def to_json(self) -> str:
        return str(TypeAdapter(History).dump_json(self, indent=1).decode())

    @staticmethod
    def from_json(text: str) -> "History":
        return TypeAdapter(History).validate_json(text)
