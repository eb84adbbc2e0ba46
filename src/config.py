"""From Hydra's config to frozen settings: the one function where DictConfig stops, and composing a trial."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from src.errors import Refusal, masked
from src.records import Point
from src.settings import (
    ComparisonSettings,
    DataSettings,
    ModelSettings,
    PromotionSettings,
    PublicationSettings,
    Recipe,
    Settings,
    StorageSettings,
    StudySettings,
    TrackingSettings,
    WorkerSettings,
)

T = TypeVar("T")
SECRET = (("tracking", "uri"), ("storage", "url"))  # may hold a password, which is kept nowhere
JOB = ("index", "of", "root")  # of the group worker, what says which worker a job is
ROOT = Path(__file__).resolve().parents[1]
CONF_DIR, SWEEPS_DIR = ROOT / "conf", ROOT / "sweeps"
PROGRESS = ("auto", "lines", "off")
FEWEST_SEEDS = 4  # of a comparison; simulations in tests/test_verdict.py
REGISTERED = re.compile(r"[^/:'\"%\s](?:[^/:'\"%]{0,98}[^/:'\"%\s])?")
EXPERIMENT = re.compile(r"[^\W_][^/\\\x00-\x1f]{0,119}")
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def settings_from(cfg: DictConfig, overrides: Sequence[str] = ()) -> Settings:
    """Read one composed config. Raises Refusal with all type and key problems of it together."""
    problems: list[str] = []

    nodes: dict[str, dict[str, Any]] = {}

    def node(key: str) -> dict[str, Any]:
        if key not in nodes:
            nodes[key] = _mapping(cfg, key, problems)
        return nodes[key]

    data = _read(DataSettings, "data", node("data"), problems)
    model = _read(ModelSettings, "model", node("model"), problems)
    study = _read(StudySettings, "study", node("study"), problems)
    storage = _read(StorageSettings, "storage", node("storage"), problems)
    tracking = _read(TrackingSettings, "tracking", node("tracking"), problems)
    optimizer, schedule, trainer = node("optimizer"), node("schedule"), node("trainer")
    space, sampler, pruner = node("space"), node("sampler"), node("pruner")
    workers = _workers(_value(cfg, "workers", problems), problems)
    worker = _worker(node("worker"), problems)
    progress = _progress(cfg, problems)
    for group, key in SECRET:
        if "://***@" in str(node(group).get(key)):
            problems.append(
                f"{group}.{key} was given with a password, which is kept nowhere, so the study cannot be found by its "
                f"name alone. Run its sweep once more with the address in an environment variable, "
                f"{group}.{key}='${{oc.env:NAME}}'; then its name is enough wherever NAME is set."
            )
    missing = {"data": data, "model": model, "study": study, "storage": storage, "tracking": tracking}
    if not problems:
        problems += [f"{key} is empty; it is a group of settings." for key, read in missing.items() if read is None]
    known = len(problems)
    seed = _value(cfg, "seed", problems)
    if len(problems) == known and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32):
        problems.append(f"seed is {seed!r}; it is a whole number from 0 to 4294967295.")
    Refusal.when_any(problems)
    assert data is not None
    assert model is not None
    assert study is not None
    assert storage is not None
    assert tracking is not None
    if not STUDY_NAME.fullmatch(study.name):
        raise Refusal(
            f"study.name is {study.name!r}; a study's name is its folder's too: up to 80 letters, digits, '.', '_' "
            "and '-', a letter or digit first."
        )
    if not EXPERIMENT.fullmatch(tracking.experiment):
        raise Refusal(
            f"tracking.experiment is {tracking.experiment!r}; an experiment's name is a folder's too: up to 120 "
            "characters without '/' and '\\', a letter or digit first."
        )
    choices = {str(k): v for k, v in (OmegaConf.select(cfg, "hydra.runtime.choices") or {}).items()}
    choices = {k: str(v) for k, v in choices.items() if not k.startswith("hydra/")}
    return Settings(
        data=data,
        recipe=Recipe(model, optimizer, schedule, trainer, seed),
        study=study,
        space=space,
        sampler=sampler,
        pruner=pruner,
        storage=storage,
        tracking=tracking,
        choices=choices,
        workers=workers,
        overrides=tuple(overrides),
        yaml=_stored(cfg, choices, overrides),
        worker=worker,
        progress=progress,
    )


def compose(overrides: Sequence[str]) -> Settings:
    """Compose the running job's config anew with `overrides` instead of its own. Used once per trial."""
    name = HydraConfig.get().job.config_name
    assert name is not None
    return settings_from(hydra.compose(name, overrides=list(overrides), return_hydra_config=True), overrides)


