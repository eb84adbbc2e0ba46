"""The settings of a training or study as frozen dataclasses. `compose.py` reads them from Hydra's config."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict

from src.core import own_code
from src.core.metric import COSTS
from src.core.records import Params
from src.core.task import MULTI_LABEL, REGRESSION, SINGLE_LABEL

TUNED, PER_LABEL = "tuned", "per_label"  # decision thresholds that a comparison chooses
# settings of a study that may change while it is searched
LIMITS = ("n_trials", "budget_minutes", "budget_epochs", "target", "patience", "max_failures", "disk_budget_gb")
AVERAGE_MOST = 8  # trials whose weights study.average=auto averages
EPOCHS_KEY = "trainer.num_train_epochs"
# what the baselines of labels are called where texts have numbers
BASELINES_OF_NUMBERS = {"majority": "mean", "tfidf_logreg": "tfidf_ridge", "untuned": "untuned"}
WEIGHTINGS = ("none", "balanced", "effective")  # words that loss.class_weights may be
FLOAT32, BFLOAT16, FOUR_BIT = "float32", "bfloat16", "4bit"  # what model.dtype may be
DTYPES = (FLOAT32, BFLOAT16, FOUR_BIT)
NO_ADAPTER, LORA, DORA = "none", "lora", "dora"  # what adapter.method may be
ADAPTER_METHODS = (NO_ADAPTER, LORA, DORA)
NEWER_ARGUMENTS = {"trainer.activation_checkpointing": False, "trainer.torch_compile": False}  # not in older recipes
AUTO_TARGETS, ATTENTION_TARGETS = "auto", "attention"  # words that adapter.target_modules may be, beside names


@dataclass(frozen=True)
class CarveRule:
    """A split to carve out of another. `size` is a number of examples, or a fraction below 1."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    source: str
    size: float


