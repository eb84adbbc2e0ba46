"""Watches a study from the launching process: prints events, updates the live view and the study's run."""

import threading
import time
from collections import Counter
from contextlib import suppress

from src.config.settings import EPOCHS_KEY, LIMITS
from src.console import live_view
from src.console.output import TOP, StudyConsole
from src.core.formatting import short_params
from src.core.records import State, TrialRecord
from src.search import screening, stopping
from src.search.study import Study
from src.tracking.run_log import STATUS, RunLog
from src.tracking.store import TrackingStore
from src.workers import worker_count
from src.workflows.sweep.plan import SweepPlan, print_price

POLL_SECONDS = 0.5  # between two updates
PAUSED = STATUS[State.PAUSED]


class SearchMonitor:
    """A thread that shows the study's progress while its workers run."""

    def __init__(self, plan: SweepPlan, study: Study, run: RunLog, store: TrackingStore, console: StudyConsole) -> None:
        self.plan, self.study, self.run, self.store, self.console = plan, study, run, store, console
        self._over = threading.Event()
        self._said = {t.number for t in study.ended_trials()}
        self._rungs = {(t.number, t.rung) for t in study.trials()}
        self._said_screening = bool(screening.read_results(study.folder))
        self._limits = study.limits()
        self._priced = False
        self._expected: float | None = None  # seconds of the whole study
        self.view = live_view.LiveView(console.console, plan.settings.progress)
        self._runs = live_view.RunTails()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="account")

    def __enter__(self) -> None:
        self._since = time.monotonic()
        self.view.__enter__()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.view.__exit__()
        self._update()

    def _loop(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            with suppress(Exception):  # a full disk, for example: workers continue, and the next update may succeed
                self._update()
                if self.view.is_due:
                    self.view.draw(self._snapshot())

    def _update(self) -> None:
        now = time.monotonic()
        self.study.add_time(now - self._since, time.time())
        self._since = now
        if not self._priced and self._workers_measured() >= self.plan.workers:
            left = print_price(self.plan, self.console, self.study.ended_trials())
            self._expected = None if left is None else self.study.seconds_spent() + left
            self._priced = True
        self._print_limits()
        self._print_screening()
        self._print_rungs()
        ended = self.study.ended_trials()
        for place, trial in enumerate(ended, start=1):
            if trial.number not in self._said:
                self._said.add(trial.number)
                best = stopping.best_trial(ended[:place], self.study.direction)
                done = len(stopping.own_trials(ended[:place]))
                self.console.trial(trial, done, self._limits.n_trials, best)
                self._record_best(done, best)

    def _snapshot(self) -> live_view.Snapshot:
        """The study's progress, for the live view."""
        study, metric = self.study, self.plan.settings.study.metric
        ended, budget = study.ended_trials(), self._limits.budget_minutes
        own = stopping.own_trials(ended)
        busy, paused = self._activities(metric)
        best = stopping.rank_trials(ended, study.direction)[:TOP]
        return live_view.Snapshot(
            title=study.name,
            unit="trials",
            done=len(own),
            total=self._limits.n_trials,
            seconds=study.seconds_spent(),
            metric=metric,
            folder=study.folder,
            expected_seconds=self._expected,
            budget_seconds=None if budget is None else budget * 60,
            counts=Counter(str(t.state) for t in own),
            activities=busy,
            paused=paused,
            workers=self.plan.workers,
            idle="waiting" if self._priced else "starting",
            top=[(f"trial {t.number}", f"{t.score:.4f}", short_params(t.params)) for t in best],
        )

    def _activities(self, metric: str) -> tuple[dict[int, live_view.WorkerActivity], list[float]]:
        """What each worker is doing, and how far paused trials have got, from the runs' folders on this machine."""
        activities: dict[int, live_view.WorkerActivity] = {}
        paused: list[float] = []
        default_epochs = self.plan.settings.recipe.epochs
        for trial in self.study.trials():
            folder = self.study.trial_folder(trial.number) / "run"
            if trial.state != State.RUNNING:
                self._runs.forget(folder)
                continue
            tail = self._runs.read(folder)
            if tail.status == PAUSED:
                paused.append(self.study.expected_progress(trial.rung or 0))
            if tail.status != State.RUNNING:  # no worker holds it
                continue
            length = float(trial.params.get(EPOCHS_KEY, default_epochs))
            worker = int(tail.tags.get("worker", len(activities)))
            activities[worker] = live_view.activity_of(
                tail, f"trial {trial.number}", metric, length, short_params(trial.params)
            )
        for name in self.study.study_settings.baselines:
            tail = self._runs.read(self.study.folder / "baselines" / name)
            if tail.status == "RUNNING" and "worker" in tail.tags:
                activities.setdefault(int(tail.tags["worker"]), live_view.activity_of(tail, f"baseline {name}", metric))
        return activities, paused

    def _workers_measured(self) -> int:
        """The number of workers whose speed is known."""
        plan = self.plan
        return len(
            worker_count.calibrations_or_estimate(plan.settings, plan.paths, plan.dataset.fingerprint, plan.workers)
        )

    def _print_limits(self) -> None:
        """Print limits that another command has changed since: they count for this one, too."""
        now = self.study.limits()
        if now == self._limits:
            return
        before = {name: getattr(self._limits, name) for name in LIMITS}
        changed = {name: getattr(now, name) for name in LIMITS if getattr(now, name) != before[name]}
        spelled = {None: "null"}
        texts = [
            f"study.{name} is {spelled.get(value, value)} now and was {spelled.get(before[name], before[name])}"
            for name, value in changed.items()
        ]
        self._limits = now
        self.console.event(f"      another command has changed the study: {'; '.join(texts)}")

    def _print_screening(self) -> None:
        """Print the screening once it is over."""
        if not self._said_screening and (results := screening.read_results(self.study.folder)):
            self._said_screening = True
            self.console.screening(results)

    def _print_rungs(self) -> None:
        """Print scores at rungs, for trials that are paused or take long. A live view shows them itself."""
        if self.view.is_on and not self.study.pauses_trials:
            return
        for trial in self.study.trials():
            if not self.study.pauses_trials and trial.state != State.RUNNING:
                continue
            if trial.rung is not None and trial.rung < 100 and (trial.number, trial.rung) not in self._rungs:
                self._rungs.add((trial.number, trial.rung))
                self.console.rung(trial)

    def _record_best(self, done: int, best: TrialRecord | None) -> None:
        """Log the best score as a curve over ended trials, and the best trial as tags. MLflow params cannot change."""
        if best is not None and best.score is not None:
            self.run.log_metrics(done, {"best/score": best.score})
            self.run.set_tags({"best.trial": best.number, "best.score": best.score, "best.run_id": best.run_id})
        self.run.send_to(self.store)
