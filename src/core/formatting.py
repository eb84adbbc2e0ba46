"""Formats values for people, on the terminal and on pages."""

from collections.abc import Mapping

from src.core.metric import COSTS


def duration(seconds: float) -> str:
    """A length of time: 42 s, 3.5 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def short(value: object) -> str:
    """A value in three significant digits, if it is a float."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_params(params: Mapping[str, object], separator: str = " ") -> str:
    """Settings on one line, without the names of their groups: learning_rate=0.0001 dropout=0.1."""
    return separator.join(f"{key.rsplit('.', 1)[-1]}={short(value)}" for key, value in params.items())


def metric_text(name: str, value: float | None) -> str:
    """A value of a metric or a cost; empty if there is none."""
    return "" if value is None else f"{value:.1f}" if name in COSTS else f"{value:.4f}"


def plural(count: int, noun: str) -> str:
    """1 worker, 2 workers."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
