"""Composes configs with Hydra: those of a command's jobs and trials, and those that were stored with a run."""

import copy
import re
from collections.abc import Sequence
from functools import lru_cache

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config import groups
from src.config.reader import read_settings
from src.config.settings import Settings
from src.core.record_files import SCHEMA_KEY, check_schema
from src.core.records import Params


def compose_settings(overrides: Sequence[str]) -> Settings:
    """The running job's config with `overrides` in place of its own."""
    return read_settings(_compose(tuple(overrides)), overrides)


def compose_trial(overrides: Sequence[str], params: Params) -> Settings:
    """The config of a trial: that of the command's `overrides`, with the trial's params in it.

    Hydra composes once per process. It composes again for a trial whose params choose the option of a config group.
    """
    all_overrides = [*overrides, *to_overrides(params)]
    if any("." not in key for key in params):
        return compose_settings(all_overrides)
    cfg = copy.deepcopy(_compose(tuple(overrides)))
    for key, value in params.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return read_settings(cfg, all_overrides)


@lru_cache(maxsize=1)
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    name = HydraConfig.get().job.config_name
    assert name is not None
    return hydra.compose(name, overrides=[*_search_path(), *overrides], return_hydra_config=True)


@lru_cache(maxsize=64)  # of a comparison's recipes and seeds
def restore_settings(yaml: str, seed: int | None = None) -> Settings:
    """Settings from a config as it was stored with a run; `seed`: of the training, instead of the stored one.

    Raises:
        NewerRecord: a newer version stored it.
    """
    cfg = OmegaConf.create(yaml)
    assert isinstance(cfg, DictConfig)
    check_schema(cfg.pop(SCHEMA_KEY, 1), "The config")
    content = OmegaConf.to_container(cfg, resolve=False)  # overrides as typed, environment variables not resolved
    assert isinstance(content, dict)
    overrides = [str(o) for o in content.get("hydra", {}).get("overrides", {}).get("task") or []]
    if seed is not None:
        cfg.seed = seed
        overrides = [*(o for o in overrides if not o.startswith("seed=")), f"seed={seed}"]
    return read_settings(cfg, overrides)


def group_options() -> dict[str, list[str]]:
    """Config groups and the options of each, with those of --config-dir and hydra.searchpath, as Hydra finds them."""
    options = groups.group_options()
    if not GlobalHydra.instance().is_initialized() or not HydraConfig.initialized():
        return options
    loader, name, path = GlobalHydra.instance().config_loader(), HydraConfig.get().job.config_name, _search_path()
    found = {group: loader.get_group_options(group, config_name=name, overrides=path) for group in options}
    return {group: sorted({*names, *found[group]}) for group, names in options.items()}


def _search_path() -> list[str]:
    """The running job's override hydra.searchpath, if it has one: where else configs are found."""
    return [o for o in HydraConfig.get().overrides.hydra if o.lstrip("+").startswith("hydra.searchpath=")]


def resolve_times(overrides: Sequence[str], cfg: DictConfig) -> list[str]:
    """The overrides with what `${now:...}` was when `cfg` was composed from them, so that workers do not ask again."""
    keys = {override.lstrip("+").partition("=")[0] for override in overrides if "${now:" in override}
    for key in ("study.name", "tracking.experiment"):
        node = OmegaConf.select(cfg, key.partition(".")[0])
        raw = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
        if isinstance(raw, dict) and "${now:" in str(raw.get(key.partition(".")[2])):
            keys.add(key)
    resolved = to_overrides({key: OmegaConf.select(cfg, key) for key in sorted(keys)})
    return [*(o for o in overrides if o.lstrip("+").partition("=")[0] not in keys), *resolved]


def task_overrides() -> list[str]:
    """The running job's own overrides, as typed."""
    return list(HydraConfig.get().overrides.task)


def to_overrides(params: Params) -> list[str]:
    """Params as Hydra overrides, in an order and spelling that the command line accepts."""
    return [f"{key}={_spell(value)}" for key, value in params.items()]


def _spell(value: object) -> str:
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
