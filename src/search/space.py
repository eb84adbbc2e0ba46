"""The search space of a study. It has the config's structure; its leaves are ranges and choices."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from src.config.settings import Settings
from src.core.errors import InvalidInput
from src.core.records import Params

STEP_TOLERANCE = 1e-8  # of a step, for rounding
MISSING = -1.0  # in place of a setting that a point does not have, in numbers
RESERVED = ("low", "high", "factor", "log", "step", "choices", "when")


@dataclass(frozen=True)
class Parameter:
    """One searched key. It is active if the dotted keys of `when` have the listed values."""

    key: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def is_active(self, values: Mapping[str, Any]) -> bool:
        """Whether the conditions hold in `values` (dotted key -> value)."""
        return all(values.get(key) in allowed for key, allowed in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        """Ask `trial` for a value."""
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log, step=step):
                return trial.suggest_float(self.key, low, high, log=log, step=step)
            case IntDistribution(low=low, high=high, log=log, step=step):
                return trial.suggest_int(self.key, low, high, log=log, step=step)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.key, choices)
        raise TypeError(f"{self.key} has a distribution of type {type(self.distribution).__name__}")

    def contains(self, value: Any) -> bool:
        """Whether `value` lies in the range or among the choices."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return value in choices
            case FloatDistribution(low=low, high=high, step=step) | IntDistribution(low=low, high=high, step=step):
                try:
                    number = float(value)
                except (ValueError, TypeError):
                    return False
                steps = 0.0 if step is None else (number - low) / step
                return low <= number <= high and abs(steps - round(steps)) < STEP_TOLERANCE
        return False

    def typed(self, value: Any) -> Any:
        """The value as a sampler gives it: an int or a float, if it is a number of a range."""
        if isinstance(self.distribution, IntDistribution):
            return int(value)
        return float(value) if isinstance(self.distribution, FloatDistribution) else value

    def encode(self, value: Any) -> list[float]:
        """The value as numbers between 0 and 1: one of a range, one for each of several choices.

        A value outside a range counts as the nearer end.
        """
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return [float(value == choice) for choice in choices]
            case FloatDistribution(low=low, high=high, log=log) | IntDistribution(low=low, high=high, log=log):
                if not _is_number(value):
                    return [MISSING]
                ends = [math.log(v) if log else float(v) for v in (low, high, min(max(value, low), high))]
                return [(ends[2] - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.0]
        return []

    def bounds(self) -> list[Any]:
        """The outermost values: both ends of a range, or every choice."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return [low, high]
        return []

    def values(self) -> list[Any] | None:
        """All values in order, or None for a continuous range."""
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

    def active_parameters(self, params: Mapping[str, Any]) -> list[Parameter]:
        """The parameters that are active, given the values of those that they depend on."""
        searched = {p.key for p in self.parameters}
        values = {k: v for k, v in self.base.items() if k not in searched} | dict(params)
        return [p for p in self.parameters if p.is_active(values)]

    @property
    def conditional_keys(self) -> list[str]:
        """Keys that are searched only if others have certain values."""
        return [p.key for p in self.parameters if p.when]

    def default_params(self) -> Params:
        """The config's own values of the searched keys: the default recipe as a point."""
        params: Params = {}
        for parameter in self.parameters:
            if parameter in self.active_parameters(params) and parameter.key in self.base:
                params[parameter.key] = self.base[parameter.key]
        return params

    def params_from(self, values: Mapping[str, Any]) -> tuple[Params, str]:
        """The point with these values of the searched keys, and why there is none, in words; empty if there is one."""
        params: Params = {}
        for parameter in self.parameters:
            if parameter not in self.active_parameters(params):
                continue
            if parameter.key not in values or not parameter.contains(values[parameter.key]):
                value = values.get(parameter.key)
                return {}, f"{parameter.key}={'null' if value is None else value} is not in {parameter}"
            params[parameter.key] = parameter.typed(values[parameter.key])
        return params, ""

    def edges(self) -> list[str]:
        """The searched numbers of the default recipe that are the lowest or the highest of their ranges, in words."""
        found = []
        for parameter in self.parameters:
            value, ends = self.default_params().get(parameter.key), parameter.bounds()
            is_range = not isinstance(parameter.distribution, CategoricalDistribution) and ends[0] < ends[1]
            if is_range and value in ends:
                end = "lowest" if value == ends[0] else "highest"
                found.append(f"{parameter.key}={value} is the {end} value of {parameter}")
        return found

    def problems_with(self, params: Mapping[str, Any]) -> list[str]:
        """What is wrong with `params`: unknown keys, values outside the space."""
        by_key = {p.key: p for p in self.parameters}
        return [
            f"{key} = {value} is not in {by_key[key]}" if key in by_key else f"{key} is not searched"
            for key, value in params.items()
            if key not in by_key or not by_key[key].contains(value)
        ]

    def encode(self, params: Mapping[str, Any]) -> list[float]:
        """A point as numbers, for a model that predicts from it. Settings that it does not have are -1."""
        missing = {p.key: [MISSING] * len(p.encode(p.bounds()[0])) for p in self.parameters}
        return [x for p in self.parameters for x in (p.encode(params[p.key]) if p.key in params else missing[p.key])]

    def is_finite(self) -> bool:
        """Whether the space has a finite number of points."""
        return all(p.values() is not None for p in self.parameters)

    def points(self) -> Iterator[Params]:
        """Every point of a finite space, with conditional parameters only where they are active."""
        yield from self._points({}, 0)

    def _points(self, params: Params, index: int) -> Iterator[Params]:
        if index == len(self.parameters):
            yield dict(params)
            return
        parameter = self.parameters[index]
        if parameter not in self.active_parameters(params):
            yield from self._points(params, index + 1)
            return
        for value in parameter.values() or ():
            yield from self._points({**params, parameter.key: value}, index + 1)

    def describe(self) -> dict[str, str]:
        """The range or the choices of every key, in words."""
        return {p.key: str(p) for p in self.parameters}


def base_values(settings: Settings) -> Params:
    """The config's own values by dotted key, including its choices of config groups."""
    return settings.flatten()


def build_space(settings: Settings) -> Space:
    """The space of a config. Raises InvalidInput as `parse_space` does."""
    typed = {o.lstrip("+").partition("=")[0] for o in settings.overrides}
    return parse_space(settings.space, base_values(settings), typed)


def parse_space(tree: Mapping[str, Any], base: Mapping[str, Any], typed: Collection[str] = ()) -> Space:
    """Read the `space` section.

    Choices replace the range that the config has for the same key, unless a part of that range was typed, too.

    Args:
        tree: the section.
        base: the config's own values by dotted key, which decide int or float.
        typed: keys of the command line, such as space.optimizer.learning_rate.low.

    Raises:
        InvalidInput: with all problems of all ranges together.
    """
    problems: list[str] = []
    parameters: list[Parameter] = []
    for key, leaf in _leaves(tree, ""):
        try:
            replaced = "choices" in leaf
            kept = {
                k: v for k, v in leaf.items() if not replaced or k in ("choices", "when") or f"space.{key}.{k}" in typed
            }
            parameters.append(_parameter(key, kept, base.get(key)))
        except ValueError as error:
            problems.append(f"space.{key}: {error}")
    InvalidInput.raise_if_any(problems)
    return Space(tuple(_parents_first(parameters)), dict(base))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Dotted keys with their reserved words. A mapping may be a leaf and have further keys (space.model)."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            raise InvalidInput(
                f"space.{key} is {value!r}; a range is written as {{low: ..., high: ...}} or {{choices: [...]}}, with "
                f"{', '.join(RESERVED)} as its words."
            )
        if leaf := {k: v for k, v in value.items() if k in RESERVED}:
            yield key, leaf
        rest = {k: v for k, v in value.items() if k not in RESERVED}
        if not leaf and not rest:
            if not prefix:
                continue  # a group whose keys were all removed
            raise InvalidInput(
                f"space.{key} is empty; give it low and high, or choices, or take it out: '~space.{key}'."
            )
        yield from _leaves(rest, f"{key}.")


