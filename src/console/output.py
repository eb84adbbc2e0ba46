"""Prints lines and tables, and the progress and results of a study."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console as RichConsole
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from src.config.settings import Settings
from src.core import messages
from src.core.formatting import duration, metric_text, plural, short, short_params
from src.core.records import AverageRecord, Calibration, ScreeningResult, State, TrainingResult, TrialRecord
from src.search.space import Space
from src.search.stopping import rank_trials

TOP = 5


WIDTH = 150  # columns, if the output is not a terminal


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    right: bool = False
    wrap: bool = False
    min_width: int | None = None


class Console:
    """Prints lines and tables. Text is printed as it is, without rich's markup.

    Messages of workers and of the launcher are printed by the latest console (see messages).
    """

    def __init__(self, progress: str = "auto", console: RichConsole | None = None, stderr: bool = False) -> None:
        width = None if (sys.stderr if stderr else sys.stdout).isatty() else WIDTH
        self.console = console or RichConsole(highlight=False, emoji=False, width=width, stderr=stderr)
        self.lines = progress != "off"  # whether lines about progress are printed
        messages.print_through(lambda text, important: self.print(text) if important else self.event(text))

    def print(self, text: str = "") -> None:
        """Print a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def event(self, text: str) -> None:
        """Print a line about progress, unless progress=off."""
        if self.lines:
            self.print(text)

    def rows(self, rows: Mapping[str, str]) -> None:
        """Print indented names and texts, the texts aligned."""
        width = max(map(len, rows))
        for name, text in rows.items():
            self.print(f"  {name:<{width}}  {text}")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]], soft_wrap: bool = True) -> None:
        """Print a table without borders.

        With `soft_wrap`, rows that are too wide continue on the terminal's next line.
        """
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=not column.wrap,
                overflow="fold",
                min_width=column.min_width,
            )
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print(table, soft_wrap=soft_wrap)


