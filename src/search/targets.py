"""YAML names a class by its dotted path; this finds it, among the packages that are allowed."""

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from src.errors import Refusal

KINDS = (BaseSampler, BasePruner)  # all that a config may make
ALLOWED = ("optuna.samplers.", "optuna.pruners.", "src.search.")


def resolve(node: Mapping[str, Any], where: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The callable that `node['_target_']` names, and the node's other keys, inner targets made already."""
    path = str(node.get("_target_", ""))
    if not path.startswith(ALLOWED):
        raise Refusal(f"{where}._target_ is {path or 'missing'}; it lies in {', '.join(a[:-1] for a in ALLOWED)}.")
    module, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Refusal(f"{where}._target_ is {path}, and there is no such thing: {error}.") from error
    if not (isinstance(target, type) and issubclass(target, KINDS)):
        raise Refusal(f"{where}._target_ is {path}, which is neither a sampler nor a pruner of Optuna's kind.")
    options = {
        key: build(value, f"{where}.{key}") if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    return target, options


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Optuna marks some classes experimental, and warns of fallbacks that the lint has named already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def build(node: Mapping[str, Any], where: str) -> Any:
    """Call the target with its options."""
    return made(*resolve(node, where), where)


def made(target: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    """The target called with its options; raises Refusal if it does not take them."""
    try:
        with expected_warnings():
            return target(**options)
    except (TypeError, ValueError) as error:
        raise Refusal(f"{where} cannot be made: {error}") from error
