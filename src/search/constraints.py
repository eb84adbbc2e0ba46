"""How far trials are from a study's constraints (study.constraints)."""

from collections.abc import Mapping

from src.config.settings import Bounds
from src.core.records import TrainingResult


def violations(values: Mapping[str, float | None], constraints: Mapping[str, Bounds]) -> tuple[str, ...]:
    """In words, which of the values are out of bounds. A value that is not known is not out of bounds."""
    known = {name: value for name in constraints if (value := values.get(name)) is not None}
    texts = (constraints[name].violation(name, value) for name, value in known.items())
    return tuple(filter(None, texts))


def excesses_of(result: TrainingResult, constraints: Mapping[str, Bounds]) -> dict[str, float]:
    """By how much a trial is out of each bound, as Optuna's samplers read it: 0 or less where it is within."""
    values = {name: result.value_of(name) for name in constraints}
    return {
        f"{name}.{bound}": excess
        for name, value in values.items() if value is not None
        for bound, excess in constraints[name].excesses(value).items()
    }  # fmt: skip


def relative_excess(result: TrainingResult, constraints: Mapping[str, Bounds]) -> float:
    """By how much a trial is out of all bounds together, each as a share of the bound."""
    bounds = {f"{name}.{which}": abs(v) for name, each in constraints.items() for which, v in each.given.items()}
    excesses = excesses_of(result, constraints)
    return sum(value / (bounds[name] or 1.0) for name, value in excesses.items() if value > 0)
