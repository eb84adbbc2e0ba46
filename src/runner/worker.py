"""What one worker of a study does: take a trial, train it, record it, tell it; then the baselines nobody has done."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from src import config, drain, mirror
from src.errors import BookLost
from src.evidence.runs import Run
from src.evidence.store import Store
from src.learning import baselines, checkpoints, devices, ready_made
from src.learning.checkpoints import Checkpoint
from src.learning.finetune import failure_reason
from src.paths import Paths, write_whole
from src.records import Evaluation, Outcome, Point, State, Stop
from src.runner.desk import Desk, TrainingRun, attempt_training, measure_once
from src.runner.timesheet import Sheet
from src.search import leases, life, stopping
from src.search import space as spaces
from src.search.life import Claim
from src.search.study import DEFAULT_RECIPE, Book
from src.settings import Settings

BUDGET_LOOK_SECONDS = 2.0  # how often a training looks at the study's budget
WAIT_SECONDS = 0.3  # between two looks for a trial that another worker may let go on


class TrialRun(TrainingRun):
    """A training that is a trial: the study hears its scores, and its budget or a signal may end it."""

    def __init__(self, run: Run, store: Store, book: Book, claim: Claim) -> None:
        super().__init__(run, store)
        self.book, self.claim = book, claim
        self._looked = time.monotonic()

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        super().evaluated(evaluation)
        return life.report(self.book, self.claim, evaluation)

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
    machine = devices.this_machine(bool(settings.recipe.trainer.get("use_cpu")))
    threads = devices.use_share(index, of, machine)
    desk = Desk(settings, paths)
    measure_once(desk, index, of)
    if settings.study.plan_only:
        return
    try:
        with life.kept():
            _feed(desk, index, devices.default_alone(machine, of, settings.study.n_trials), threads, machine.cores)
    except BookLost as lost:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(
            f"worker {index} ends: the study's records cannot be kept ({lost}). Its trial keeps its last checkpoint; "
            "once there is room, or the database is back, the same command continues it.",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


def _feed(desk: Desk, index: int, default_alone: bool, threads: int, cores: int) -> None:
    """Trials one after another, then the baselines that nobody has judged."""
    settings = desk.settings
    space = spaces.parse(settings.space, base_values(settings))
    book = Book(settings, space, desk.goal.direction, desk.paths.study(settings.study.name))
    overrides = [o for o in config.task_overrides() if not o.startswith("worker.")]
    sheet = Sheet(book.folder, index)
    while not drain.asked():
        if (claim := life.claim(book, default_alone)) is not None:
            whole = default_alone and claim.origin == DEFAULT_RECIPE
            used = devices.use_threads(cores if whole else threads)
            with sheet.busy(f"trial {claim.number}") as ended:
                ended.append(_run_trial(desk, book, claim, overrides, used))
        elif default_alone and life.default_in_work(book):
            time.sleep(WAIT_SECONDS)
        elif _one_baseline(desk, book, sheet):
            continue
        elif life.more_may_come(book):
            time.sleep(WAIT_SECONDS)
        else:
            return


def base_values(settings: Settings) -> Point:
    """The config's own values by dotted key, its choices of groups included: what a space varies."""
    return {**settings.choices, **settings.recipe.flat()}


def baseline_outcomes(book: Book) -> dict[str, Outcome]:
    """The baselines that are done, in the study's order."""
    files = {name: book.folder / "baselines" / name / "outcome.json" for name in book.rules.baselines}
    return {name: Outcome.from_json(file.read_text()) for name, file in files.items() if file.exists()}


def keep_best_checkpoints(book: Book) -> None:
    """Delete the weights of all ended trials but the best `study.keep_checkpoints`."""
    with book.lock:
        ended = book.ended()
        kept = {t.number for t in stopping.ranked(ended, book.direction)[: book.rules.keep_checkpoints]}
        for trial in ended:
            if trial.number not in kept:
                shutil.rmtree(book.training_folder(trial.number), ignore_errors=True)


def _run_trial(desk: Desk, book: Book, claim: Claim, overrides: Sequence[str], threads: int) -> str:
    """Train the claimed trial until it ends, pauses or is drained; then let go of it. Returns the state it is in."""
    run = mirror.trial_run(book, claim.number)
    point = config.as_overrides(claim.point)
    settings = config.compose([*overrides, *point])
    run.status(State.RUNNING)
    about = {"kind": "trial", "trial.number": claim.number, "trial.state": State.RUNNING, "trial.origin": claim.origin}
    run.tags({**mirror.facts(desk.corpus, book.name), **about, "threads": threads})
    if not run.described:
        mirror.describe_training(run, settings, list(claim.point), [*overrides, *point])
    if run.deliver(desk.store):
        life.note_run(claim, run.run_id(desk.store))
    folder = book.training_folder(claim.number)
    with leases.kept(book.lease(claim.number)):
        outcome = attempt_training(settings.recipe, desk, TrialRun(run, desk.store, book, claim), folder)
    if outcome.state != State.PAUSED:
        life.tell(book, claim.number, outcome)
        mirror.record_outcome(run, outcome)
        keep_best_checkpoints(book)
    else:
        mirror.record_outcome(run, outcome)
        if outcome.reason == drain.REASON:
            life.release(book, claim)
        else:
            life.pause(book, claim, outcome)
    run.deliver(desk.store)
    return outcome.state


def _one_baseline(desk: Desk, book: Book, sheet: Sheet) -> bool:
    """Judge a baseline that is neither done nor in another worker's hands; False if there is none."""
    done = baseline_outcomes(book)
    for name in book.rules.baselines:
        run = mirror.baseline_run(book, name)
        try:
            with FileLock(run.folder / "lock", blocking=False):
                if name not in done and not (run.folder / "outcome.json").exists():
                    with sheet.busy(f"baseline {name}"):
                        _run_baseline(desk, book, name, run)
                    return True
        except Timeout:
            continue
    return False


def _run_baseline(desk: Desk, book: Book, name: str, run: Run) -> None:
    run.status(State.RUNNING)
    run.tags({**mirror.facts(desk.corpus, book.name), "kind": "baseline", "baseline": name})
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
            return baselines.judge_classic(name, desk.corpus.frame("train"), desk.corpus.frame("validation"), desk.goal)
        if name == "ready_made":
            found = _weights_of(desk, name)
            return baselines.judge_ready_made(desk.settings, found, desk.corpus.frame("validation"), desk.goal)
        checkpoint, lesson = desk.lesson(desk.settings.recipe.model)
        return baselines.judge_untuned(desk.settings.recipe, checkpoint, lesson, desk.goal, scratch)
    except Exception as error:  # a baseline that cannot be judged is said to have failed
        return Outcome(State.FAIL, reason=failure_reason(error))