@dataclass(frozen=True)
class CsvSettings:
    """How csv and tsv files are read. None: as the file shows."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    separator: str | None = None
    quote: str | None = None  # the quotation mark; "none" if quotation marks are letters like any other
    columns: list[str] = field(default_factory=list)  # names for a file without a header


@dataclass(frozen=True)
class DataSettings:
    """The group data: where texts and labels come from, and how splits are made."""

    name: str
    hub_id: str | None
    revision: str | None
    path: str | None
    text_column: str | list[str]  # two columns: each row is a pair of texts
    label_column: str | list[str]  # several columns: each has 0 or 1 for one of a text's labels
    label_names: list[str] | dict[str, str] | None  # or value in the source -> name; None: those of the source
    splits: dict[str, str | None]  # split -> its name in the source; None: one of the usual names
    carve: dict[str, CarveRule]
    subset: dict[str, int]
    balance: bool
    drop_parts: bool
    max_examples: Any  # None, one number for every split, or a number per split
    split_seed: int
    id_column: str | None = None  # column that identifies each text of a split; None if there is none
    encoding: str | None = None  # of text files; None: UTF-8
    csv: CsvSettings = field(default_factory=CsvSettings)
    unlabelled: str | None = None  # a file of texts without labels
    task: str = SINGLE_LABEL  # or multi_label: a text can have several labels, or none; or regression: a number
    label_separator: str | None = None  # between a text's labels in one cell; None: the cell is a list
    loader: str | None = None  # a function of your own code, <module>:<name>, that returns the splits

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The column of texts; two, if each row is a pair of texts."""
        return (self.text_column,) if isinstance(self.text_column, str) else tuple(self.text_column)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The column of labels, or those with 0 and 1."""
        return (self.label_column,) if isinstance(self.label_column, str) else tuple(self.label_column)

    @property
    def source(self) -> str:
        """Where the data come from, as it was typed: a loader, a file or folder, or a Hub id."""
        return str(self.loader or self.path or self.hub_id)

    @property
    def has_several_labels(self) -> bool:
        """Whether a text can have several labels, or none."""
        return self.task == MULTI_LABEL

    @property
    def is_regression(self) -> bool:
        """Whether a number is predicted for each text."""
        return self.task == REGRESSION

    def max_examples_of(self, split: str) -> int | None:
        """Largest number of examples that `split` may have."""
        if isinstance(self.max_examples, dict):
            return self.max_examples.get(split)
        return None if self.max_examples is None else int(self.max_examples)


@dataclass(frozen=True)
class Pin:
    """Facts about a named checkpoint: its commit, the package that contains it, the hash of its weights."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    revision: str | None = None
    package: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The group model: the pretrained model, and what is set in it."""

    name: str
    checkpoint: str
    dropout: float | None  # None: the checkpoint's own
    max_tokens: int
    learning_rate: float  # of the default recipe; conf/adapter refers to it
    pins: dict[str, Pin] = field(default_factory=dict)
    dtype: str = FLOAT32  # of the pretrained weights in memory; 4bit: frozen, under an adapter

    @property
    def pin(self) -> Pin:
        """The facts about `checkpoint`; empty if there are none."""
        return self.pins.get(self.checkpoint, Pin())


@dataclass(frozen=True)
class Bounds:
    """What a value may be at least and at most; None: anything."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    min: float | None = None
    max: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The bounds that there are, by name."""
        return {name: value for name, value in (("min", self.min), ("max", self.max)) if value is not None}

    def violation(self, name: str, value: float) -> str:
        """In words, that the value is out of bounds; empty if it is not."""
        if self.max is not None and value > self.max:
            return f"{name} {value:.4g} is above {self.max:g}"
        return f"{name} {value:.4g} is below {self.min:g}" if self.min is not None and value < self.min else ""

    def excesses(self, value: float) -> dict[str, float]:
        """By how much the value is out of bounds, by bound; 0 or less where it is within."""
        return {name: value - bound if name == "max" else bound - value for name, bound in self.given.items()}


@dataclass(frozen=True)
class StudySettings:
    """The group study: the metric, the stopping criteria, and how trials are evaluated."""

    name: str
    metric: str  # the first, if there are several: trials are judged at rungs by it, and compared
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
    join: str | None = None  # name of a study, started by another command, that this command's workers join
    report: bool = True  # whether to write a report and analyse the best weights when the study ends
    budget_epochs: float | None = None  # over all trials
    threshold: float | str = 0.5  # of the second of two labels, or of several: 0.5, tuned, or per_label
    average: int | str = 0  # so many trials' weights are averaged at most; auto, or 0 (studies of earlier versions)
    inherit: str | None = None  # name of a study whose ended trials a new study takes over
    learn_from: list[str] = field(default_factory=list)  # names of studies whose best settings are tried first
    further_metrics: list[str] = field(default_factory=list)  # further objectives: metrics, or core.metric.COSTS
    constraints: dict[str, Bounds] = field(default_factory=dict)  # by metric or cost

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metrics and costs that are searched for, the first of them by which trials are judged."""
        return (self.metric, *self.further_metrics)

    @property
    def has_several_objectives(self) -> bool:
        """Whether there is more than one objective."""
        return bool(self.further_metrics)

    @property
    def measured(self) -> tuple[str, ...]:
        """Every metric and cost that objectives and constraints depend on."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))

    @property
    def constraint_texts(self) -> tuple[str, ...]:
        """The constraints, in words."""
        return tuple(
            f"{name} at {'least' if which == 'min' else 'most'} {value:g}"
            for name, bounds in self.constraints.items()
            for which, value in bounds.given.items()
        )

    @property
    def needs_speed(self) -> bool:
        """Whether each trial's speed has to be measured with care."""
        return "ms_per_1000_texts" in self.measured

    @property
    def extra_metrics(self) -> tuple[str, ...]:
        """The metrics of validation among them, beside the first."""
        return tuple(name for name in self.measured[1:] if name not in COSTS)

    @property
    def has_tuned_threshold(self) -> bool:
        """Whether a comparison chooses decision thresholds."""
        return self.threshold in (TUNED, PER_LABEL)

    @property
    def average_most(self) -> int:
        """The largest number of trials whose weights are averaged when the study ends; 0: none are."""
        if self.average == "auto":
            return 0 if self.has_several_objectives else AVERAGE_MOST
        return int(self.average)

    @property
    def keep_until_end(self) -> int:
        """How many trials keep their weights while the study is searched: the possible members of the average, too."""
        return max(self.keep_checkpoints, self.average_most)

    @property
    def limits(self) -> dict[str, float]:
        """The stopping criteria beside n_trials that are set, by name."""
        names = ("budget_minutes", "budget_epochs", "target", "patience")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class StorageSettings:
    """The group storage: where the study is kept."""

    url: str | None


@dataclass(frozen=True)
class TrackingSettings:
    """The group tracking: the MLflow store and experiment."""

    uri: str | None
    experiment: str


@dataclass(frozen=True)
class LossSettings:
    """The group loss: how much each training text counts in the loss. Validation and test losses are not weighted."""

    class_weights: str | dict[str, float] = "none"  # none, balanced, effective, or label -> weight
    focal_gamma: float = 0.0  # above 0, texts count less the surer the model is of them


