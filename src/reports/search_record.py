"""Records of a search, from which its report and its model card are made."""

from dataclasses import dataclass
from typing import Any

from src.core.records import (
    LEARNED,
    AverageRecord,
    ScreeningResult,
    State,
    TimelineEntry,
    TrainingResult,
    TrialRecord,
    WeightChange,
    nested_from_json,
    nested_to_json,
)
from src.reports.error_analysis import ErrorAnalysis
from src.verdict.records import Verdict


@dataclass(frozen=True)
class DataSource:
    """The data, and how they were split."""

    name: str
    place: str  # Hub id or path
    hub_id: str | None
    commit: str | None
    label_names: tuple[str, ...]
    sizes: dict[str, int]
    fingerprints: dict[str, str]
    notes: dict[str, int]
    made_from: dict[str, str]  # split -> the part of the source that it was made from, in words
    text_columns: tuple[str, ...] = ("text",)  # two, if rows are pairs of texts


@dataclass(frozen=True)
class StartingModel:
    """The checkpoint that trainings start from."""

    name: str
    source: str
    commit: str | None
    fingerprint: str
    megabytes: float
    max_tokens: int


@dataclass(frozen=True)
class TrialCurve:
    """A trial's curves: points (training examples seen, value)."""

    trial: int
    score: tuple[tuple[float, float], ...]
    loss: tuple[tuple[float, float], ...]  # of training


@dataclass(frozen=True)
class SearchRecord:
    """One search."""

    study: str
    uid: str
    made: str
    metric: str
    direction: str
    data: DataSource
    base: StartingModel
    space: dict[str, str]
    default: dict[str, Any]
    sampler: str
    pruner: str
    rungs: tuple[float, ...]
    n_trials: int
    limits: dict[str, float]  # stopping criteria that are set, by name
    workers: int
    seed: int
    trials: tuple[TrialRecord, ...]
    curves: tuple[TrialCurve, ...]
    baselines: dict[str, TrainingResult]
    importances: dict[str, float]  # of the searched settings; empty: too few trials
    importances_by: str
    stretches: tuple[TimelineEntry, ...]
    seconds: float  # wall-clock, of searching
    ending: str
    best: int | None  # trial
    changes: tuple[WeightChange, ...]  # of the best trial's weights, by layer
    commands: dict[str, str]
    run_id: str | None
    machine: str
    versions: dict[str, str]
    commit: str | None  # git commit of Trialbook's code
    average: AverageRecord | None = None  # of the best trials' weights
    screening: tuple[ScreeningResult, ...] = ()  # of the searched models, before the search
    objectives: tuple[str, ...] = ()  # metrics and costs, if there are several
    front: tuple[int, ...] = ()  # trials for which no other one is as good in all objectives and better in one
    constraints: tuple[str, ...] = ()  # in words
    code: str = ""  # how the modules of own code are typed, with a blank before; empty without any

    def trials_in_state(self, state: State) -> list[TrialRecord]:
        """The trials in this state."""
        return [t for t in self.trials if t.state == state]

    @property
    def learned_trials(self) -> list[TrialRecord]:
        """The trials with settings of other studies."""
        return [t for t in self.trials if t.origin == LEARNED]

    @property
    def best_trial(self) -> TrialRecord | None:
        """The best trial, or None."""
        return next((t for t in self.trials if t.number == self.best), None)

    def to_json(self) -> str:
        """The record as JSON."""
        return nested_to_json(self)

    @staticmethod
    def from_json(text: str) -> "SearchRecord":
        """The record that `text`, its JSON, describes. Raises NewerRecord if a newer version wrote it."""
        return nested_from_json(SearchRecord, text)


@dataclass(frozen=True)
class WeightInspection:
    """The analysis of a training's best weights."""

    layers: tuple[WeightChange, ...]  # weight change by layer
    tensors: tuple[WeightChange, ...]
    summary: str  # the model's parts
    # on validation; None for a training of an earlier version, which stored no probabilities
    analysis: ErrorAnalysis | None


@dataclass(frozen=True)
class JudgedSearch:
    """A search, its verdict, and the weights that the verdict registers."""

    history: SearchRecord
    verdict: Verdict
    test: ErrorAnalysis  # of the registered weights: numbers only
    validation: ErrorAnalysis | None
    changes: tuple[WeightChange, ...]  # by layer

    def to_json(self) -> str:
        """The record as JSON."""
        return nested_to_json(self)

    @staticmethod
    def from_json(text: str) -> "JudgedSearch":
        """The record that `text`, its JSON, describes. Raises NewerRecord if a newer version wrote it."""
        return nested_from_json(JudgedSearch, text)
