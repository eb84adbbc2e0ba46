"""What one worker does: take a trial, train it, record it, tell it; then the baselines that nobody has done."""

import json
import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from src import config, drain, mirror
from src.evidence import environment
from src.evidence.runs import Run
from src.evidence.store import Store, tracking_uri
from src.learning import baselines, checkpoints, devices, names
from src.learning.checkpoints import Checkpoint
from src.learning.finetune import Lesson, calibrate, failure_reason, fine_tune
from src.learning.judge import Goal
from src.paths import Paths
from src.records import Calibration, Evaluation, Outcome, Point, State, Stop
from src.search import leases, life, stopping
from src.search import space as spaces
from src.search.life import Claim
from src.search.study import Book
from src.settings import ModelSettings, Recipe, Settings
from src.text import corpus as corpora
from src.text import tokens

BUDGET_LOOK_SECONDS = 2.0  # how often a training looks at the study's budget
WAIT_SECONDS = 0.3  # between two looks for a trial that another worker may let go on


class Desk:
    """What a worker keeps from trial to trial: the data, tokenised once per model, and where records go."""

    def __init__(self, settings: Settings, paths: Paths, store: Store | None = None) -> None:
        self.settings, self.paths, self._store = settings, paths, store
        self.corpus = corpora.prepare(settings.data, paths.cache)
        metric, asked = settings.study.metric, settings.study.direction
        direction = names.direction_of(metric, asked, len(self.corpus.label_names))
        self.goal = Goal(metric, direction, settings.study.rungs, settings.study.rung_examples)
        self._lessons: dict[tuple[str, int], tuple[Checkpoint, Lesson]] = {}

    @property
    def store(self) -> Store:
        """Where records go. A study's workers learn it from its folder: they start also while a server is down."""
        if self._store is None:
            uri = tracking_uri(self.settings.tracking, self.paths.root)
            self._store = Store(uri, mirror.experiment_file(self.paths.study(self.settings.study.name)).read_text())
        return self._store

    def lesson(self, model: ModelSettings) -> tuple[Checkpoint, Lesson]:
        """The checkpoint and the data as its tokenizer cuts them."""
        key = (model.checkpoint, model.max_tokens)
        if key not in self._lessons:
            found = checkpoints.resolve(model, self.paths.cache)
            tokenizer = checkpoints.load_tokenizer(found)
            tokenizer.model_max_length = model.max_tokens  # saved with the weights: served texts are cut alike
            train, validation = (
                tokens.tokenised(self.corpus, split, tokenizer, model.max_tokens, self.paths.cache)
                for split in ("train", "validation")
            )
            self._lessons[key] = found, Lesson(train, validation, tokenizer, self.corpus.label_names)
        return self._lessons[key]


class TrainingRun:
    """Watches one training: its curves and evaluations go to its run, its scores to whoever judges them."""

    def __init__(self, run: Run, store: Store) -> None:
        self.run, self.store = run, store

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        self.run.metrics(step, values)

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        """Record the evaluation and send everything so far: one batched write."""
        prefix = "validation" if evaluation.whole else "rung"
        values = {f"{prefix}/{name}": value for name, value in evaluation.metrics.items()}
        self.run.metrics(evaluation.step, {**values, "train/examples": float(evaluation.examples)})
        self.run.deliver(self.store)
        return None

    def asked_to_stop(self) -> Stop | None:
        return None


class TrialRun(TrainingRun):
    """A training that is a trial: the study hears its scores, and its budget or a signal may end it."""

    def __init__(self, run: Run, store: Store, book: Book, claim: Claim) -> None:
        super().__init__(run, store)
        self.book, self.claim = book, claim
        self._looked = time.monotonic()

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        super().evaluated(evaluation)
        return life.report(self.book, self.claim, evaluation)

    def asked_to_stop(self) -> Stop | None:
        if drain.asked():
            return Stop(State.PAUSED, drain.REASON)
        if time.monotonic() - self._looked < BUDGET_LOOK_SECONDS:
            return None
        self._looked = time.monotonic()
        if stopping.over_budget(self.book.rules, self.book.spent()):
            return Stop(State.PRUNED, f"the study's budget of {self.book.rules.budget_minutes:g} minutes was spent")
        return None