def restored(yaml: str, seed: int | None = None) -> Settings:
    """Settings from a config as it was stored with a run; `seed`: of the training, instead of the stored one."""
    cfg = OmegaConf.create(yaml)
    assert isinstance(cfg, DictConfig)
    whole = OmegaConf.to_container(cfg, resolve=False)  # overrides as typed, variables of the environment unread
    assert isinstance(whole, dict)
    overrides = [str(o) for o in whole.get("hydra", {}).get("overrides", {}).get("task") or []]
    if seed is not None:
        cfg.seed = seed
        overrides = [*(o for o in overrides if not o.startswith("seed=")), f"seed={seed}"]
    return settings_from(cfg, overrides)


def comparison_from(cfg: DictConfig) -> ComparisonSettings:
    """Read the config of `compare`. Raises Refusal with all problems of it together."""
    problems: list[str] = []
    values = {**_mapping(cfg, "compare", problems), **_which(cfg, problems)}
    values |= {"workers": _workers(cfg.get("workers"), problems), "progress": _progress(cfg, problems)}
    read = _read(ComparisonSettings, "compare", values, problems)
    if read is not None:
        if read.seeds < FEWEST_SEEDS:
            problems.append(
                f"compare.seeds is {read.seeds}; with fewer than {FEWEST_SEEDS} seeds a recipe that fails on some of "
                "them looks too often like one that does not."
            )
        if read.top_k < 1:
            problems.append(f"compare.top_k is {read.top_k}; at least one of the study's settings has to stand.")
        if home := _mapping(cfg, "worker", problems).get("home"):
            problems.append(
                f"worker.home is {home}: a comparison works in the study's own folder, where all of its workers see it "
                "(launcher=local, or slurm)."
            )
        if not 0 <= read.margin < 1:
            problems.append(f"compare.margin is {read.margin:g}; it is a difference of the metric, from 0 to below 1.")
    Refusal.when_any(problems)
    assert read is not None
    return read


def promotion_from(cfg: DictConfig) -> PromotionSettings:
    """Read the config of `promote`. Raises Refusal with all problems of it together."""
    problems: list[str] = []
    values = {**_mapping(cfg, "promote", problems), **_which(cfg, problems)}
    read = _read(PromotionSettings, "promote", values, problems)
    Refusal.when_any(problems)
    assert read is not None
    return read


def publication_from(cfg: DictConfig) -> PublicationSettings:
    """Read the config of `publish`. Raises Refusal with all problems of it together."""
    problems: list[str] = []
    values = {**_mapping(cfg, "publish", problems), "registry": _which(cfg, problems)["registry"]}
    if OmegaConf.is_missing(cfg, "repo"):
        problems.append("repo has no value; give the repository on the Hub: repo=<owner>/<name>.")
    else:
        values["repo"] = str(cfg.repo)
    version = values.get("version")
    values |= {"tracking_uri": cfg.tracking_uri, "version": None if version is None else str(version)}
    if isinstance(values.get("language"), str):
        values["language"] = [values["language"]]
    Refusal.when_any(problems)
    read = _read(PublicationSettings, "publish", values, problems)
    Refusal.when_any(problems)
    assert read is not None
    return read


def task_overrides() -> list[str]:
    """The running job's own overrides, as typed."""
    return list(HydraConfig.get().overrides.task)


def as_overrides(point: Point) -> list[str]:
    """A point as Hydra overrides, in an order and spelling that a command line takes."""
    return [f"{key}={_spelled(value)}" for key, value in point.items()]


def group_options() -> dict[str, list[str]]:
    """Config groups in conf/ and the options each has."""
    return {d.name: sorted(f.stem for f in d.glob("*.yaml")) for d in sorted(CONF_DIR.iterdir()) if d.is_dir()}


def _which(cfg: DictConfig, problems: list[str]) -> dict[str, Any]:
    """Which study and which registered model a command is about."""
    study, registry = _mapping(cfg, "study", problems), _mapping(cfg, "registry", problems)
    model = registry.get("model")
    if model is not None and not REGISTERED.fullmatch(str(model)):
        problems.append(
            f"registry.model is {model!r}; a registered model's name has no '/', ':', quotes or blank ends."
        )
    return {"study": study.get("name"), "registry": None if model is None else str(model)}


