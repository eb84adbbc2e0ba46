"""Reads composed configs into frozen settings. Each function reports all problems of a config together."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import regex
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from src.config import objectives
from src.config.settings import (
    ADAPTER_METHODS,
    BASELINES_OF_NUMBERS,
    DTYPES,
    NO_ADAPTER,
    WEIGHTINGS,
    AdapterSettings,
    ComparisonSettings,
    DataSettings,
    DeliverySettings,
    LossSettings,
    ModelSettings,
    PickRule,
    PromotionSettings,
    PublicationSettings,
    Recipe,
    ScreeningSettings,
    Settings,
    StorageSettings,
    StudySettings,
    TrackingSettings,
    WorkerSettings,
)
from src.core.errors import InvalidInput, mask_secrets
from src.core.metric import ALIASES

T = TypeVar("T")
SECRET_KEYS = (("tracking", "uri"), ("storage", "url"))  # may contain a password, which is never stored
JOB_KEYS = ("index", "of", "root")  # keys of the group worker that say which worker a job is
PROGRESS = ("auto", "lines", "off")
DELIVERED_FORMS = ("auto", "single", "average", "refit", "student")
MAX_TEMPERATURE = 20  # of soft labels; beyond, they are nearly equal
MIN_SEEDS = 4  # of a comparison; simulations in tests/verdict/test_verdict.py
REGISTERED_NAME = re.compile(r"[^/:'\"%\s](?:[^/:'\"%]{0,98}[^/:'\"%\s])?")
EXPERIMENT_NAME = re.compile(r"[^\W_][^/\\\x00-\x1f]{0,119}")
STUDY_NAME = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}._-]{0,79}")
MAX_NAME_BYTES = 200  # of a folder's name in UTF-8; file systems allow 255
BOOLEAN_WORDS = {True: "yes, on and true", False: "no, off and false"}  # as YAML reads them
GROUPS: dict[str, type[Any]] = {
    "data": DataSettings, "model": ModelSettings, "study": StudySettings, "storage": StorageSettings,
    "tracking": TrackingSettings,
}  # fmt: skip
# settings that are names; Hydra and YAML take some names for numbers or truth values
WORDS = {
    "data": ("name", "hub_id", "revision", "path", "text_column", "label_column", "id_column", "label_names", "splits",
             "encoding", "unlabelled", "label_separator", "loader"),
    "model": ("name", "checkpoint", "dtype"),
    "adapter": ("target_modules",),
    "study": ("name", "join", "ready_made"),
    "tracking": ("experiment",),
    "compare": ("study", "registry"),
    "promote": ("study", "registry"),
    "publish": ("registry",),
}  # fmt: skip
PLAIN_GROUPS = ("optimizer", "schedule", "trainer", "space", "sampler", "pruner")


def read_settings(cfg: DictConfig, overrides: Sequence[str] = ()) -> Settings:
    """Read the config of a training or a study.

    Args:
        cfg: composed, with Hydra's own part.
        overrides: of the command line; they are stored with the settings.

    Raises:
        InvalidInput: values are missing, of a wrong type or out of range, or keys are unknown.
    """
    reader = _Reader(cfg, overrides)
    read: dict[str, Any] = {
        name: reader.study() if name == "study" else reader.read(kind, name) for name, kind in GROUPS.items()
    }
    plain = {name: reader.group(name) for name in PLAIN_GROUPS}
    workers, worker, progress = reader.workers(), reader.worker(), reader.progress()
    screening = reader.read(ScreeningSettings, "screening") or ScreeningSettings()
    reader.check_dtype(read["model"])
    loss, adapter, code = reader.loss(), reader.adapter(), reader.code()
    reader.check_passwords()
    if not reader.problems:
        reader.problems += [
            f"{key} is empty; it is a group of settings." for key, group in read.items() if group is None
        ]
    seed = reader.seed()
    InvalidInput.raise_if_any(reader.problems)
    InvalidInput.raise_if_any(_name_problems(read["study"], read["tracking"]))
    choices = {str(k): v for k, v in (OmegaConf.select(cfg, "hydra.runtime.choices") or {}).items()}
    choices = {k: str(v) for k, v in choices.items() if not k.startswith("hydra/")}
    return Settings(
        data=read["data"],
        recipe=Recipe(read["model"], plain["optimizer"], plain["schedule"], plain["trainer"], seed, loss, adapter),
        study=_for_task(read["study"], read["data"]),
        space=plain["space"],
        sampler=plain["sampler"],
        pruner=plain["pruner"],
        storage=read["storage"],
        tracking=read["tracking"],
        choices={"adapter": adapter.method, **choices},  # configs of earlier versions do not have it
        workers=workers,
        overrides=tuple(overrides),
        yaml=_stored_yaml(cfg, choices, overrides),
        worker=worker,
        progress=progress,
        screening=screening,
        code=code,
    )


def _for_task(study: StudySettings, data: DataSettings) -> StudySettings:
    """The settings of the study with the names that its metric and its baselines have for the data's task."""
    baselines = (
        [BASELINES_OF_NUMBERS.get(name, name) for name in study.baselines] if data.is_regression else study.baselines
    )
    return replace(
        study,
        metric=ALIASES.get(study.metric, study.metric),
        baselines=baselines,
        further_metrics=[ALIASES.get(name, name) for name in study.further_metrics],
        constraints={ALIASES.get(name, name): bounds for name, bounds in study.constraints.items()},
    )


