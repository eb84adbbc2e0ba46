"""What a study says on the terminal: its plan, its price, a line per trial, and what came of it."""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from src.records import Calibration, Outcome, State, TrialRecord
from src.search.space import Space
from src.search.stopping import ranked
from src.settings import Settings

TOP = 5


class Account:
    """Plain lines where the output is no terminal; nothing is drawn over."""

    def __init__(self, settings: Settings, console: Console | None = None) -> None:
        self.settings, self.study = settings, settings.study
        self.console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 150)
        self.lines = settings.progress != "off"  # whether it says what happens on the way

    def say(self, text: str = "") -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, text: str) -> None:
        """A line on the way, unless nobody wants any."""
        if self.lines:
            self.say(text)

    def plan(self, space: Space, workers: int, facts: Mapping[str, str], ended: int) -> None:
        """What will be searched, on what, by how many."""
        study = self.study
        left = max(0, study.n_trials - ended)
        self.say(f"Study {study.name}: {study.metric} on the validation split, {study.n_trials} trials"
                 + (f" ({ended} done, {left} to go)" if ended else "")
                 + f", {workers} worker{'s' * (workers != 1)}")  # fmt: skip
        rows = {**facts, **{f"search {key}": text for key, text in space.describe().items()}}
        width = max(map(len, rows))
        for name, text in rows.items():
            self.say(f"  {name:<{width}}  {text}")
        limits = {"budget_minutes": study.budget_minutes, "target": study.target, "patience": study.patience}
        if given := ", ".join(f"{key} {value:g}" for key, value in limits.items() if value is not None):
            self.say(f"  {'ends early by':<{width}}  {given}")

    def price(
        self,
        measured: Sequence[Calibration],
        seconds: float,
        gigabytes: float,
        but: str = "less where trials are pruned",
    ) -> None:
        """What it will cost at most, from the calibration."""
        first = measured[0]
        speed = 1 / (sum(c.seconds_per_example for c in measured) / len(measured))
        threads = f"{first.threads} thread{'s' * (first.threads != 1)} each"
        disk = f"up to {gigabytes:.2f} GB on disk"
        self.say(
            f"  expected: about {minutes(seconds)} and {disk}, at {speed:.0f} training examples per second and worker "
            f"({first.device}, {threads}){but and '; ' + but}"
        )

    def pace(self, found: Mapping[int, float], chosen: int) -> None:
        """What so many workers at once get through on this machine."""
        said = ", ".join(f"{count}: {speed:.0f}" for count, speed in found.items())
        self.say(f"  training examples per second, by workers   {said}; workers=auto takes {chosen} from now on")

    def trial(self, trial: TrialRecord, done: int, best: TrialRecord | None) -> None:
        """One line for a trial that ended."""
        values = in_short(trial.params, "  ")
        score = "" if trial.score is None else f"{trial.score:.4f}"
        mark = " *" if best is not None and best.number == trial.number else ""
        tail = f"  ({trial.reason})" if trial.reason else ""
        spent = f"{trial.seconds:.0f} s" if trial.seconds is not None else ""
        self.progress(
            f"[{done}/{self.study.n_trials}] trial {trial.number:<3} {trial.state:<8} {score:>6}{mark:<2} {spent:>6}  "
            f"{values}{tail}"
        )

    def rung(self, trial: TrialRecord) -> None:
        """One line for a trial that was judged at a rung."""
        self.progress(f"      trial {trial.number:<3} at {trial.rung:>2} %   {trial.rung_score:.4f}")

    def result(self, trials: Sequence[TrialRecord], baselines: Mapping[str, Outcome], direction: str) -> None:
        """The best trials and the baselines, one table."""
        metrics = [m for t in trials if t.state == State.COMPLETE for m in t.metrics][:5] or [self.study.metric]
        metrics = list(dict.fromkeys([self.study.metric, *metrics]))
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", no_wrap=True, min_width=12)
        for name in (*metrics, "MB", "ms per 1000"):
            table.add_column(name, justify="right", min_width=6)
        table.add_column("settings", overflow="fold")
        for trial in ranked(trials, direction)[:TOP]:
            settings = in_short(trial.params)
            note = "" if trial.origin == "sampler" else f" ({trial.origin})"
            table.add_row(f"trial {trial.number}{note}", *_cells(trial, metrics), settings)
        for name, outcome in baselines.items():
            table.add_row(f"baseline {name}", *_cells(outcome, metrics), outcome.reason or "")
        self.say()
        self.console.print(table, soft_wrap=True)

    def ending(self, reason: str | None, counts: Mapping[str, int], seconds: float) -> None:
        parts = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        how = f"is over: {reason}" if reason else "is not done yet"
        self.say(f"\nStudy {self.study.name} {how}. Trials: {parts or 'none'}; {minutes(seconds)} of searching.")

    def best(self, trial: TrialRecord, overrides: Sequence[str], places: Mapping[str, str]) -> None:
        """The best settings, where they lie, and what to type next."""
        self.say(
            f"\nBest: trial {trial.number}, {self.study.metric} {trial.score:.4f} on the validation split, one seed."
        )
        self.say("  " + " ".join(overrides))
        width = max(map(len, places))
        for name, text in places.items():
            self.say(f"  {name:<{width}}  {text}")


def _cells(row: TrialRecord | Outcome, metrics: Sequence[str]) -> list[str]:
    numbers = [f"{row.metrics[m]:.4f}" if m in row.metrics else "" for m in metrics]
    size = "" if row.megabytes is None else f"{row.megabytes:.1f}"
    speed = "" if row.ms_per_1000_texts is None else f"{row.ms_per_1000_texts:.0f}"
    return [*numbers, size, speed]


def in_short(params: Mapping[str, object], between: str = " ") -> str:
    """Settings on one line, without their groups."""
    return between.join(f"{key.rsplit('.', 1)[-1]}={_short(value)}" for key, value in params.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def minutes(seconds: float) -> str:
    """A length of time, for people."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