def _stored(cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str]) -> str:
    """The composed config as text, with how it came about, in Hydra's own places for that."""
    shown = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k not in ("hydra", "worker")])
    whole = OmegaConf.to_container(shown, resolve=True)
    assert isinstance(whole, dict)
    for group, key in SECRET:
        if (value := whole.get(group, {}).get(key)) is not None:
            written = OmegaConf.to_container(cfg[group], resolve=False)
            assert isinstance(written, dict)
            from_environment = "${oc.env:" in str(written[key])
            whole[group][key] = written[key] if from_environment else masked(str(value))
    whole["worker"] = {key: value for key, value in (cfg.get("worker") or {}).items() if key not in JOB}
    own = [masked(o) for o in overrides]
    whole["hydra"] = {"runtime": {"choices": dict(choices)}, "overrides": {"task": own}}
    return OmegaConf.to_yaml(OmegaConf.create(whole))


def _spelled(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value)
    if re.fullmatch(r"[A-Za-z_./:@-][A-Za-z0-9_./:@-]*", text) and text.lower() not in (
        "null",
        "true",
        "false",
    ):
        return text
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", text)
    return f"'{escaped}'"


def _value(cfg: DictConfig, key: str, problems: list[str]) -> Any:
    """What the config has under `key`; None, with the problem, where it points to nothing."""
    try:
        return cfg.get(key)
    except OmegaConfBaseException as error:
        problems.append(f"{key}: {str(error).splitlines()[0]}")
        return None


EXAMPLES = {"data.label_names": "'data.label_names=[bad,good]', every label of the file once"}


def _mapping(cfg: DictConfig, key: str, problems: list[str]) -> dict[str, Any]:
    value = _value(cfg, key, problems)
    if value is None or isinstance(value, DictConfig):
        try:
            found = OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if value is not None else {}
        except MissingMandatoryValue as error:
            missing = error.full_key or key
            said = EXAMPLES.get(missing, f"{missing}=...")
            problems.append(f"{missing} has no value; give one on the command line: {said}")
            return {}
        except OmegaConfBaseException as error:
            problems.append(f"{key}: {str(error).splitlines()[0]}")
            return {}
        assert isinstance(found, dict)
        return {str(k): v for k, v in found.items()}
    problems.append(
        f"{key}={value} replaces the whole group by one word. {key} holds several settings; name the one you mean: "
        f"{key}.<setting>=..."
    )
    return {}


def _read(kind: type[T], where: str, values: Mapping[str, Any], problems: list[str]) -> T | None:
    """`values` as a `kind`, typed and complete; otherwise None, and what is wrong is in `problems`."""
    if not values:
        return None
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    problems += [
        f"{where}.{key} is no setting; {where} has {', '.join(sorted(names))}." for key in sorted(set(values) - names)
    ]
    try:
        return TypeAdapter(kind).validate_python({k: v for k, v in values.items() if k in names})
    except ValidationError as error:
        for wrong in error.errors():
            key = ".".join((where, *map(str, wrong["loc"])))
            given = "" if wrong["type"] == "missing" else f" (found {wrong['input']!r})"
            problems.append(f"{key}: {wrong['msg']}{given}.")
        return None


def _worker(values: Mapping[str, Any], problems: list[str]) -> WorkerSettings:
    own = {key: value for key, value in values.items() if key not in JOB}
    worker = _read(WorkerSettings, "worker", own, problems) or WorkerSettings()
    if worker.cpus is not None and worker.cpus < 1:
        problems.append(
            f"worker.cpus is {worker.cpus}; it is a number of threads from 1, or null for the machine's share."
        )
    if worker.gpus < 0:
        problems.append(f"worker.gpus is {worker.gpus:g}; it is a number from 0, below 1 where workers share a GPU.")
    if worker.devices_per_trial < 1:
        problems.append(f"worker.devices_per_trial is {worker.devices_per_trial}; it is a whole number from 1.")
    if 0 < worker.gpus < worker.devices_per_trial and worker.devices_per_trial > 1:
        problems.append(
            f"worker.gpus is {worker.gpus:g}, and a trial takes worker.devices_per_trial={worker.devices_per_trial}; "
            f"let the launcher give a worker so many: worker.gpus={worker.devices_per_trial}."
        )
    return worker


def _progress(cfg: DictConfig, problems: list[str]) -> str:
    value = cfg.get("progress", PROGRESS[0])  # studies from before there was a choice say nothing
    found = "off" if value is False else str(value)  # as YAML has it
    if found not in PROGRESS:
        problems.append(f"progress is {value!r}; it is {', '.join(PROGRESS[:-1])} or {PROGRESS[-1]}.")
    return found


def _workers(value: object, problems: list[str]) -> int | None:
    if value in (None, "auto"):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024:
        return value
    problems.append(f"workers is {value!r}; it is auto or a whole number from 1 to 1024.")
    return 1