def read_code(cfg: DictConfig) -> tuple[str, ...]:
    """The modules that the config names. Raises InvalidInput if one is no module's name."""
    reader = _Reader(cfg)
    return reader.checked(reader.code())


def read_comparison_settings(cfg: DictConfig) -> ComparisonSettings:
    """Read the config of `compare`. Raises InvalidInput with all problems of it together."""
    reader = _Reader(cfg)
    values = {**reader.group("compare"), **reader.study_and_registry()}
    values |= {"workers": reader.workers(), "progress": reader.progress(), "code": reader.code()}
    values |= {"deliver": reader.read(DeliverySettings, "deliver") or DeliverySettings()}
    values["pick"] = reader.pick(values.get("pick"))
    settings = reader.read(ComparisonSettings, "compare", values)
    if settings is not None:
        reader.problems += _comparison_problems(settings, reader.group("worker").get("home"))
    return reader.checked(settings)


def read_promotion_settings(cfg: DictConfig) -> PromotionSettings:
    """Read the config of `promote`. Raises InvalidInput with all problems of it together."""
    reader = _Reader(cfg)
    values = {**reader.group("promote"), **reader.study_and_registry()}
    return reader.checked(reader.read(PromotionSettings, "promote", values))


def read_publication_settings(cfg: DictConfig) -> PublicationSettings:
    """Read the config of `publish`. Raises InvalidInput with all problems of it together."""
    reader = _Reader(cfg)
    values = {**reader.group("publish"), "registry": reader.study_and_registry()["registry"]}
    if OmegaConf.is_missing(cfg, "repo"):
        reader.problems.append("repo has no value; give the repository on the Hub: repo=<owner>/<name>.")
    else:
        values["repo"] = str(cfg.repo)
    version = values.get("version")
    values |= {"tracking_uri": cfg.tracking_uri, "version": None if version is None else str(version)}
    if isinstance(values.get("language"), str):
        values["language"] = [values["language"]]
    InvalidInput.raise_if_any(reader.problems)
    return reader.checked(reader.read(PublicationSettings, "publish", values))


