"""The space of a study: its shape is the config's, its leaves say what may vary."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from src.errors import Refusal
from src.records import Point
from src.settings import Settings

RESERVED = ("low", "high", "log", "step", "choices", "when")


@dataclass(frozen=True)
class Parameter:
    """One searched key. `when`: dotted keys and the values they must have for this one to count."""

    key: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the conditions hold in `values` (dotted key -> value)."""
        return all(values.get(key) in allowed for key, allowed in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log, step=step):
                return trial.suggest_float(self.key, low, high, log=log, step=step)
            case IntDistribution(low=low, high=high, log=log, step=step):
                return trial.suggest_int(self.key, low, high, log=log, step=step)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.key, choices)
        raise TypeError(f"{self.key} has a distribution of type {type(self.distribution).__name__}")

    def holds(self, value: Any) -> bool:
        """Whether `value` lies in the range or among the choices."""
        try:
            internal = self.distribution.to_internal_repr(value)
        except (ValueError, TypeError):
            return False
        return bool(self.distribution._contains(internal))

    def ends(self) -> list[Any]:
        """The outermost values: both ends of a range, or every choice."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return [low, high]
        return []

    def values(self) -> list[Any] | None:
        """All values in order, or None where they are not countable."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high, step=step):
                return list(range(low, high + 1, step))
            case FloatDistribution(low=low, high=high, step=step) if step is not None:
                return [low + i * step for i in range(round((high - low) / step) + 1)]
            case FloatDistribution(low=low, high=high) if low == high:
                return [low]
        return None

    def __str__(self) -> str:
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                text = " | ".join(map(str, choices))
            case FloatDistribution(low=low, high=high, log=log, step=step):
                text = f"{low:g} .. {high:g}" + (", log" if log else "") + (f", step {step:g}" if step else "")
            case IntDistribution(low=low, high=high, log=log, step=step):
                text = f"{low} .. {high}" + (", log" if log else "") + (f", step {step}" if step != 1 else "")
        conditions = ", ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in self.when.items())
        return f"{text}  (when {conditions})" if conditions else text


@dataclass(frozen=True)
class Space:
    """Parameters, those that others depend on first; `base` holds the config's own values by dotted key."""

    parameters: tuple[Parameter, ...]
    base: Mapping[str, Any]

    def active(self, point: Mapping[str, Any]) -> list[Parameter]:
        """The parameters that count, given the values of those that others depend on."""
        searched = {p.key for p in self.parameters}
        values = {k: v for k, v in self.base.items() if k not in searched} | dict(point)
        return [p for p in self.parameters if p.active(values)]

    @property
    def conditional(self) -> list[str]:
        return [p.key for p in self.parameters if p.when]

    def default(self) -> Point:
        """The config's own values of the searched keys: the default recipe as a point."""
        point: Point = {}
        for parameter in self.parameters:
            if parameter in self.active(point) and parameter.key in self.base:
                point[parameter.key] = self.base[parameter.key]
        return point

    def outside(self, point: Mapping[str, Any]) -> list[str]:
        """What of `point` is not in the space, in words."""
        by_key = {p.key: p for p in self.parameters}
        return [
            f"{key} = {value} is not in {by_key[key]}" if key in by_key else f"{key} is not searched"
            for key, value in point.items()
            if key not in by_key or not by_key[key].holds(value)
        ]

    def finite(self) -> bool:
        return all(p.values() is not None for p in self.parameters)

    def points(self) -> Iterator[Point]:
        """Every point of a finite space, conditional parameters only where they count."""
        yield from self._points({}, 0)

    def _points(self, point: Point, index: int) -> Iterator[Point]:
        if index == len(self.parameters):
            yield dict(point)
            return
        parameter = self.parameters[index]
        if parameter not in self.active(point):
            yield from self._points(point, index + 1)
            return
        for value in parameter.values() or ():
            yield from self._points({**point, parameter.key: value}, index + 1)

    def describe(self) -> dict[str, str]:
        return {p.key: str(p) for p in self.parameters}


def base_values(settings: Settings) -> Point:
    """The config's own values by dotted key, its choices of groups included: what a space varies."""
    return {**settings.choices, **settings.recipe.flat()}


def of(settings: Settings) -> Space:
    """The space of a config, over its own values. Raises Refusal as `parse` does."""
    return parse(settings.space, base_values(settings))