@dataclass(frozen=True)
class AdapterSettings:
    """The group adapter: small matrices that are trained instead of the pretrained weights."""

    method: str = NO_ADAPTER
    rank: int | None = None
    alpha: float | None = None  # divided by the rank, the scale of the matrices' product
    dropout: float = 0.0  # of what goes into the matrices
    target_modules: str | list[str] = AUTO_TARGETS  # ATTENTION_TARGETS, or names
    learning_rate: float | None = None  # of the default recipe; conf/optimizer refers to it

    def flatten(self) -> Params:
        """The settings that a training reads, by dotted key."""
        if self.method == NO_ADAPTER:
            return {"adapter.method": NO_ADAPTER}
        names = ("method", "rank", "alpha", "dropout", "target_modules")
        return {f"adapter.{name}": getattr(self, name) for name in names}


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on, except the data.

    The groups optimizer, schedule and trainer have fields of TrainingArguments.
    """

    model: ModelSettings
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    trainer: dict[str, Any]
    seed: int
    loss: LossSettings = field(default_factory=LossSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained instead of the pretrained weights."""
        return self.adapter.method != NO_ADAPTER

    @property
    def epochs(self) -> float:
        """Epochs of a training; the Trainer's default is 3."""
        return float(self.trainer.get("num_train_epochs", 3))

    def flatten(self) -> Params:
        """Dotted keys and values, as they are written on a command line."""
        groups = {"optimizer": self.optimizer, "schedule": self.schedule, "trainer": self.trainer}
        values: Params = {f"{group}.{key}": value for group, keys in groups.items() for key, value in keys.items()}
        names = ("name", "checkpoint", "dropout", "max_tokens", "dtype")
        model = {f"model.{key}": getattr(self.model, key) for key in names}
        loss = {f"loss.{key}": value for key, value in asdict(self.loss).items()}
        return {**model, **self.adapter.flatten(), **values, **loss, "seed": self.seed}

    def identity(self) -> Params:
        """What tells the recipe from others: `flatten` without the newer settings that are the default.

        Recipes that earlier versions recorded, which did not know them, are the same with it.
        """
        plain: Params = {f"loss.{key}": value for key, value in asdict(LossSettings()).items()}
        plain |= {**AdapterSettings().flatten(), "model.dtype": FLOAT32, **NEWER_ARGUMENTS}
        return {key: value for key, value in self.flatten().items() if key not in plain or value != plain[key]}


@dataclass(frozen=True)
class WorkerSettings:
    """The resources of one worker, and what it does if memory is not enough."""

    oom_retry: bool = True  # whether to try again with a smaller micro-batch if memory runs out
    cpus: int | None = None  # threads of one worker; None: its share of the machine
    gpus: float = 0.0  # of one worker, for launchers that place workers by it; a fraction shares a GPU
    devices_per_trial: int = 1  # GPUs (or processes, without any) that train one trial together
    home: str | None = None  # folder of each machine for its workers; None: they share the launching machine's


@dataclass(frozen=True)
class ScreeningSettings:
    """The group screening: a short trial of every searched model, before the search."""

    keep: int | None = None  # so many models are searched at most; None: all of them, and none is tried before
    examples: int = 500  # training texts of such a trial, at most


@dataclass(frozen=True)
class Settings:
    """One composed config. `space`, `sampler` and `pruner` are plain data, which `search` reads."""

    data: DataSettings
    recipe: Recipe
    study: StudySettings
    space: dict[str, Any]
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    storage: StorageSettings
    tracking: TrackingSettings
    choices: dict[str, str]  # config group -> the option taken
    workers: int | None  # None: as many as are fastest on this machine
    overrides: tuple[str, ...]  # the command line's
    yaml: str  # the whole composed config, as logged
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    progress: str = "auto"  # on the terminal: a live view where there is one; lines; or off
    screening: ScreeningSettings = field(default_factory=ScreeningSettings)
    code: tuple[str, ...] = ()  # modules of the working folder; a stored config's are imported if they are typed again

    @property
    def code_argument(self) -> str:
        """What a later command has to be given so that it imports them, with a blank before; empty without any."""
        return f" {own_code.argument(self.code)}" if self.code else ""

    @property
    def compare_command(self) -> str:
        """The command that compares the study's best settings."""
        pick = " compare.pick=knee" if self.study.has_several_objectives else ""
        return f"python -m src.compare study.name={self.study.name}{pick}{self.code_argument}"

    def flatten(self) -> Params:
        """The recipe's values by dotted key, and the options that were chosen by config group."""
        return {**self.choices, **self.recipe.flatten()}


@dataclass(frozen=True)
class DeliverySettings:
    """The group deliver: the form in which a comparison's winner is registered."""

    form: str = "auto"  # auto, single, average, refit or student
    refit: bool = True  # whether the winner is trained on train + validation, too
    temperature: float = 1.0  # of the soft labels that a student learns
    merge: bool = True  # whether an adapter is registered merged into its base, as a plain model


@dataclass(frozen=True)
class PickRule:
    """Of the front's trials that are near to the best of some objectives, the best of another one."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    within: dict[str, float]  # objective -> the largest difference to the front's best value
    then: str  # the objective that decides among these


@dataclass(frozen=True)
class ComparisonSettings:
    """The settings of `compare`; all others are the study's."""

    study: str | None  # None: the only one
    registry: str | None  # registered model whose champion is compared; None: named like the data
    seeds: int
    top_k: int
    margin: float  # difference of the metric that must be exceeded
    plan_only: bool
    workers: int | None
    progress: str = "auto"
    code: tuple[str, ...] = ()  # modules of the working folder, those of the study
    deliver: DeliverySettings = field(default_factory=DeliverySettings)
    pick: int | str | PickRule | None = None  # the trial to take on; None: the best `top_k` by the first objective


@dataclass(frozen=True)
class PublicationSettings:
    """The settings of `publish`."""

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
    """The settings of `promote`."""

    study: str | None
    registry: str | None
    dry_run: bool
    rollback: bool
    again: bool  # also a version that was rolled back
    without: list[str] = field(default_factory=list)  # baselines that may be without a result
