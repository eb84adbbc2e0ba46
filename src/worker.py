"""What one worker does: take a trial, train it, record it, tell it; then the baselines that nobody has done."""

import json
import shlex
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from src import config
from src.evidence import environment
from src.evidence.runs import Run
from src.evidence.store import Store, open_store
from src.learning import baselines, checkpoints, devices, names
from src.learning.checkpoints import Checkpoint
from src.learning.finetune import Goal, Lesson, calibrate, failure_reason, fine_tune
from src.paths import Paths
from src.records import Calibration, Evaluation, Outcome, Point, State, TrialRecord
from src.search import space as spaces
from src.search import stopping
from src.search.study import Book, Claim
from src.settings import ModelSettings, Recipe, Settings
from src.text import corpus as corpora
from src.text import tokens

BUDGET_LOOK_SECONDS = 2.0  # how often a training looks at the study's budget


class Desk:
    """What a worker keeps from trial to trial: the data, tokenised once per model, and where records go."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.corpus = corpora.prepare(settings.data, paths.cache)
        metric, asked = settings.study.metric, settings.study.direction
        self.goal = Goal(metric, names.direction_of(metric, asked, len(self.corpus.label_names)), settings.study.rungs)
        self._lessons: dict[tuple[str, int], tuple[Checkpoint, Lesson]] = {}

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings.tracking, self.paths.root)

    def lesson(self, model: ModelSettings) -> tuple[Checkpoint, Lesson]:
        """The checkpoint and the data as its tokenizer cuts them."""
        key = (model.checkpoint, model.max_tokens)
        if key not in self._lessons:
            found = checkpoints.resolve(model, self.paths.cache)
            tokenizer = checkpoints.load_tokenizer(found)
            train, validation = (
                tokens.tokenised(self.corpus, split, tokenizer, model.max_tokens, self.paths.cache)
                for split in ("train", "validation")
            )
            self._lessons[key] = found, Lesson(train, validation, tokenizer, self.corpus.label_names)
        return self._lessons[key]

    def facts(self, settings: Settings) -> dict[str, str]:
        """Tags that every run carries."""
        data = {f"data.fingerprint.{split}": print_ for split, print_ in self.corpus.fingerprints.items()}
        commit = environment.git_commit()
        return {
            "study": settings.study.name,
            "data": settings.data.name,
            "data.fingerprint": self.corpus.fingerprint,
            **data,
            "machine": environment.machine(),
            "mlflow.source.name": "trialbook",
            **({"mlflow.source.git.commit": commit} if commit else {}),
        }


class TrainingRun:
    """Watches one training: its curves and evaluations go to its run, its scores to whoever judges them."""

    def __init__(self, run: Run, store: Store) -> None:
        self.run, self.store = run, store

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        self.run.metrics(step, values)

    def evaluated(self, evaluation: Evaluation) -> str | None:
        """Record the evaluation and send everything so far: one batched write."""
        values = {f"validation/{name}": value for name, value in evaluation.metrics.items()}
        self.run.metrics(evaluation.step, {**values, "train/examples": float(evaluation.examples)})
        self.run.deliver(self.store)
        return None

    def stop_reason(self) -> str | None:
        return None


class TrialRun(TrainingRun):
    """A training that is a trial: the pruner hears its scores, and the study's budget may end it."""

    def __init__(self, run: Run, store: Store, book: Book, claim: Claim) -> None:
        super().__init__(run, store)
        self.book, self.claim = book, claim
        self._looked = time.monotonic()

    def evaluated(self, evaluation: Evaluation) -> str | None:
        super().evaluated(evaluation)
        return self.book.report(self.claim, evaluation)

    def stop_reason(self) -> str | None:
        if time.monotonic() - self._looked < BUDGET_LOOK_SECONDS:
            return None
        self._looked = time.monotonic()
        if stopping.over_budget(self.book.rules, self.book.spent()):
            return f"the study's budget of {self.book.rules.budget_minutes:g} minutes was spent"
        return None


def work(settings: Settings, index: int, of: int, paths: Paths) -> None:
    """Feed the study until there is enough. Runs in a process of its own, any number of them at once."""
    machine = devices.this_machine(bool(settings.recipe.trainer.get("use_cpu")))
    threads = devices.use_share(index, of, machine)
    desk = Desk(settings, paths)
    priced = paths.calibration(calibration_key(settings, desk.corpus.fingerprint, of)) / f"{index}.json"
    if not priced.exists():
        _write(priced, _measure(desk, priced.parent / f"scratch-{index}").to_json())
    if settings.study.plan_only:
        return
    space = spaces.parse(settings.space, base_values(settings))
    book = Book(settings, space, desk.goal.direction, paths.study(settings.study.name))
    overrides = [o for o in config.task_overrides() if not o.startswith("worker.")]
    while (claim := book.claim()) is not None:
        _run_trial(desk, book, claim, overrides, threads)
    for name in settings.study.baselines:
        _run_baseline(desk, book, name)


