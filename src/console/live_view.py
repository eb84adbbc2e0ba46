"""The live view on a terminal, redrawn in place: progress, what each worker does, the best trials.

There is no live view if the output is not a terminal.
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

from src.core.formatting import duration
from src.tracking.run_log import RunTail

REFRESH_SECONDS = 2.0  # between two drawings
MIN_FRACTION_FOR_PACE = 0.02  # fraction of the work from which the time left is estimated by the speed so far


@dataclass(frozen=True)
class WorkerActivity:
    """What one worker does."""

    task: str  # trial 3, baseline majority
    settings: str = ""
    share: float | None = None  # of its schedule
    epoch: float | None = None
    loss: float | None = None  # of training, as last logged
    score: float | None = None  # of its last evaluation


@dataclass(frozen=True)
class Snapshot:
    """The state of the work at one moment."""

    title: str
    unit: str  # what is counted, such as trials
    done: int
    total: int
    seconds: float  # spent so far
    metric: str
    folder: Path
    expected_seconds: float | None = None  # expected seconds of the whole work
    budget_seconds: float | None = None  # seconds after which the work ends
    counts: Mapping[str, int] = field(default_factory=dict)  # numbers of ended trials by state
    activities: Mapping[int, WorkerActivity] = field(default_factory=dict)  # by worker
    paused: Sequence[float] = ()  # fraction done of each paused trial
    workers: int = 0
    idle: str = "waiting"  # what is shown for a worker without work
    top: Sequence[tuple[str, str, str]] = ()  # name, score, settings; the best first

    @property
    def fraction_done(self) -> float:
        """The fraction of the whole work that is done, started work included."""
        begun = sum(busy.share or 0.0 for busy in self.activities.values()) + sum(self.paused)
        return min(1.0, (self.done + begun) / self.total) if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds left: at first as estimated beforehand, then more and more by the speed so far, within the budget."""
        share = self.fraction_done
        priced = None if self.expected_seconds is None else self.expected_seconds * (1 - share)
        paced = self.seconds * (1 - share) / share if share >= MIN_FRACTION_FOR_PACE else priced
        if paced is None:
            return None
        left = paced if priced is None else priced * (1 - share) + paced * share
        return left if self.budget_seconds is None else min(left, max(0.0, self.budget_seconds - self.seconds))


class RunTails:
    """The tails of several runs' logs. A read costs what was written since the one before."""

    def __init__(self) -> None:
        self._tails: dict[Path, RunTail] = {}

    def read(self, folder: Path) -> RunTail:
        """The latest state of the run in `folder`."""
        if folder not in self._tails:
            self._tails[folder] = RunTail(folder)
        return self._tails[folder].read()

    def forget(self, folder: Path) -> None:
        """Stop following the run in `folder`."""
        self._tails.pop(folder, None)


def activity_of(
    tail: RunTail, what: str, metric: str, epochs: float | None = None, settings: str = ""
) -> WorkerActivity:
    """What a training does, from its run's log.

    Args:
        tail: of the log.
        what: the training's name in the view.
        metric: of its last evaluation.
        epochs: of its whole schedule.
        settings: searched settings, on one line.
    """
    epoch = tail.metrics.get("train/epoch")
    share = min(1.0, epoch / epochs) if epoch is not None and epochs else None
    score = tail.metrics.get(f"validation/{metric}", tail.metrics.get(f"rung/{metric}"))
    return WorkerActivity(what, settings, share, epoch, tail.metrics.get("train/loss"), score)


class LiveView:
    """Draws snapshots during the block, if the console is a terminal and `progress` is auto."""

    def __init__(self, console: Console, progress: str) -> None:
        self.is_on = progress == "auto" and console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._drawn = 0.0

    def __enter__(self) -> "LiveView":
        self._block: AbstractContextManager[object] = self._live if self.is_on else nullcontext()
        self._block.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._block.__exit__(None, None, None)

    @property
    def is_due(self) -> bool:
        """Whether it is time to draw again."""
        return self.is_on and time.monotonic() - self._drawn >= REFRESH_SECONDS

    def draw(self, snapshot: Snapshot) -> None:
        """Draw a snapshot in place of the one before."""
        self._drawn = time.monotonic()
        self._live.update(render_snapshot(snapshot, self._live.console.width), refresh=True)


def render_snapshot(snapshot: Snapshot, width: int) -> RenderableType:
    """The whole view for a terminal of `width` columns."""
    parts: list[RenderableType] = [
        Text(),
        _progress_row(snapshot),
        _counts_and_machine(snapshot),
        _activity_table(snapshot, width),
    ]
    if snapshot.top:
        parts.append(_best_table(snapshot))
    return Group(*parts)


def _progress_row(snapshot: Snapshot) -> Table:
    row = Table.grid(padding=(0, 2))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    left = snapshot.seconds_left
    when = duration(snapshot.seconds) + (f", about {duration(left)} left" if left is not None else "")
    if snapshot.budget_seconds is not None:
        budget_left = max(0.0, snapshot.budget_seconds - snapshot.seconds)
        when += f"; budget: {duration(budget_left)} of {duration(snapshot.budget_seconds)} left"
    bar = ProgressBar(total=1.0, completed=snapshot.fraction_done, width=24)
    row.add_row(Text(f"{snapshot.title}  {snapshot.done} of {snapshot.total} {snapshot.unit}", style="bold"), bar, when)
    return row


def _counts_and_machine(snapshot: Snapshot) -> Text:
    memory, free = psutil.virtual_memory(), shutil.disk_usage(snapshot.folder).free
    ended = {how.lower(): n for how, n in snapshot.counts.items()} | (
        {"paused": n} if (n := len(snapshot.paused)) else {}
    )
    counts = ", ".join(f"{n} {how}" for how, n in ended.items()) or "none ended yet"
    machine = f"disk {free / 1e9:.0f} GB free, memory {memory.used / 1e9:.1f} of {memory.total / 1e9:.0f} GB"
    return Text(f"{counts}; {machine}", style="dim", no_wrap=True, overflow="ellipsis")


def _activity_table(snapshot: Snapshot, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("worker", "at", "done", "epoch", "loss", snapshot.metric):
        table.add_column(name, no_wrap=True, justify="left" if name in ("worker", "at") else "right")
    if width >= 90:
        table.add_column("settings", no_wrap=True, overflow="ellipsis")
    for worker in sorted({*range(snapshot.workers), *snapshot.activities}):
        activity = snapshot.activities.get(worker, WorkerActivity(snapshot.idle))
        cells = (
            str(worker),
            activity.task,
            _cell(activity.share, ".0%"),
            _cell(activity.epoch, ".1f"),
            _cell(activity.loss, ".3f"),
            _cell(activity.score, ".4f"),
            activity.settings,
        )
        table.add_row(*cells[: len(table.columns)])
    return table


def _best_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("best", no_wrap=True)
    table.add_column(snapshot.metric, no_wrap=True, justify="right")
    table.add_column("settings", no_wrap=True, overflow="ellipsis")
    for row in snapshot.top:
        table.add_row(*row)
    return table


def _cell(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