def _parameter(key: str, leaf: Mapping[str, Any], default: Any) -> Parameter:
    conditions = leaf.get("when") or {}
    if not isinstance(conditions, Mapping):
        raise ValueError(f"when is {conditions!r}; it is written as {{<dotted key>: <value or list of values>}}.")
    when = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in conditions.items()}
    if "choices" in leaf:
        if extra := sorted(set(leaf) - {"choices", "when"}):
            raise ValueError(f"choices and {', '.join(extra)} do not go together; give one of them.")
        return Parameter(key, _choices(leaf["choices"]), when)
    return Parameter(key, _range(leaf, default), when)


def _choices(choices: Any) -> CategoricalDistribution:
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"choices is {choices!r}; it is a list of at least one value.")
    if bad := [c for c in choices if not (c is None or isinstance(c, (bool, int, float, str)))]:
        raise ValueError(f"choices holds {bad[0]!r}; choices are numbers, words, true, false or null.")
    if len(set(map(repr, choices))) < len(choices):
        raise ValueError(f"choices {choices} names a value twice.")
    return CategoricalDistribution(choices)


def _range(leaf: Mapping[str, Any], default: Any) -> BaseDistribution:
    """A range that includes both ends. Integer if low, high and step are, and the config's own value is no float.

    With a factor, an end without a value is the config's own value divided or multiplied by it, to three digits.
    """
    if leaf.get("factor") is not None:
        leaf = {**leaf, **_ends_by_factor(leaf, default)}
    if missing := [word for word in ("low", "high") if leaf.get(word) is None]:
        raise ValueError(f"{' and '.join(missing)} has no value; a range needs low and high (or choices).")
    low, high, step, log = leaf["low"], leaf["high"], leaf.get("step"), leaf.get("log", False)
    for word, value in (("low", low), ("high", high), ("step", step)):
        if value is not None and not _is_number(value):
            raise ValueError(f"{word} is {value!r}; it is a number.")
    _check_range(low, high, step, log)
    is_integer = all(isinstance(v, int) for v in (low, high, step) if v is not None)
    if is_integer and not isinstance(default, float):
        return IntDistribution(low, high, log=log, step=1 if step is None else step)
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _ends_by_factor(leaf: Mapping[str, Any], default: Any) -> dict[str, float]:
    factor = leaf["factor"]
    if not _is_number(factor) or factor <= 1:
        raise ValueError(f"factor is {factor!r}; it is a number above 1.")
    if not _is_number(default) or default <= 0:
        raise ValueError(
            f"factor needs a config value above 0 to multiply; it is {default!r}. Give low and high instead."
        )
    ends = {"low": default / factor, "high": default * factor}
    return {word: float(f"{value:.3g}") for word, value in ends.items() if leaf.get(word) is None}


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
        raise ValueError(f"log needs a low above 0; it is {low}.")
    if step is not None and step <= 0:
        raise ValueError(f"step is {step}; it is above 0.")
    if step is not None and abs(round((high - low) / step) * step - (high - low)) > 1e-9 * max(1.0, abs(high)):
        raise ValueError(f"high {high} is not low {low} plus a whole number of steps of {step}; both ends count.")


def _parents_first(parameters: list[Parameter]) -> list[Parameter]:
    """Parents before the parameters whose `when` names them; otherwise as written."""
    waiting, placed = list(parameters), list[Parameter]()
    while waiting:
        names = {p.key for p in waiting}
        ready = [p for p in waiting if not names & set(p.when)]
        if not ready:
            raise InvalidInput(f"space: the `when` of {' and '.join(sorted(names))} depend on each other.")
        placed += ready
        waiting = [p for p in waiting if p not in ready]
    return placed
