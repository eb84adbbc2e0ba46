"""The launching process's eye on its study: a line per event, a live view, the parent run and the time spent."""

import threading
import time
from collections import Counter
from contextlib import suppress

from src.evidence.runs import STATUS, Run
from src.evidence.store import Store
from src.records import State, TrialRecord
from src.runner import live, pace
from src.runner.pace import epochs
from src.runner.plan import Plan, say_price
from src.search import stopping
from src.search.account import TOP, Account, in_short
from src.search.study import Book

LOOK_SECONDS = 0.5  # between two looks
PAUSED = STATUS[State.PAUSED]


class Watch:
    """A thread that looks on while workers work."""

    def __init__(self, plan: Plan, book: Book, run: Run, store: Store, account: Account) -> None:
        self.plan, self.book, self.run, self.store, self.account = plan, book, run, store, account
        self._over = threading.Event()
        self._said = {t.number for t in book.ended()}
        self._rungs = {(t.number, t.rung) for t in book.trials()}
        self._priced = False
        self._expected: float | None = None  # seconds of the whole study
        self.view = live.View(account.console, plan.settings.progress)
        self._runs = live.Runs()
        self._thread = threading.Thread(target=self._look_on, daemon=True, name="account")

    def __enter__(self) -> None:
        self._since = time.time()
        self.view.__enter__()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.view.__exit__()
        self._look()

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with suppress(Exception):  # a full disk, say: workers go on, and the next look may succeed
                self._look()
                if self.view.due:
                    self.view.draw(self._shown())

    def _look(self) -> None:
        now = time.time()
        self.book.spend(self._since, now)
        self._since = now
        if not self._priced and self._measured() >= self.plan.workers:
            left = say_price(self.plan, self.account, len(self._said))
            self._expected = None if left is None else self.book.spent() + left
            self._priced = True
        self._say_rungs()
        ended = self.book.ended()
        for done, trial in enumerate(ended, start=1):
            if trial.number not in self._said:
                self._said.add(trial.number)
                best = stopping.best_of(ended[:done], self.book.direction)
                self.account.trial(trial, done, best)
                self._record(done, best)

    def _shown(self) -> live.Shown:
        """How the study stands, for the live view."""
        book, metric = self.book, self.plan.settings.study.metric
        ended, budget = book.ended(), book.rules.budget_minutes
        busy, paused = self._begun(metric)
        best = stopping.ranked(ended, book.direction)[:TOP]
        return live.Shown(
            title=book.name,
            unit="trials",
            done=len(ended),
            total=book.rules.n_trials,
            seconds=book.spent(),
            metric=metric,
            folder=book.folder,
            expected=self._expected,
            budget=None if budget is None else budget * 60,
            counts=Counter(str(t.state) for t in ended),
            busy=busy,
            paused=paused,
            workers=self.plan.workers,
            idle="waiting" if self._priced else "starting",
            top=[(f"trial {t.number}", f"{t.score:.4f}", in_short(t.params)) for t in best],
        )

    def _begun(self, metric: str) -> tuple[dict[int, live.Busy], list[float]]:
        """What each worker is at, and how far the trials are that wait.

        As the runs of trials and baselines tell it where their folders are here.
        """
        found: dict[int, live.Busy] = {}
        paused: list[float] = []
        whole = epochs(self.plan.settings.recipe)
        for trial in self.book.trials():
            folder = self.book.trial_folder(trial.number) / "run"
            if trial.state != State.RUNNING:
                self._runs.forget(folder)
                continue
            tail = self._runs.at(folder)
            if tail.status == PAUSED:
                paused.append(self.book.reached(trial.rung or 0))
            if tail.status != State.RUNNING:  # nobody works on it
                continue
            length = float(trial.params.get("trainer.num_train_epochs", whole))
            worker = int(tail.tags.get("worker", len(found)))
            found[worker] = live.busy(tail, f"trial {trial.number}", metric, length, in_short(trial.params))
        for name in self.book.rules.baselines:
            tail = self._runs.at(self.book.folder / "baselines" / name)
            if tail.status == "RUNNING" and "worker" in tail.tags:
                found.setdefault(int(tail.tags["worker"]), live.busy(tail, f"baseline {name}", metric))
        return found, paused

    def _measured(self) -> int:
        """Of how many workers the speed is known."""
        plan = self.plan
        return len(pace.priced(plan.settings, plan.paths, plan.corpus.fingerprint, plan.workers))

    def _say_rungs(self) -> None:
        """Ends come late where trials pause, and where they take long: say what is known on the way.

        A live view shows what works at the moment.
        """
        if self.view.on and not self.book.pauses:
            return
        for trial in self.book.trials():
            if not self.book.pauses and trial.state != State.RUNNING:
                continue
            if trial.rung is not None and trial.rung < 100 and (trial.number, trial.rung) not in self._rungs:
                self._rungs.add((trial.number, trial.rung))
                self.account.rung(trial)

    def _record(self, done: int, best: TrialRecord | None) -> None:
        """Best so far as a curve over ended trials, and as tags; never as params, which cannot change."""
        if best is not None and best.score is not None:
            self.run.metrics(done, {"best/score": best.score})
            self.run.tags({"best.trial": best.number, "best.score": best.score, "best.run_id": best.run_id})
        self.run.deliver(self.store)
