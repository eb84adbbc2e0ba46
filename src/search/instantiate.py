"""Creates the samplers, pruners and other objects that YAML files name by their dotted path (`_target_`)."""

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from src.core.errors import InvalidInput
from src.core.old_names import current_name

ALLOWED_TYPES = (BaseSampler, BasePruner)  # what a config may create
ALLOWED_PREFIXES = ("optuna.samplers.", "optuna.pruners.", "src.search.")


def resolve_target(node: Mapping[str, Any], where: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The callable that `node['_target_']` names, and the node's other keys, with nested targets instantiated."""
    path = current_name(str(node.get("_target_", "")))
    if not path.startswith(ALLOWED_PREFIXES):
        raise InvalidInput(
            f"{where}._target_ is {path or 'missing'}; it must be a class of "
            f"{', '.join(a[:-1] for a in ALLOWED_PREFIXES)}."
        )
    module, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"{where}._target_ is {path}, which does not exist: {error}.") from error
    if not (isinstance(target, type) and issubclass(target, ALLOWED_TYPES)):
        raise InvalidInput(f"{where}._target_ is {path}, which is neither a sampler nor a pruner of Optuna's kind.")
    options = {
        key: instantiate(value, f"{where}.{key}") if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    return target, options


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental classes, and about fallbacks that `check_study` has reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def instantiate(node: Mapping[str, Any], where: str) -> Any:
    """Call the target with its options."""
    return call_target(*resolve_target(node, where), where)


def call_target(target: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    """The target called with its options; raises InvalidInput if it does not take them."""
    try:
        with expected_warnings():
            return target(**options)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where} cannot be created: {error}") from error
