"""Prints what a comparison does while it trains."""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from src.comparison.contenders import SeedRun
from src.console import live_view
from src.console.output import StudyConsole
from src.workflows.compare.plan import ComparisonPlan

POLL_SECONDS = 0.5  # between two checks for seed runs that have ended


class ComparisonMonitor:
    """A thread that prints a line for every seed run that has ended, and updates the live view."""

    def __init__(
        self, plan: ComparisonPlan, console: StudyConsole, seed_runs: Iterable[SeedRun], expected: float | None = None
    ) -> None:
        self.plan, self.console, self.expected = plan, console, expected
        self.view = live_view.LiveView(console.console, plan.settings.progress)
        self._runs = live_view.RunTails()
        self._began = time.monotonic()
        self.seed_runs = list(seed_runs)
        self.printed = {r.folder for r in self.seed_runs if r.result() is not None}
        self._before = len(self.printed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="comparison")

    def __enter__(self) -> None:
        self.view.__enter__()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.update(last=True)

    def update(self, last: bool = False) -> None:
        """Print what is new; with `last`, the thread ends afterwards."""
        if last:
            self._over.set()
            self._thread.join()
            self.view.__exit__()
        for seed_run in self.seed_runs:
            result = seed_run.result() if seed_run.folder not in self.printed else None
            if result is not None:
                self.printed.add(seed_run.folder)
                score = "" if result.score is None else f"{result.score:.4f}"
                tail = f"  ({result.reason})" if result.reason else ""
                self.console.event(
                    f"[{len(self.printed)}/{len(self.seed_runs)}] {seed_run.contender.name:<9} seed {seed_run.seed:<6}"
                    f"{result.state:<8} {score:>6} {result.seconds:>5.0f} s{tail}"
                )

    def _loop(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            with suppress(OSError):
                self.update()
                if self.view.is_due:
                    self.view.draw(self._snapshot())

    def _snapshot(self) -> live_view.Snapshot:
        """The progress of the seed runs for the live view: only those of this launch, whose start time is known."""
        metric = self.plan.saved_study.settings.study.metric
        busy: dict[int, live_view.WorkerActivity] = {}
        for seed_run in self.seed_runs:
            folder = seed_run.folder / "run"
            if seed_run.folder in self.printed:
                self._runs.forget(folder)
            elif (tail := self._runs.read(folder)).status == "RUNNING" and "worker" in tail.tags:
                what, epochs = (
                    f"{seed_run.contender.name} seed {seed_run.seed}",
                    seed_run.contender.settings().recipe.epochs,
                )
                busy[int(tail.tags["worker"])] = live_view.activity_of(tail, what, metric, epochs)
        return live_view.Snapshot(
            title=f"Comparison of {self.plan.saved_study.name}",
            unit="trainings",
            done=len(self.printed) - self._before,
            total=len(self.seed_runs) - self._before,
            seconds=time.monotonic() - self._began,
            metric=metric,
            folder=self.plan.folder,
            expected_seconds=self.expected,
            activities=busy,
            workers=self.plan.workers,
        )