def work(settings: Settings, index: int, of: int, paths: Paths) -> None:
    """Feed the study until there is enough. Runs in a process of its own, any number of them at once."""
    machine = devices.this_machine(bool(settings.recipe.trainer.get("use_cpu")))
    threads = devices.use_share(index, of, machine)
    desk = Desk(settings, paths)
    priced = paths.calibration(calibration_key(settings, desk.corpus.fingerprint, of)) / f"{index}.json"
    if not priced.exists():
        _write(priced, _measure(desk, priced.parent / f"scratch-{os.getpid()}").to_json())
    if settings.study.plan_only:
        return
    space = spaces.parse(settings.space, base_values(settings))
    book = Book(settings, space, desk.goal.direction, paths.study(settings.study.name))
    overrides = [o for o in config.task_overrides() if not o.startswith("worker.")]
    while not drain.asked():
        if (claim := life.claim(book)) is not None:
            _run_trial(desk, book, claim, overrides, threads)
        elif _one_baseline(desk, book):
            continue
        elif life.more_may_come(book):
            time.sleep(WAIT_SECONDS)
        else:
            return


def base_values(settings: Settings) -> Point:
    """The config's own values by dotted key, its choices of groups included: what a space varies."""
    return {**settings.choices, **settings.recipe.flat()}


def calibration_key(settings: Settings, fingerprint: str, workers: int) -> str:
    """Changes with whatever changes the speed of a step."""
    recipe = json.dumps(settings.recipe.flat(), sort_keys=True, default=str)
    return corpora.content_key(recipe, fingerprint, str(workers), environment.machine())


def baseline_outcomes(book: Book) -> dict[str, Outcome]:
    """The baselines that are done, in the study's order."""
    files = {name: book.folder / "baselines" / name / "outcome.json" for name in book.rules.baselines}
    return {name: Outcome.from_json(file.read_text()) for name, file in files.items() if file.exists()}


def attempt_training(recipe: Recipe, desk: Desk, watch: TrainingRun, folder: Path) -> Outcome:
    """Train; whatever goes wrong in it is a failed outcome with its reason, and a traceback on the run."""
    try:
        checkpoint, lesson = desk.lesson(recipe.model)
        return fine_tune(recipe, checkpoint, lesson, desk.goal, watch, folder)
    except Exception as error:  # one failing trial is a failed trial, never the end of the study
        watch.run.text("error.txt", traceback.format_exc())
        return Outcome(State.FAIL, reason=failure_reason(error))


def keep_best_checkpoints(book: Book) -> None:
    """Delete the weights of all ended trials but the best `study.keep_checkpoints`."""
    with book.lock:
        ended = book.ended()
        kept = {t.number for t in stopping.ranked(ended, book.direction)[: book.rules.keep_checkpoints]}
        for trial in ended:
            if trial.number not in kept:
                shutil.rmtree(book.training_folder(trial.number), ignore_errors=True)


def _run_trial(desk: Desk, book: Book, claim: Claim, overrides: Sequence[str], threads: int) -> None:
    """Train the claimed trial until it ends, pauses or is drained; then let go of it."""
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


def _one_baseline(desk: Desk, book: Book) -> bool:
    """Judge a baseline that is neither done nor in another worker's hands; False if there is none."""
    done = baseline_outcomes(book)
    for name in book.rules.baselines:
        run = mirror.baseline_run(book, name)
        try:
            with FileLock(run.folder / "lock", blocking=False):
                if name not in done and not (run.folder / "outcome.json").exists():
                    _run_baseline(desk, book, name, run)
                    return True
        except Timeout:
            continue
    return False


def _run_baseline(desk: Desk, book: Book, name: str, run: Run) -> None:
    run.status(State.RUNNING)
    run.tags({**mirror.facts(desk.corpus, book.name), "kind": "baseline", "baseline": name})
    outcome = _judge(desk, name, run.folder / "scratch")
    if not run.described:
        mirror.describe(run, desk.settings)
        run.params({"baseline": name, "data.name": desk.settings.data.name})
    run.metrics(0, {f"validation/{k}": v for k, v in outcome.metrics.items()})
    mirror.record_outcome(run, outcome)
    _write(run.folder / "outcome.json", outcome.to_json())
    run.deliver(desk.store)


def _judge(desk: Desk, name: str, scratch: Path) -> Outcome:
    try:
        if name in baselines.CLASSIC:
            return baselines.judge_classic(name, desk.corpus.frame("train"), desk.corpus.frame("validation"), desk.goal)
        checkpoint, lesson = desk.lesson(desk.settings.recipe.model)
        return baselines.judge_untuned(desk.settings.recipe, checkpoint, lesson, desk.goal, scratch)
    except Exception as error:  # a baseline that cannot be judged is said to have failed
        return Outcome(State.FAIL, reason=failure_reason(error))


def _measure(desk: Desk, scratch: Path) -> Calibration:
    checkpoint, lesson = desk.lesson(desk.settings.recipe.model)
    return calibrate(desk.settings.recipe, checkpoint, lesson, scratch)


def _write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(content)
    scratch.replace(file)
