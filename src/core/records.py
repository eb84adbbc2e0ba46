"""Frozen records of trainings and trials, which are stored as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, model_serializer, model_validator

from src.core.metric import COSTS, gain
from src.core.record_files import NewerRecord, with_schema, without_schema

Nested = TypeVar("Nested")
Params = dict[str, Any]
"""Dotted config keys and their values: one point of a search space."""
SAMPLER, DEFAULT_RECIPE, ENQUEUED, LEARNED = "sampler", "default recipe", "enqueued", "learned"  # origins of a trial


class State(StrEnum):
    """The state of a trial or training. The first three are final."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    PAUSED = "PAUSED"  # at a rung or after a signal; it continues from its checkpoint
    RUNNING = "RUNNING"
    WAITING = "WAITING"

    @property
    def is_final(self) -> bool:
        """Whether a trial in this state has ended."""
        return self in (State.COMPLETE, State.PRUNED, State.FAIL)


@dataclass(frozen=True)
class Record:
    """Base class of records, with JSON that carries the schema's version. Unknown keys are an error."""

    def to_json(self) -> str:
        """The record as JSON."""
        return json.dumps(with_schema(asdict(self)), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `text`, its JSON, describes. Raises NewerRecord if a newer version wrote it."""
        data = without_schema(json.loads(text))
        if unknown := set(data) - {f.name for f in fields(cls)}:
            raise NewerRecord(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return cls(**data)


def nested_to_json(record: object) -> str:
    """A record of records as JSON, with the schema's version."""
    values = TypeAdapter(type(record)).dump_json(record)
    return json.dumps(with_schema(json.loads(values)), indent=1)


def nested_from_json(cls: type[Nested], text: str, earlier: Mapping[str, Any] | None = None) -> Nested:
    """The record of records that `text`, its JSON, describes.

    Args:
        cls: of the record.
        text: its JSON.
        earlier: values of required fields that the first versions of Trialbook did not store.

    Raises:
        NewerRecord: a newer version wrote it.
    """
    values = without_schema(json.loads(text))
    return TypeAdapter(cls).validate_json(json.dumps({**(earlier or {}), **values}))


@dataclass(frozen=True)
class Evaluation(Record):
    """Metrics on the validation split at one step of a training."""

    step: int  # optimizer steps done
    share: float  # of the trial's own schedule, in (0, 1]
    examples: int  # training examples seen
    metrics: Mapping[str, float]  # loss, accuracy, ... without prefix
    seconds: float  # of the evaluation
    whole: bool = True  # whether on the whole split, or on the subset that rungs are evaluated on

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, outside (0, 1]")


@dataclass(frozen=True)
class StopDecision:
    """Ends a training now: as PRUNED, or as PAUSED with a checkpoint to continue from."""

    state: State
    reason: str


@dataclass(frozen=True)
class TrainingResult(Record):
    """How a training or a baseline ended. `score` is that of the best weights."""

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
    training_seconds: float | None = None  # of training and evaluation; `seconds` of a trial has its waiting, too

    def value_of(self, metric: str) -> float | None:
        """Its value of a metric of validation, or of one of core.metric.COSTS; None if it has none."""
        if metric in COSTS:
            value: float | None = getattr(self, "training_seconds" if metric == "seconds" else metric)
            return value
        return self.metrics.get(metric)


@dataclass(frozen=True)
class TrialRecord(Record):
    """One trial as the study knows it. In JSON, the fields of `result` stand beside its own."""

    number: int
    params: Mapping[str, Any]
    result: TrainingResult  # of a trial that has not ended: the state only
    rung: int | None = None  # the last rung at which it was evaluated, in percent of its schedule
    rung_score: float | None = None
    run_id: str | None = None  # of its MLflow run
    origin: str = SAMPLER  # sampler, default recipe, enqueued or learned
    source_study: str | None = None  # of an inherited trial: the study that trained it; of a learned one: its study
    source_trial: int | None = None  # its number there
    violates: tuple[str, ...] = ()  # constraints of the study, in words
    further_gains: tuple[float, ...] = ()  # of further objectives, larger is better: they rank trials of equal scores

    @property
    def is_feasible(self) -> bool:
        """Whether it is within the study's constraints, as far as is known."""
        return not self.violates

    @property
    def is_inherited(self) -> bool:
        """Whether another study trained it, and this one has taken it over."""
        return self.source_study is not None and self.origin != LEARNED

    @property
    def note(self) -> str:
        """Where it comes from, in words; empty if the sampler proposed it."""
        source = "" if self.source_study is None else f"from {self.source_study}, trial {self.source_trial}"
        if self.origin == LEARNED:
            return f"learned {source}"
        words = ("" if self.origin == SAMPLER else self.origin, f"inherited {source}" if source else "")
        return ", ".join(filter(None, words))

    @property
    def state(self) -> str:
        """The state of its result."""
        return self.result.state

    @property
    def score(self) -> float | None:
        """The score of its result."""
        return self.result.score

    @model_serializer(mode="plain")
    def to_dict(self) -> dict[str, Any]:
        """All fields in one mapping, as they are stored."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "result"}
        return {**own, **asdict(self.result)}

    def to_json(self) -> str:
        """The record as JSON."""
        return json.dumps(with_schema(self.to_dict()), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `text`, its JSON, describes. Raises NewerRecord if a newer version wrote it."""
        return TypeAdapter(cls).validate_python(without_schema(json.loads(text)))

    @model_validator(mode="before")
    @classmethod
    def _from_dict(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "result" in values:
            return values
        own = {f.name for f in fields(cls)}
        result = {key: value for key, value in values.items() if key not in own and value is not None}
        if unknown := set(result) - {f.name for f in fields(TrainingResult)}:
            raise NewerRecord(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return {**{key: value for key, value in values.items() if key in own}, "result": result}


@dataclass(frozen=True)
class AverageRecord(Record):
    """The average of the weights of some trials, judged on validation."""

    members: tuple[int, ...]  # numbers of the trials
    score: float  # of study.metric
    metrics: Mapping[str, float]
    members_mean: float  # of the members' own scores
    violates: tuple[str, ...] = ()  # constraints of the study, in words

    def is_delivered(self, direction: str) -> bool:
        """Whether it is the study's model: within the constraints, and not worse than its members are on average."""
        return not self.violates and gain(self.score - self.members_mean, direction) >= 0


@dataclass(frozen=True)
class ScreeningResult(Record):
    """A model's short trial before a search: its default recipe, to the first rung, on some training texts."""

    model: str  # the option of the config group
    result: TrainingResult  # its score is on all of validation
    low: float | None = None  # 95 % interval of the score over validation examples
    high: float | None = None
    probe: float | None = None  # the metric of a logistic regression on the model's own features, for information
    kept: bool = False  # whether the search goes on with it


@dataclass(frozen=True)
class TimelineEntry(Record):
    """What a worker did, and when (seconds since the epoch)."""

    worker: int
    what: str  # trial 3, baseline majority
    began: float
    ended: float
    state: str = ""


@dataclass(frozen=True)
class WeightChange(Record):
    """How far training moved one part of a model.

    `relative` is the norm of the change over the norm before, all weights of the part taken as one vector. It is None
    if the part was zero before, as a bias that starts at 0.
    """

    part: str  # embeddings, layer 0, ..., classifier; or a single tensor's name
    parameters: int
    before: float  # Frobenius norms
    moved: float

    @property
    def relative(self) -> float | None:
        """The norm of the change over the norm before; None if that was 0."""
        return self.moved / self.before if self.before > 0 else None


@dataclass(frozen=True)
class Calibration(Record):
    """The speed of the default recipe on one worker, measured over a few training steps and evaluation batches."""

    seconds_per_example: float  # of training, forward, backward and update
    seconds_per_evaluated: (
        float  # of evaluation, per example; estimated from the training's if measured in a trial's first steps
    )
    megabytes: float  # of one checkpoint's weights; of an adapter, what is trained
    device: str
    threads: int
    gpu_megabytes: float = 0.0  # peak memory on the GPU, 10**6 bytes
    cut: float = 0.0  # fraction of the training texts with model.max_tokens tokens, which were most likely truncated
    whole_megabytes: float | None = None  # of a whole model, which averages and the delivered model are; None: as above


@dataclass(frozen=True)
class MemoryEstimate(Record):
    """The memory of one training, in GB (10**9 bytes), on the device that trains."""

    weights: float
    gradients: float
    optimizer: float
    per_text: float  # activations of one text, of the longest
    texts: int  # that go through the model at a time
    tokens: int  # of each
    libraries: float
    gpu_gigabytes: float = 0.0  # of the smallest GPU; 0 on a processor
    recipe: str = ""  # which one of a study's; empty: the default recipe

    @property
    def total(self) -> float:
        """With the recipe's micro-batch."""
        return self.least + self.per_text * (self.texts - 1)

    @property
    def least(self) -> float:
        """With micro-batches of one text, which is how far they are halved if memory runs out."""
        return self.libraries + self.weights + self.gradients + self.optimizer + self.per_text

    @property
    def parts(self) -> str:
        """What it is made of, in words."""
        return (
            f"weights {self.weights:.2f}, gradients {self.gradients:.2f}, optimizer {self.optimizer:.2f}, activations "
            f"{self.per_text * self.texts:.2f} for {self.texts} texts of {self.tokens} tokens, libraries "
            f"{self.libraries:g}"
        )