class _Reader:
    """Reads the groups of one config, and collects the problems of all of them."""

    def __init__(self, cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
        self.cfg, self.overrides = cfg, overrides
        self.problems: list[str] = []
        if HydraConfig.initialized() and HydraConfig.get().job.chdir:
            self.problems.append(
                "hydra.job.chdir=true would let the command work in its output folder, where no other command looks "
                "for studies and files. Leave it out: all paths are seen from the folder the command is given in."
            )
        self._groups: dict[str, dict[str, Any]] = {}

    def checked(self, settings: T | None) -> T:
        """`settings`, if there was no problem. Raises InvalidInput with all problems."""
        InvalidInput.raise_if_any(self.problems)
        assert settings is not None
        return settings

    def value(self, key: str) -> Any:
        """The config's value at `key`. If an interpolation fails, None, and the problem is noted."""
        try:
            return self.cfg.get(key)
        except OmegaConfBaseException as error:
            self.problems.append(f"{key}: {str(error).splitlines()[0]}")
            return None

    def group(self, key: str) -> dict[str, Any]:
        """The group as plain data; empty if it cannot be read, and the problem is noted once."""
        if key not in self._groups:
            self._groups[key] = self._read_group(key)
        return self._groups[key]

    def _read_group(self, key: str) -> dict[str, Any]:
        value = self.value(key)
        if value is not None and not isinstance(value, DictConfig):
            self.problems.append(
                f"{key}={value} replaces the whole group by one word. {key} holds several settings; name the one you "
                f"mean: {key}.<setting>=..."
            )
            return {}
        try:
            values = OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if value is not None else {}
        except MissingMandatoryValue as error:
            missing = error.full_key or key
            self.problems.append(f"{missing} has no value; give one on the command line: {missing}=...")
            return {}
        except OmegaConfBaseException as error:
            self.problems.append(f"{key}: {str(error).splitlines()[0]}")
            return {}
        assert isinstance(values, dict)
        return {str(k): v for k, v in values.items()}

    def read(self, kind: type[T], where: str, values: Mapping[str, Any] | None = None) -> T | None:
        """`values`, by default the group `where`, as a `kind`; None if they are missing or wrong, which is noted."""
        values = self.group(where) if values is None else values
        if not values:
            return None
        names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        self.problems += [
            f"{where}.{key} is not a setting; {where} has {', '.join(sorted(names))}."
            for key in sorted(set(values) - names)
        ]
        n_before, known = len(self.problems), {k: v for k, v in values.items() if k in names}
        words = {k: self._as_words(v, f"{where}.{k}") if k in WORDS.get(where, ()) else v for k, v in known.items()}
        if len(self.problems) > n_before:
            return None
        try:
            return TypeAdapter(kind).validate_python(words)
        except ValidationError as error:
            self.problems += dict.fromkeys(_type_problem(where, dict(wrong)) for wrong in error.errors())
            return None

    def _as_words(self, value: Any, key: str) -> Any:
        """Names that Hydra or YAML took for numbers or truth values, as they were typed.

        A whole number is the word that is typed so. What cannot be known, such as yes or on, is a problem.
        """
        if isinstance(value, list):
            return [self._as_words(item, key) for item in value]
        if isinstance(value, dict):
            return {self._as_words(k, key): self._as_words(v, key) for k, v in value.items()}
        if value is None or isinstance(value, str):
            return value
        typed = [o.partition("=")[2] for o in self.overrides if o.lstrip("+~").partition("=")[0] == key]
        if typed and (word := _typed_word(value, typed[-1])):
            return word
        if isinstance(value, int) and not isinstance(value, bool) and not typed:
            return str(value)
        shown = str(value).lower()
        what = f"{BOOLEAN_WORDS[value]} as {shown}" if isinstance(value, bool) else "it as a number"
        self.problems.append(
            f"{key} has {shown}, which is no word: without quotation marks YAML reads {what}. Write names in quotation "
            f"marks, in a file ['no', 'yes'], on a command line \"{key}=['no','yes']\"."
        )
        return str(value)

    def study(self) -> StudySettings | None:
        """The group study."""
        values, problems = objectives.with_objectives(self.group("study"))
        self.problems += problems
        if problems or not values:
            return None
        study = self.read(StudySettings, "study", values)
        self.problems += objectives.problems_with(study) if study else []
        return study

    def pick(self, pick: Any) -> int | str | PickRule | None:
        """compare.pick; None, and a problem is noted, if it is nothing that a trial can be picked by."""
        try:
            return objectives.as_pick(pick)
        except ValueError as error:
            self.problems.append(str(error))
            return None

    def worker(self) -> WorkerSettings:
        """The group worker, without the keys that say which worker a job is."""
        values = {key: value for key, value in self.group("worker").items() if key not in JOB_KEYS}
        worker = self.read(WorkerSettings, "worker", values) or WorkerSettings()
        self.problems += _worker_problems(worker)
        return worker

    def code(self) -> tuple[str, ...]:
        """The modules of the working folder to import."""
        value = self.cfg.get("code")
        names = [value] if isinstance(value, str) else list(value or ())
        self.problems += [
            f"code has {name!r}; it names modules of the folder that the command is given in, without .py, typed "
            "code=my_module."
            for name in names
            if not isinstance(name, str) or name.endswith(".py") or not all(map(str.isidentifier, name.split(".")))
        ]
        return tuple(map(str, names))

    def loss(self) -> LossSettings:
        """The group loss."""
        values = dict(self.group("loss"))
        given = values.pop("class_weights", None)  # null is none, as for other settings that can be off
        if isinstance(given, dict):
            given = {self._as_words(name, "loss.class_weights"): weight for name, weight in given.items()}
        problems = [] if given is None else list(_weight_problems(given))
        self.problems += problems
        if given is not None and not problems:
            values["class_weights"] = given
        return self.read(LossSettings, "loss", values) or LossSettings()

    def check_dtype(self, model: ModelSettings | None) -> None:
        """Note a dtype of the weights that there is not."""
        if model is not None and model.dtype not in DTYPES:
            self.problems.append(f"model.dtype is {model.dtype!r}; it is {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")

    def adapter(self) -> AdapterSettings:
        """The group adapter; configs of earlier versions do not have it."""
        adapter = self.read(AdapterSettings, "adapter") or AdapterSettings()
        searched = self.group("space").get("adapter") or {}
        # where adapters are searched, an option without one is given what is for the others, too
        given = {} if isinstance(searched, dict) and "choices" in searched else self.group("adapter")
        self.problems += _adapter_problems(adapter, given)
        return adapter

    def workers(self) -> int | None:
        """The number of workers; None for auto."""
        value = self.value("workers")
        if value in (None, "auto"):
            return None
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024:
            return value
        self.problems.append(f"workers is {value!r}; it is auto or a whole number from 1 to 1024.")
        return 1

    def progress(self) -> str:
        """What is shown of the progress."""
        value = self.cfg.get("progress", PROGRESS[0])  # configs of earlier versions do not have it
        progress = "off" if value is False else str(value)  # as in YAML
        if progress not in PROGRESS:
            self.problems.append(f"progress is {value!r}; it is {', '.join(PROGRESS[:-1])} or {PROGRESS[-1]}.")
        return progress

    def seed(self) -> int:
        """The seed of the trainings."""
        before = len(self.problems)
        seed = self.value("seed")
        if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32:
            return seed
        if len(self.problems) == before:
            self.problems.append(f"seed is {seed!r}; it is a whole number from 0 to 4294967295.")
        return 0

    def check_passwords(self) -> None:
        """Note addresses whose passwords were masked when the config was stored."""
        self.problems += [
            f"{group}.{key} was given with a password, which is kept nowhere, so the study cannot be found by its "
            f"name alone. Run its sweep once more with the address in an environment variable, "
            f"{group}.{key}='${{oc.env:NAME}}'; then its name is enough wherever NAME is set."
            for group, key in SECRET_KEYS
            if "://***@" in str(self.group(group).get(key))
        ]

    def study_and_registry(self) -> dict[str, Any]:
        """The names of the study and the registered model."""
        study, registry = self.group("study"), self.group("registry")
        model = registry.get("model")
        if model is not None and not REGISTERED_NAME.fullmatch(str(model)):
            self.problems.append(
                f"registry.model is {model!r}; a registered model's name has no '/', ':', quotes or blank ends."
            )
        return {"study": study.get("name"), "registry": None if model is None else str(model)}


def _typed_word(value: Any, typed: str) -> str | None:
    """The word in `typed`, the text of an override, that Hydra read as `value`; None if there is no such word."""
    for word in re.split(r"[\[\]{},:\s]+", typed):
        is_boolean = isinstance(value, bool)
        if is_boolean and word.lower() == str(value).lower():
            return word
        try:
            if not is_boolean and word and float(word.replace("_", "")) == value:
                return word
        except ValueError:
            continue
    return None


def _type_problem(where: str, wrong: dict[str, Any]) -> str:
    """A value of a wrong type, in words."""
    fields = [
        str(part)
        for part in wrong["loc"]
        if not str(part).startswith(("list[", "dict[", "constrained")) and part != "str"
    ]
    key = ".".join((where, *fields))
    if wrong["type"] == "missing":
        return f"{key}: {wrong['msg']}."
    found = wrong["input"]
    if wrong["type"] in ("list_type", "dict_type") and isinstance(found, str):
        return (
            f"{key} is {found!r}; it is a list, typed '{key}=[{found},...]'. Without brackets, a comma separates the "
            "values of several studies."
        )
    return f"{key}: {wrong['msg']} (found {found!r})."


def _name_problems(study: StudySettings, tracking: TrackingSettings) -> Iterator[str]:
    if not STUDY_NAME.fullmatch(study.name) or len(study.name.encode()) > MAX_NAME_BYTES:
        yield (
            f"study.name is {study.name!r}; a study's name is its folder's too: up to 80 letters, digits, '.', '_' "
            "and '-', a letter or digit first."
        )
    elif not EXPERIMENT_NAME.fullmatch(tracking.experiment):
        yield (
            f"tracking.experiment is {tracking.experiment!r}; an experiment's name is a folder's too: up to 120 "
            "characters without '/' and '\\', a letter or digit first."
        )


def _comparison_problems(settings: ComparisonSettings, home: str | None) -> Iterator[str]:
    if settings.seeds < MIN_SEEDS:
        yield (
            f"compare.seeds is {settings.seeds}; it is at least {MIN_SEEDS}: with fewer seeds, a recipe that "
            "fails on some of them is too often not recognized."
        )
    if settings.top_k < 1:
        yield f"compare.top_k is {settings.top_k}; it is at least 1."
    if home:
        yield (
            f"worker.home is {home}: a comparison works in the study's own folder, where all of its workers see it "
            "(launcher=local, or slurm)."
        )
    deliver = settings.deliver
    if deliver.form not in DELIVERED_FORMS:
        yield f"deliver.form is {deliver.form!r}; it is {', '.join(DELIVERED_FORMS[:-1])} or {DELIVERED_FORMS[-1]}."
    if deliver.form == "refit" and not deliver.refit:
        yield "deliver.form=refit registers a refit, and deliver.refit=false makes none. Leave one of them out."
    if not deliver.merge and deliver.form != "single":
        yield (
            f"deliver.merge=false registers an adapter, and deliver.form={deliver.form} an average of trainings, which "
            "is a whole model. Type deliver.form=single with it."
        )
    if not 0 < deliver.temperature <= MAX_TEMPERATURE:
        yield f"deliver.temperature is {deliver.temperature:g}; it is above 0 and at most {MAX_TEMPERATURE}."
    if not settings.margin >= 0:
        yield f"compare.margin is {settings.margin:g}; it is a difference of the metric, from 0."


def _weight_problems(weights: Any) -> Iterator[str]:
    if not isinstance(weights, dict) and weights not in WEIGHTINGS:
        yield (
            f"loss.class_weights is {weights!r}; it is {', '.join(WEIGHTINGS)}, or a weight per label, typed "
            "'loss.class_weights={spam:5,ham:1}'."
        )
    if weights == {}:
        yield "loss.class_weights is empty; give a weight per label, or leave it out."
    for name, weight in weights.items() if isinstance(weights, dict) else ():
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            yield f"loss.class_weights.{name} is {weight!r}; a weight is a number above 0."


def _adapter_problems(adapter: AdapterSettings, given: Mapping[str, Any]) -> Iterator[str]:
    if adapter.method not in ADAPTER_METHODS:
        yield f"adapter.method is {adapter.method!r}; it is none, lora or dora, which adapter=<one of these> sets."
    elif adapter.method == NO_ADAPTER:
        for name in sorted(set(given) - {"method", "learning_rate"}):
            yield f"adapter.{name} has no effect without an adapter; choose one, adapter=lora, or leave it out."
    else:
        for name in ("rank", "alpha"):
            if getattr(adapter, name) is None:
                yield f"adapter.{name} has no value; choose the adapter as a group: adapter={adapter.method}."
        if not adapter.target_modules:
            yield "adapter.target_modules is empty; it is auto, attention, or names such as [q_proj,v_proj]."


def _worker_problems(worker: WorkerSettings) -> Iterator[str]:
    if worker.cpus is not None and worker.cpus < 1:
        yield f"worker.cpus is {worker.cpus}; it is a number of threads from 1, or null for the machine's share."
    if worker.gpus < 0:
        yield f"worker.gpus is {worker.gpus:g}; it is a number from 0, below 1 where workers share a GPU."
    if worker.devices_per_trial < 1:
        yield f"worker.devices_per_trial is {worker.devices_per_trial}; it is a whole number from 1."
    if 0 < worker.gpus < worker.devices_per_trial and worker.devices_per_trial > 1:
        yield (
            f"worker.gpus is {worker.gpus:g}, and a trial takes worker.devices_per_trial={worker.devices_per_trial}; "
            f"let the launcher give a worker so many: worker.gpus={worker.devices_per_trial}."
        )


def _stored_yaml(cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str]) -> str:
    """The composed config as text, with its choices and overrides where Hydra puts them."""
    visible = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k not in ("hydra", "worker")])
    content = OmegaConf.to_container(visible, resolve=True)
    assert isinstance(content, dict)
    for group, key in SECRET_KEYS:
        if (value := content.get(group, {}).get(key)) is not None:
            written = OmegaConf.to_container(cfg[group], resolve=False)
            assert isinstance(written, dict)
            from_environment = "${oc.env:" in str(written[key])
            content[group][key] = written[key] if from_environment else mask_secrets(str(value))
    content["worker"] = {key: value for key, value in (cfg.get("worker") or {}).items() if key not in JOB_KEYS}
    typed = [mask_secrets(o) for o in overrides]
    content["hydra"] = {"runtime": {"choices": dict(choices)}, "overrides": {"task": typed}}
    return OmegaConf.to_yaml(OmegaConf.create(content))
