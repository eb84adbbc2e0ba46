"""The live view of a terminal: how far it is, what every worker is at, the best so far. Drawn over in place.

Where the output is no terminal there is none, and the lines that are said anyway are all there is.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from src.evidence.runs import Tail
from src.search.account import minutes

DRAW_SECONDS = 2.0  # between two drawings
LEAST_SHARE = 0.02  # of the work; before, nobody knows how long it takes


@dataclass(frozen=True)
class Busy:
    """What one worker is at."""

    what: str  # trial 3, baseline majority
    settings: str = ""
    share: float | None = None  # of its schedule
    epoch: float | None = None
    loss: float | None = None  # of training, as last logged
    score: float | None = None  # of its last evaluation


@dataclass(frozen=True)
class Shown:
    """One picture of the work, whatever it is."""

    title: str
    unit: str  # what is counted
    done: int
    total: int
    seconds: float  # spent so far
    metric: str
    folder: Path
    expected: float | None = None  # seconds of the whole work, as priced beforehand
    budget: float | None = None  # seconds; the work ends then
    counts: Mapping[str, int] = field(default_factory=dict)  # of what has ended, by how
    busy: Mapping[int, Busy] = field(default_factory=dict)  # by worker
    paused: Sequence[float] = ()  # of what waits to be continued: how much of it is done
    workers: int = 0
    idle: str = "waiting"  # what a worker does that is at nothing
    top: Sequence[tuple[str, str, str]] = ()  # name, score, settings; the best first

    @property
    def share(self) -> float:
        """Of the whole work that is done, what is begun included."""
        begun = sum(busy.share or 0.0 for busy in self.busy.values()) + sum(self.paused)
        return min(1.0, (self.done + begun) / self.total) if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """At first as priced, then more and more at the speed so far; no longer than the budget."""
        share = self.share
        priced = None if self.expected is None else self.expected * (1 - share)
        paced = self.seconds * (1 - share) / share if share >= LEAST_SHARE else priced
        if paced is None:
            return None
        left = paced if priced is None else priced * (1 - share) + paced * share
        return left if self.budget is None else min(left, max(0.0, self.budget - self.seconds))


class Runs:
    """What runs in folders say last, read as they grow: one look costs what was written since the one before."""

    def __init__(self) -> None:
        self._tails: dict[Path, Tail] = {}

    def at(self, folder: Path) -> Tail:
        """The run in `folder`, as it stands."""
        if folder not in self._tails:
            self._tails[folder] = Tail(folder)
        return self._tails[folder].read()

    def forget(self, folder: Path) -> None:
        self._tails.pop(folder, None)


def busy(tail: Tail, what: str, metric: str, epochs: float | None = None, settings: str = "") -> Busy:
    """What a training is at, from its run. `epochs`: of its whole schedule."""
    epoch = tail.metrics.get("train/epoch")
    share = min(1.0, epoch / epochs) if epoch is not None and epochs else None
    score = tail.metrics.get(f"validation/{metric}", tail.metrics.get(f"rung/{metric}"))
    return Busy(what, settings, share, epoch, tail.metrics.get("train/loss"), score)


class View:
    """Draws pictures on `console` while the block lasts; nothing where it is no terminal, or `wanted` is not auto."""

    def __init__(self, console: Console, wanted: str) -> None:
        self.on = wanted == "auto" and console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._drawn = 0.0

    def __enter__(self) -> "View":
        self._block: AbstractContextManager[object] = self._live if self.on else nullcontext()
        self._block.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._block.__exit__(None, None, None)

    @property
    def due(self) -> bool:
        """Whether it is time for a new picture."""
        return self.on and time.monotonic() - self._drawn >= DRAW_SECONDS

    def draw(self, shown: Shown) -> None:
        self._drawn = time.monotonic()
        self._live.update(picture(shown, self._live.console.width), refresh=True)


def picture(shown: Shown, width: int) -> RenderableType:
    """The whole view for a terminal of `width` columns."""
    parts: list[RenderableType] = [Text(), _head(shown), _facts(shown), _at_work(shown, width)]
    if shown.top:
        parts.append(_top(shown))
    return Group(*parts)


def _head(shown: Shown) -> Table:
    row = Table.grid(padding=(0, 2))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    left = shown.seconds_left
    when = minutes(shown.seconds) + (f", about {minutes(left)} left" if left is not None else "")
    if shown.budget is not None:
        when += f"; budget: {minutes(max(0.0, shown.budget - shown.seconds))} of {minutes(shown.budget)} left"
    bar = ProgressBar(total=1.0, completed=shown.share, width=24)
    row.add_row(Text(f"{shown.title}  {shown.done} of {shown.total} {shown.unit}", style="bold"), bar, when)
    return row


def _facts(shown: Shown) -> Text:
    memory, free = psutil.virtual_memory(), shutil.disk_usage(shown.folder).free
    ended = {how.lower(): n for how, n in shown.counts.items()} | ({"paused": n} if (n := len(shown.paused)) else {})
    counts = ", ".join(f"{n} {how}" for how, n in ended.items()) or "none ended yet"
    machine = f"disk {free / 1e9:.0f} GB free, memory {memory.used / 1e9:.1f} of {memory.total / 1e9:.0f} GB"
    return Text(f"{counts}; {machine}", style="dim", no_wrap=True, overflow="ellipsis")


def _at_work(shown: Shown, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("worker", "at", "done", "epoch", "loss", shown.metric):
        table.add_column(name, no_wrap=True, justify="left" if name in ("worker", "at") else "right")
    if width >= 90:
        table.add_column("settings", no_wrap=True, overflow="ellipsis")
    for worker in sorted({*range(shown.workers), *shown.busy}):
        found = shown.busy.get(worker, Busy(shown.idle))
        cells = (
            str(worker), found.what, _cell(found.share, ".0%"), _cell(found.epoch, ".1f"), _cell(found.loss, ".3f"),
            _cell(found.score, ".4f"), found.settings,
        )  # fmt: skip
        table.add_row(*cells[: len(table.columns)])
    return table


def _top(shown: Shown) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("best", no_wrap=True)
    table.add_column(shown.metric, no_wrap=True, justify="right")
    table.add_column("settings", no_wrap=True, overflow="ellipsis")
    for row in shown.top:
        table.add_row(*row)
    return table


def _cell(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