class StudyConsole(Console):
    """Prints what a study does: plan, cost, a line per trial, result."""

    def __init__(self, settings: Settings, console: RichConsole | None = None) -> None:
        super().__init__(settings.progress, console)
        self.settings, self.study = settings, settings.study

    def plan(self, space: Space, workers: int, facts: Mapping[str, str], ended: int) -> None:
        """Print what will be searched, on which data, by how many workers.

        Args:
            space: of the study.
            workers: that will be started.
            facts: further lines, by name.
            ended: trials that have ended already.
        """
        study = self.study
        left = max(0, study.n_trials - ended)
        metrics = " and ".join(study.objectives)
        self.print(f"Study {study.name}: {metrics} on the validation split, {plural(study.n_trials, 'trial')}"
                 + (f" ({ended} done, {left} to go)" if ended else "")
                 + f", {plural(workers, 'worker')}")  # fmt: skip
        rows = {**facts, **{f"search {key}": text for key, text in space.describe().items()}}
        if given := ", ".join(f"{key} {value:g}" for key, value in study.limits.items()):
            rows["ends early by"] = given
        self.rows(rows)

    def price(
        self,
        measured: Sequence[Calibration],
        seconds: float,
        gigabytes: float,
        but: str = "less where trials are pruned",
    ) -> None:
        """Print what it will cost at most, estimated from the calibration.

        Args:
            measured: at least one calibration.
            seconds: of wall-clock time.
            gigabytes: of disk, 10**9 bytes each.
            but: when it will cost less.
        """
        first = measured[0]
        speed = 1 / (sum(c.seconds_per_example for c in measured) / len(measured))
        threads = f"{plural(first.threads, 'thread')} each"
        disk = f"up to {gigabytes:.2f} GB on disk"
        self.print(
            f"  expected: about {duration(seconds)} and {disk}, at {speed:.0f} training examples per second and worker "
            f"({first.device}, {threads}){but and '; ' + but}"
        )

    def worker_counts(self, found: Mapping[int, float], chosen: int) -> None:
        """Print the measured speed by number of workers, and the number that workers=auto uses."""
        speeds = ", ".join(f"{count}: {speed:.0f}" for count, speed in found.items())
        self.print(f"  training examples per second, by workers   {speeds}; workers=auto takes {chosen} from now on")

    def trial(self, trial: TrialRecord, done: int, total: int, best: TrialRecord | None) -> None:
        """Print a line for a trial that has ended: the `done`-th of `total`."""
        values = short_params(trial.params, "  ")
        score = "" if trial.score is None else f"{trial.score:.4f}"
        mark = " *" if best is not None and best.number == trial.number else ""
        if trial.state == State.COMPLETE:
            values = "  ".join([*(_value(trial.result, name) for name in self.study.measured[1:]), values])
        notes = "; ".join(filter(None, [trial.result.reason or "", *trial.violates]))
        tail = f"  ({notes})" if notes else ""
        spent = f"{trial.result.seconds:.0f} s"
        self.event(
            f"[{done}/{total}] trial {trial.number:<3} {trial.state:<8} {score:>6}{mark:<2} {spent:>6}  {values}{tail}"
        )

    def screening(self, results: Sequence[ScreeningResult]) -> None:
        """Print how the searched models did in their short trials, and which of them are searched."""
        self.print("\nScreening: each model's default recipe to the first rung")
        columns = [Column("model"), Column(self.study.metric, right=True), Column("95 %", right=True)]
        columns += [Column(name, right=True) for name in ("linear probe", "MB", "ms per 1000")] + [Column("")]
        self.table(columns, [_screening_row(result) for result in results])

    def rung(self, trial: TrialRecord) -> None:
        """Print a line for a trial that was judged at a rung."""
        self.event(f"      trial {trial.number:<3} at {trial.rung:>2} %   {trial.rung_score:.4f}")

    def result(self, trials: Sequence[TrialRecord], baselines: Mapping[str, TrainingResult], direction: str) -> None:
        """Print the best trials and the baselines."""
        metrics = [m for t in trials if t.state == State.COMPLETE for m in t.result.metrics][:5] or [self.study.metric]
        metrics = list(dict.fromkeys([self.study.metric, *metrics]))
        columns = [Column("", min_width=12)]
        columns += [Column(name, right=True, min_width=6) for name in (*metrics, "MB", "ms per 1000")]
        rows = []
        for trial in rank_trials(trials, direction)[:TOP]:
            note = f" ({trial.note})" if trial.note else ""
            rows.append((f"trial {trial.number}{note}", *_cells(trial.result, metrics), short_params(trial.params)))
        for name, result in baselines.items():
            rows.append((f"baseline {name}", *_cells(result, metrics), result.reason or ""))
        self.print()
        self.table([*columns, Column("settings", wrap=True)], rows)

    def front(self, front: Sequence[TrialRecord]) -> None:
        """Print the trials for which no other one is as good in all objectives and better in one."""
        names = self.study.objectives
        self.print(f"\nFront of {', '.join(names)}: no other trial is as good in all of them and better in one")
        columns = [Column("trial", right=True), *(Column(name, right=True) for name in names)]
        rows = [
            (str(t.number), *(metric_text(name, t.result.value_of(name)) for name in names), short_params(t.params))
            for t in front
        ]
        self.table([*columns, Column("settings", wrap=True)], rows)

    def ending(self, reason: str | None, counts: Mapping[str, int], seconds: float) -> None:
        """Print why the study is over, its trials by state, and the time spent."""
        parts = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        how = f"is over: {reason}" if reason else "is not done yet"
        self.print(f"\nStudy {self.study.name} {how}. Trials: {parts or 'none'}; {duration(seconds)} of searching.")

    def best(self, trial: TrialRecord, overrides: Sequence[str]) -> None:
        """Print the best settings."""
        self.print(
            f"\nBest: trial {trial.number}{f' ({trial.note})' if trial.is_inherited else ''}, {self.study.metric} "
            f"{trial.score:.4f} on the validation split, one seed."
        )
        self.print("  " + " ".join(overrides))

    def average(self, average: AverageRecord | None, direction: str) -> None:
        """Print how good the average of the best trials' weights is, and whether it is the study's model."""
        if average is None:
            self.print("Nothing was averaged: the best trial has no other near enough to it whose weights are there.")
            return
        delivered = average.is_delivered(direction)
        why = f"It is out of bounds ({'; '.join(average.violates)})" if average.violates else "That is worse"
        self.print(
            f"Average of the weights of trials {', '.join(map(str, average.members))}: {self.study.metric} "
            f"{average.score:.4f}, where they have {average.members_mean:.4f} on average. "
            + ("It is the study's model." if delivered else f"{why}, so the best trial is the study's model.")
        )


def _screening_row(screened: ScreeningResult) -> list[str]:
    result = screened.result
    score = "" if result.score is None else f"{result.score:.4f}"
    interval = "" if screened.low is None else f"[{screened.low:.4f}, {screened.high:.4f}]"
    probe = "" if screened.probe is None else f"{screened.probe:.4f}"
    note = "searched" if screened.kept else "" if result.state != State.FAIL else result.reason or "failed"
    return [screened.model, score, interval, probe, *_cells(result, []), note]


def _value(result: TrainingResult, name: str) -> str:
    value = result.value_of(name)
    return f"{name}={'' if value is None else short(value)}"


def _cells(row: TrainingResult, metrics: Sequence[str]) -> list[str]:
    numbers = [f"{row.metrics[m]:.4f}" if m in row.metrics else "" for m in metrics]
    size = "" if row.megabytes is None else f"{row.megabytes:.1f}"
    speed = "" if row.ms_per_1000_texts is None else f"{row.ms_per_1000_texts:.0f}"
    return [*numbers, size, speed]


@contextmanager
def progress_bar(task: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr, if that is a terminal. The block calls what is yielded with the number of items done.

    Args:
        task: in words.
        total: number of items.
        done: items that were done before.
    """
    console = RichConsole(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal or total < 2
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        added = progress.add_task(task, total=total, completed=done)
        yield lambda n: progress.advance(added, n)
