"""What one worker of a study does: take a trial, train it, record it, tell it; then the baselines nobody has done."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src import config, drain, mirror
from src.errors import BookLost
from src.evidence.runs import Run
from src.evidence.store import Store
from src.learning import baselines, checkpoints, devices, ready_made
from src.learning.checkpoints import Checkpoint
from src.learning.finetune import failure_reason
from src.paths import Paths, write_whole
from src.records import Calibration, Evaluation, Outcome, State, Stop
from src.runner import outpost, timesheet
from src.runner.desk import Desk, TrainingRun, attempt_training, keep_speed, measure_once
from src.runner.outpost import Outpost
from src.runner.timesheet import Sheet
from src.search import life, stopping
from src.search import space as spaces
from src.search.life import Claim
from src.search.study import DEFAULT_RECIPE, Book
from src.settings import Settings

BUDGET_LOOK_SECONDS = 2.0  # how often a training looks at the study's budget
WAIT_SECONDS = 0.3  # between two looks for a trial that another worker may let go on


class TrialRun(TrainingRun):
    """A training that is a trial: the study hears its scores, and its budget or a signal may end it."""

    def __init__(
        self, run: Run, store: Store, book: Book, claim: Claim, post: Outpost | None,
        timed: Callable[[Calibration], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(run, store)
        self.book, self.claim, self.post, self._timed = book, claim, post, timed
        self._looked = time.monotonic()

    def timed(self, found: Calibration) -> None:
        if self._timed is not None:
            self._timed(found)

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        super().evaluated(evaluation)
        return life.report(self.book, self.claim, evaluation)

    def saved(self) -> None:
        """Another machine can continue from here. Where it cannot be told, this one goes on, and tells it next time."""
        if self.post is not None:
            with suppress(OSError):
                self.post.keep_training(self.book, self.claim.number)
                self.post.keep_run(self.book, self.claim.number)

    def asked_to_stop(self, _step: int) -> Stop | None:
        if drain.asked():
            return Stop(State.PAUSED, drain.REASON)
        if time.monotonic() - self._looked < BUDGET_LOOK_SECONDS:
            return None
        self._looked = time.monotonic()
        with life.kept():
            spent = self.book.spent()
        if stopping.over_budget(self.book.rules, spent):
            return Stop(State.PRUNED, f"the study's budget of {self.book.rules.budget_minutes:g} minutes was spent")
        return None


def work(settings: Settings, index: int, of: int, paths: Paths) -> None:
    """Feed the study until there is enough. Runs in a process of its own, any number of them at once.

    Where the study's own records cannot be kept (a full disk, a database that is gone), the process ends with exit
    code 1; its trial keeps its checkpoint.
    """
    own, post = settings.worker, None
    machine = devices.this_machine(bool(settings.recipe.trainer.get("use_cpu")), own.devices_per_trial)
    threads = devices.use_share(index, of, machine, own.cpus)
    if own.home is not None:
        with ends_if_lost(index):
            paths, post = outpost.arrive(settings)
    desk = Desk(settings, paths)
    measures = post is None and settings.study.join is None
    if settings.study.plan_only:
        if measures:
            measure_once(desk, index, of)
        return
    with ends_if_lost(index):
        alone = own.cpus is None and devices.default_alone(machine, of, settings.study.n_trials)
        shift = Shift.of(desk, index, post, threads, machine.cores if alone else None)
        if measures and not (alone and life.default_to_come(shift.book)):  # that trial's own steps show the speed
            measure_once(desk, index, of)
        shift.feed()


@contextmanager
def ends_if_lost(index: int) -> Iterator[None]:
    """End the process with exit code 1 and a sentence where the study's own records cannot be kept."""
    try:
        with life.kept():
            yield
    except BookLost as lost:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(
            f"worker {index} ends: the study's records cannot be kept ({lost}). Its trial keeps its last checkpoint; "
            "once there is room, or the database is back, the same command continues it.",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


@dataclass(frozen=True)
class Shift:
    """A worker's time at a study: what it has at hand, and what it does until there is enough."""

    desk: Desk
    book: Book
    sheet: Sheet
    overrides: Sequence[str]  # that every trial's config begins with
    threads: int
    cores: int | None  # for the default recipe, where it is to go first, by itself
    post: Outpost | None  # where the worker's machine has a folder of its own

    @classmethod
    def of(cls, desk: Desk, index: int, post: Outpost | None, threads: int, cores: int | None) -> "Shift":
        settings = desk.settings
        book = Book(settings, spaces.of(settings), desk.goal.direction, desk.paths.study(settings.study.name))
        overrides = [o for o in config.task_overrides() if not o.startswith(("worker.", "study.join="))]
        joined = settings.study.join is not None
        sheet = Sheet(book.folder, timesheet.next_worker(book.folder) + index if joined else index)
        return cls(desk, book, sheet, overrides, threads, cores, post)

    def feed(self) -> None:
        """Trials one after another, then the baselines that nobody has judged."""
        book, alone = self.book, self.cores is not None
        while not drain.asked():
            if (claim := life.claim(book, alone)) is not None:
                with self.sheet.busy(f"trial {claim.number}") as ended:
                    ended.append(self._trial(claim))
                if self.post is not None:
                    self.post.keep(book, self.sheet.file.parent)
            elif alone and life.default_in_work(book):
                time.sleep(WAIT_SECONDS)
            elif self._baseline():
                continue
            elif life.more_may_come(book):
                time.sleep(WAIT_SECONDS)
            else:
                return

    def _trial(self, claim: Claim) -> str:
        """Train the claimed trial until it ends, pauses or is drained; then let go of it. Returns its state then."""
        desk, book, post = self.desk, self.book, self.post
        first = claim.origin == DEFAULT_RECIPE and self.cores is not None
        threads = devices.use_threads(self.cores if first else self.threads)
        if post is not None and claim.starts > 1:
            post.take_up(book, claim.number)
        run = mirror.trial_run(book, claim.number)
        if post is not None and claim.starts > 1:
            run.recall(desk.store)
        point = config.as_overrides(claim.point)
        settings = config.compose([*self.overrides, *point])
        run.status(State.RUNNING)
        about = {"trial.number": claim.number, "trial.state": State.RUNNING, "trial.origin": claim.origin}
        run.tags({**mirror.facts(desk.corpus, book.name), "kind": "trial", **about})
        run.tags({"worker": self.sheet.worker, "threads": threads})
        if not run.described:
            mirror.describe_training(run, settings, list(claim.point), [*self.overrides, *point])
        if run.deliver(desk.store):
            life.note_run(claim, run.run_id(desk.store))
        folder = book.training_folder(claim.number)
        watch = TrialRun(run, desk.store, book, claim, post, partial(keep_speed, desk) if first else None)
        with book.leases.kept(book.lease(claim.number)):
            outcome = attempt_training(settings.recipe, desk, watch, folder)
        if post is not None:
            post.keep_training(book, claim.number)
        self._settle(claim, run, outcome)
        return outcome.state

    def _settle(self, claim: Claim, run: Run, outcome: Outcome) -> None:
        """Tell the study, then MLflow, how the trial ended, or that it pauses."""
        desk, book, post = self.desk, self.book, self.post
        if outcome.state != State.PAUSED:
            life.finish(book, claim, outcome)
            mirror.record_outcome(run, outcome)
            life.keep_best(book)
        else:
            mirror.record_outcome(run, outcome)
            run.deliver(desk.store)
            if post is not None:
                post.keep_run(book, claim.number)
            if outcome.reason == drain.REASON:
                life.release(book, claim)
            else:
                life.pause(book, claim, outcome)
        run.deliver(desk.store)
        if post is not None and outcome.state != State.PAUSED:
            post.let_go(book, claim.number)

    def _baseline(self) -> bool:
        """Judge a baseline that is neither done nor in another worker's hands; False if there is none."""
        book = self.book
        if self.post is not None:
            self.post.baselines(book)
        done = book.baselines()
        for name in book.rules.baselines:
            run = mirror.baseline_run(book, name)
            with book.leases.sole(f"baselines/{name}") as mine:
                if mine and name not in done and not (run.folder / "outcome.json").exists():
                    with self.sheet.busy(f"baseline {name}"):
                        _run_baseline(self.desk, name, run, self.sheet.worker)
                    if self.post is not None:
                        self.post.keep(book, run.folder)
                    return True
        return False


def _run_baseline(desk: Desk, name: str, run: Run, worker: int) -> None:
    run.status(State.RUNNING)
    facts = mirror.facts(desk.corpus, desk.settings.study.name)
    run.tags({**facts, "kind": "baseline", "baseline": name, "worker": worker})
    if name not in baselines.CLASSIC:
        run.tags(mirror.origin(_weights_of(desk, name)))
    outcome = _judge(desk, name, run.folder / "scratch")
    if not run.described:
        mirror.describe(run, desk.settings)
        run.params({"baseline": name, "data.name": desk.settings.data.name})
    run.metrics(0, {f"validation/{k}": v for k, v in outcome.metrics.items()})
    mirror.record_outcome(run, outcome)
    write_whole(run.folder / "outcome.json", outcome.to_json())
    run.deliver(desk.store)


def _weights_of(desk: Desk, baseline: str) -> Checkpoint:
    if baseline == "ready_made":
        return ready_made.checked(desk.settings, desk.paths.cache)
    return checkpoints.resolve(desk.settings.recipe.model, desk.paths.cache)


def _judge(desk: Desk, name: str, scratch: Path) -> Outcome:
    try:
        if name in baselines.CLASSIC:
            train, validation = desk.corpus.frame("train"), desk.corpus.frame("validation")
            return baselines.judge_classic(name, train, validation, desk.goal, len(desk.corpus.label_names))
        if name == "ready_made":
            found = _weights_of(desk, name)
            return baselines.judge_ready_made(desk.settings, found, desk.corpus.frame("validation"), desk.goal)
        checkpoint, lesson = desk.lesson(desk.settings.recipe.model)
        return baselines.judge_untuned(desk.settings.recipe, checkpoint, lesson, desk.goal, scratch)
    except Exception as error:  # a baseline that cannot be judged is said to have failed
        return Outcome(State.FAIL, reason=failure_reason(error))