def base_values(settings: Settings) -> Point:
    """The config's own values by dotted key, its choices of groups included: what a space varies."""
    return {**settings.choices, **settings.recipe.flat()}


def calibration_key(settings: Settings, fingerprint: str, workers: int) -> str:
    """Changes with whatever changes the speed of a step."""
    recipe = json.dumps(settings.recipe.flat(), sort_keys=True, default=str)
    return corpora.content_key(recipe, fingerprint, str(workers), environment.machine())


def trial_run(book: Book, number: int) -> Run:
    """The run that mirrors trial `number`, a child of the study's run."""
    parent = (book.folder / "run" / "run_id").read_text()
    uid = book.study.user_attrs["uid"]
    return Run(book.trial_folder(number) / "run", f"{uid}/trial/{number}", f"trial-{number:04d}", parent)


def baseline_run(book: Book, name: str) -> Run:
    parent = (book.folder / "run" / "run_id").read_text()
    uid = book.study.user_attrs["uid"]
    return Run(book.folder / "baselines" / name, f"{uid}/baseline/{name}", f"baseline-{name}", parent)


def baseline_outcomes(book: Book) -> dict[str, Outcome]:
    """The baselines that are done, in the study's order."""
    files = {name: book.folder / "baselines" / name / "outcome.json" for name in book.rules.baselines}
    return {name: Outcome.from_json(file.read_text()) for name, file in files.items() if file.exists()}


def describe_training(run: Run, settings: Settings, first: Sequence[str], overrides: Sequence[str]) -> None:
    """Params (the keys in `first` first), the whole config, versions, the command that repeats the training."""
    flat = {k: v for k, v in settings.recipe.flat().items() if v is not None}
    choices = {key: settings.choices[key] for key in first if key in settings.choices}
    run.params({**choices, **{k: flat[k] for k in first if k in flat}, **flat, "data.name": settings.data.name})
    command = shlex.join(["python", "-m", "src.train", *overrides])
    run.tags({"command": command, "launched.by": environment.command_line()})
    run.text("config.yaml", settings.yaml)
    run.text("environment.json", json.dumps(environment.versions(), indent=1))


def record_outcome(run: Run, outcome: Outcome | TrialRecord) -> None:
    """The end of a run: its numbers beside its score, its state and reason, its MLflow status."""
    numbers = {"model/megabytes": outcome.megabytes, "model/ms_per_1000_texts": outcome.ms_per_1000_texts,
               "score": outcome.score, "share_of_schedule": outcome.share, "seconds": outcome.seconds}  # fmt: skip
    run.metrics(0, {k: v for k, v in numbers.items() if v is not None})
    run.tags({"trial.state": outcome.state, "trial.reason": outcome.reason})
    run.status(State(outcome.state))


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
    sign = -1.0 if book.direction == "maximize" else 1.0
    with book.lock:
        ended = book.ended()
        done = [t for t in ended if t.state == State.COMPLETE and t.score is not None]
        ranked = sorted(done, key=lambda t: (sign * (t.score or 0.0), t.number))
        kept = {t.number for t in ranked[: book.rules.keep_checkpoints]}
        for trial in ended:
            if trial.number not in kept:
                shutil.rmtree(book.trial_folder(trial.number) / "training", ignore_errors=True)


def _run_trial(desk: Desk, book: Book, claim: Claim, overrides: Sequence[str], threads: int) -> None:
    run = trial_run(book, claim.number)
    point = config.as_overrides(claim.point)
    settings = config.compose([*overrides, *point])
    run.status(State.RUNNING)
    run.tags({**desk.facts(settings), "kind": "trial", "trial.number": claim.number, "trial.state": State.RUNNING,
              "trial.origin": claim.origin, "threads": threads})  # fmt: skip
    if claim.starts == 1:
        describe_training(run, settings, list(claim.point), [*overrides, *point])
    if run.deliver(desk.store):
        book.note_run(claim, run.run_id(desk.store))
    folder = claim.folder / "training"
    outcome = attempt_training(settings.recipe, desk, TrialRun(run, desk.store, book, claim), folder)
    book.tell(claim.number, outcome)
    record_outcome(run, outcome)
    run.deliver(desk.store)
    keep_best_checkpoints(book)


def _run_baseline(desk: Desk, book: Book, name: str) -> None:
    """Judge the baseline `name` if no other worker does or did."""
    run = baseline_run(book, name)
    file = run.folder / "outcome.json"
    try:
        with FileLock(run.folder / "lock", blocking=False):
            if file.exists():
                return
            run.status(State.RUNNING)
            run.tags({**desk.facts(desk.settings), "kind": "baseline", "baseline": name})
            outcome = _judge(desk, name, run.folder / "scratch")
            run.params({"baseline": name, "data.name": desk.settings.data.name})
            run.metrics(0, {f"validation/{k}": v for k, v in outcome.metrics.items()})
            record_outcome(run, outcome)
            _write(file, outcome.to_json())
            run.deliver(desk.store)
    except Timeout:
        return


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
    scratch = file.with_name(file.name + ".part")
    scratch.write_text(content)
    scratch.replace(file)
