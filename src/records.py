"""Frozen records: what happened, as plain data that goes to JSON and comes back equal."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

Point = dict[str, Any]
"""Dotted config keys and their values: one place in a space."""


class State(StrEnum):
    """How a trial stands; the first three are final."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    PAUSED = "PAUSED"  # at a rung or drained: continues from its checkpoint
    RUNNING = "RUNNING"
    WAITING = "WAITING"

    @property
    def final(self) -> bool:
        return self in (State.COMPLETE, State.PRUNED, State.FAIL)


@dataclass(frozen=True)
class Record:
    """Base of the records: JSON both ways, unknown keys refused."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        data = json.loads(text)
        if unknown := set(data) - {f.name for f in fields(cls)}:
            raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return cls(**data)


@dataclass(frozen=True)
class Evaluation(Record):
    """Metrics on the validation split at one moment of a training."""

    step: int  # optimizer steps done
    share: float  # of the trial's own schedule, in (0, 1]
    examples: int  # training examples seen
    metrics: Mapping[str, float]  # loss, accuracy, ... without prefix
    seconds: float  # of the evaluation
    whole: bool = True  # on the whole split; else on the part that rungs are judged on

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, outside (0, 1]")


@dataclass(frozen=True)
class Stop:
    """An order to end a training now: as PRUNED, or as PAUSED, with a checkpoint to continue from."""

    state: State
    reason: str


@dataclass(frozen=True)
class Outcome(Record):
    """How a training or a baseline ended. `score` belongs to the weights that were kept."""

    state: str
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the kept evaluation
    step: int | None = None  # of the kept evaluation
    share: float | None = None  # how far the training got
    steps: int | None = None  # optimizer steps done
    seconds: float = 0.0
    megabytes: float | None = None  # of the weights on disk
    ms_per_1000_texts: float | None = None  # milliseconds of one processor thread, or one GPU
    reason: str | None = None  # why it was pruned or failed


@dataclass(frozen=True)
class TrialRecord(Record):
    """One trial as the study knows it."""

    number: int
    state: str
    params: Mapping[str, Any]
    score: float | None
    reason: str | None = None
    rung: int | None = None  # the last one it was judged at, in percent of its schedule
    rung_score: float | None = None
    share: float | None = None  # how far the training got
    steps: int | None = None  # optimizer steps done
    seconds: float | None = None  # from start to end, wall-clock
    metrics: Mapping[str, float] = field(default_factory=dict)
    run_id: str | None = None
    megabytes: float | None = None
    ms_per_1000_texts: float | None = None
    origin: str = "sampler"  # or: default recipe, enqueued


@dataclass(frozen=True)
class Stretch(Record):
    """What a worker was busy with, from when to when (seconds since the epoch)."""

    worker: int
    what: str  # trial 3, baseline majority
    began: float
    ended: float
    state: str = ""


@dataclass(frozen=True)
class Change(Record):
    """How far training moved one part of a model: the norm of its change over the norm it had, all its weights as one
    vector. None: it had none, as a bias that starts at 0.
    """

    part: str  # embeddings, layer 0, ..., classifier; or a single tensor's name
    parameters: int
    before: float  # Frobenius norms
    moved: float

    @property
    def relative(self) -> float | None:
        return self.moved / self.before if self.before > 0 else None


@dataclass(frozen=True)
class Calibration(Record):
    """Some measured training steps of the default recipe, on one worker, and of its evaluation batches."""

    seconds_per_example: float  # of training, forward, backward and update
    seconds_per_evaluated: float  # of evaluation, per example; in a trial's first steps reckoned from the above
    megabytes: float  # of one checkpoint's weights
    device: str
    threads: int
    gpu_megabytes: float = 0.0  # the most of a GPU's memory that it took, 10**6 bytes
    cut: float = 0.0  # share of the training texts that are as long as `model.max_tokens` allows, so most likely longer