def parse(tree: Mapping[str, Any], base: Mapping[str, Any]) -> Space:
    """Read the `space` section. `base`: the config's own values by dotted key, which decide int or float.

    Raises Refusal with all problems of all ranges together.
    """
    problems: list[str] = []
    found: list[Parameter] = []
    for key, leaf in _leaves(tree, ""):
        try:
            found.append(_parameter(key, leaf, base.get(key)))
        except ValueError as error:
            problems.append(f"space.{key}: {error}")
    Refusal.when_any(problems)
    return Space(tuple(_ordered(found)), dict(base))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Dotted keys with their reserved words; a mapping may be a leaf and hold further keys (space.model)."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            raise Refusal(
                f"space.{key} is {value!r}; a range is written as {{low: ..., high: ...}} or {{choices: [...]}}, with "
                f"{', '.join(RESERVED)} as its words."
            )
        if leaf := {k: v for k, v in value.items() if k in RESERVED}:
            yield key, leaf
        rest = {k: v for k, v in value.items() if k not in RESERVED}
        if not leaf and not rest:
            if not prefix:
                continue  # a group whose keys were all taken out
            raise Refusal(f"space.{key} is empty; give it low and high, or choices, or take it out: '~space.{key}'.")
        yield from _leaves(rest, f"{key}.")


def _parameter(key: str, leaf: Mapping[str, Any], own: Any) -> Parameter:
    conditions = leaf.get("when") or {}
    if not isinstance(conditions, Mapping):
        raise ValueError(f"when is {conditions!r}; it is written as {{<dotted key>: <value or list of values>}}.")
    when = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in conditions.items()}
    if "choices" in leaf:
        if extra := sorted(set(leaf) - {"choices", "when"}):
            raise ValueError(f"choices and {', '.join(extra)} do not go together.")
        return Parameter(key, _choices(leaf["choices"]), when)
    return Parameter(key, _range(leaf, own), when)


def _choices(choices: Any) -> CategoricalDistribution:
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"choices is {choices!r}; it is a list of at least one value.")
    if bad := [c for c in choices if not (c is None or isinstance(c, (bool, int, float, str)))]:
        raise ValueError(f"choices holds {bad[0]!r}; choices are numbers, words, true, false or null.")
    if len(set(map(repr, choices))) < len(choices):
        raise ValueError(f"choices {choices} names a value twice.")
    return CategoricalDistribution(choices)


def _range(leaf: Mapping[str, Any], own: Any) -> BaseDistribution:
    """Both ends count, of integers too. Integer when low, high and step are, and the config's own value is no float."""
    if missing := [word for word in ("low", "high") if leaf.get(word) is None]:
        raise ValueError(f"{' and '.join(missing)} has no value; a range needs low and high (or choices).")
    low, high, step, log = leaf["low"], leaf["high"], leaf.get("step"), leaf.get("log", False)
    for word, value in (("low", low), ("high", high), ("step", step)):
        if value is not None and not _is_number(value):
            raise ValueError(f"{word} is {value!r}; it is a number.")
    _check_range(low, high, step, log)
    whole = all(isinstance(v, int) for v in (low, high, step) if v is not None)
    if whole and not isinstance(own, float):
        return IntDistribution(low, high, log=log, step=1 if step is None else step)
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_range(low: float, high: float, step: float | None, log: Any) -> None:
    if not isinstance(log, bool):
        raise ValueError(f"log is {log!r}; it is true or false.")
    if low > high:
        raise ValueError(f"low {low} is above high {high}.")
    if log and step is not None:
        raise ValueError("log and step do not go together; give choices instead.")
    if log and low <= 0:
        raise ValueError(f"log needs low above 0; it is {low}.")
    if step is not None and step <= 0:
        raise ValueError(f"step is {step}; it is above 0.")
    if step is not None and abs(round((high - low) / step) * step - (high - low)) > 1e-9 * max(1.0, abs(high)):
        raise ValueError(f"high {high} is not low {low} plus a whole number of steps of {step}; both ends count.")


def _ordered(parameters: list[Parameter]) -> list[Parameter]:
    """Parents before the parameters whose `when` names them; otherwise as written."""
    waiting, placed = list(parameters), list[Parameter]()
    while waiting:
        names = {p.key for p in waiting}
        ready = [p for p in waiting if not names & set(p.when)]
        if not ready:
            raise Refusal(f"space: the `when` of {' and '.join(sorted(names))} depend on each other in a circle.")
        placed += ready
        waiting = [p for p in waiting if p not in ready]
    return placed
