"""The settings of one training or study as frozen dataclasses; `config.py` makes them from Hydra's config."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict

from src.records import Point


@dataclass(frozen=True)
class Carve:
    """A split to cut out of another: `size` is a number of examples, or a share below 1."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    source: str
    size: float


@dataclass(frozen=True)
class DataSettings:
    name: str
    hub_id: str | None
    revision: str | None
    path: str | None
    text_column: str
    label_column: str
    label_names: list[str]
    splits: dict[str, str]
    carve: dict[str, Carve]
    subset: dict[str, int]
    balance: bool
    drop_parts: bool
    max_examples: Any  # None, one number for every split, or a number per split
    split_seed: int
    id_column: str | None = None  # names each text of a split; None: nothing does

    def cap(self, split: str) -> int | None:
        """Largest number of examples that `split` may have."""
        if isinstance(self.max_examples, dict):
            return self.max_examples.get(split)
        return None if self.max_examples is None else int(self.max_examples)


@dataclass(frozen=True)
class Pin:
    """What is known of one named checkpoint: its commit, the package that ships it, the hash of its weights."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    revision: str | None = None
    package: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelSettings:
    name: str
    checkpoint: str
    dropout: float | None  # None: the checkpoint's own
    max_tokens: int
    learning_rate: float  # of its default recipe; conf/optimizer takes it from here
    pins: dict[str, Pin] = field(default_factory=dict)

    @property
    def pin(self) -> Pin:
        return self.pins.get(self.checkpoint, Pin())


@dataclass(frozen=True)
class StudySettings:
    name: str
    metric: str
    direction: str | None
    n_trials: int
    budget_minutes: float | None
    target: float | None
    patience: int | None
    max_failures: int
    rungs: list[float]
    enqueue: list[dict[str, Any]]
    baselines: list[str]
    keep_checkpoints: int
    rung_examples: int | None
    disk_budget_gb: float | None
    max_restarts: int
    plan_only: bool
    seed: int
    ready_made: str | None = None  # the checkpoint of the baseline of that name; None: the model's own
    join: str | None = None  # the study that this command's workers join, as it was defined by its own command
    report: bool = True  # draw a report, and look into the best weights, whenever the study ends


@dataclass(frozen=True)
class StorageSettings:
    url: str | None


@dataclass(frozen=True)
class TrackingSettings:
    uri: str | None
    experiment: str


@dataclass(frozen=True)
class Recipe:
    """Everything one training depends on, but the data. The three groups hold TrainingArguments fields."""

    model: ModelSettings
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    trainer: dict[str, Any]
    seed: int

    def flat(self) -> Point:
        """Dotted keys and values, as they are written on a command line."""
        groups = {"optimizer": self.optimizer, "schedule": self.schedule, "trainer": self.trainer}
        values: Point = {f"{group}.{key}": value for group, keys in groups.items() for key, value in keys.items()}
        model = {f"model.{key}": getattr(self.model, key) for key in ("name", "checkpoint", "dropout", "max_tokens")}
        return {**model, **values, "seed": self.seed}


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker is given, and what it does when that is not enough."""

    oom_retry: bool = True  # out of memory, a training is tried again with a smaller micro-batch
    cpus: int | None = None  # threads of one worker; None: its share of the machine
    gpus: float = 0.0  # of one worker, where a launcher places workers by it; a fraction shares a GPU
    devices_per_trial: int = 1  # GPUs (or processes, without any) that train one trial together
    home: str | None = None  # each machine's own folder for its workers; None: they share the launching one's


@dataclass(frozen=True)
class Settings:
    """One composed config. `space`, `sampler` and `pruner` stay plain data until the search room reads them."""

    data: DataSettings
    recipe: Recipe
    study: StudySettings
    space: dict[str, Any]
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    storage: StorageSettings
    tracking: TrackingSettings
    choices: dict[str, str]  # config group -> the option taken
    workers: int | None  # None: as many as pay on this machine
    overrides: tuple[str, ...]  # the command line's
    yaml: str  # the whole composed config, as logged
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    progress: str = "auto"  # on the terminal: a live view where there is one; lines; or off


@dataclass(frozen=True)
class ComparisonSettings:
    """What `compare` is asked to do; everything else is the study's own."""

    study: str | None  # None: the only one there is
    registry: str | None  # the registered model whose champion is challenged; None: named like the data
    seeds: int
    top_k: int
    margin: float  # of the metric; a difference must be shown to be larger
    plan_only: bool
    workers: int | None
    progress: str = "auto"


@dataclass(frozen=True)
class PublicationSettings:
    """What `publish` is asked to do."""

    repo: str
    registry: str | None
    tracking_uri: str | None
    version: str | None  # None: the champion
    private: bool
    dry_run: bool
    license: str | None = None  # the Hub's names: https://huggingface.co/docs/hub/repositories-licenses
    language: tuple[str, ...] = ()  # of the texts, ISO 639-1


@dataclass(frozen=True)
class PromotionSettings:
    """What `promote` is asked to do."""

    study: str | None
    registry: str | None
    dry_run: bool
    rollback: bool
    again: bool  # also a version that was rolled back
