"""The one place that knows the order: check, prepare, plan, launch, account, deliver."""

import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src import config, mirror, worker
from src.errors import Refusal, StudyEnded
from src.evidence import delivered
from src.evidence.runs import Run
from src.evidence.store import Store, open_store
from src.learning import arguments, checkpoints, devices, names
from src.learning.checkpoints import Checkpoint
from src.paths import Paths
from src.records import Calibration, State, TrialRecord
from src.search import lint, stopping
from src.search import space as spaces
from src.search.account import Account
from src.search.space import Space
from src.search.study import Book, definition
from src.settings import Settings
from src.text import corpus as corpora
from src.text.corpus import Corpus

Launch = Callable[[int], None]  # start so many workers on the study, and return when they have ended
LOOK_SECONDS = 0.5  # how often the launching process looks at its study


@dataclass(frozen=True)
class Plan:
    """A study that has passed every check, and nothing spent on it yet."""

    settings: Settings
    paths: Paths
    space: Space
    direction: str
    corpus: Corpus
    checkpoint: Checkpoint
    workers: int
    warnings: tuple[str, ...]

    @property
    def definition(self) -> dict[str, Any]:
        return definition(self.settings, self.space, self.corpus.fingerprint, self.checkpoint.fingerprint)

    @property
    def folder(self) -> Path:
        return self.paths.study(self.settings.study.name)

    def book(self) -> Book:
        return Book(self.settings, self.space, self.direction, self.folder)


def check(settings: Settings, paths: Paths) -> Plan:
    """Everything that can be refused is refused here, cheapest first. Writes caches, but no study and no run."""
    arguments.check(settings.recipe)
    space = spaces.parse(settings.space, worker.base_values(settings))
    warnings = lint.check(settings, space, config.group_options())
    machine = _machine(settings)
    checkpoint = checkpoints.resolve(settings.recipe.model, paths.cache)
    corpus = corpora.prepare(settings.data, paths.cache)
    study = settings.study
    direction = names.direction_of(study.metric, study.direction, len(corpus.label_names))
    workers = settings.workers or devices.workers_that_pay(machine, study.n_trials)
    plan = Plan(settings, paths, space, direction, corpus, checkpoint, workers, tuple(warnings))
    if plan.folder.exists():
        plan.book().existing(plan.definition)
    return plan


def refuse_shared_names(plans: Sequence[Plan]) -> None:
    """Several studies in one command need a name each."""
    for name, n in Counter(plan.settings.study.name for plan in plans).items():
        if n > 1:
            raise Refusal(
                f"{n} of the studies on the command line are called {name}; let study.name say what differs, for "
                "example study.name='${data.name}-${model.name}-${seed}'."
            )


def search(plan: Plan, launch: Launch) -> None:
    """Run the study, or what is left of it. Raises StudyEnded when it cannot usefully go on."""
    settings = plan.settings
    account = Account(settings)
    ended = len(plan.book().ended()) if plan.folder.exists() else 0
    account.plan(plan.space, plan.workers, _facts(plan), ended)
    for warning in plan.warnings:
        account.say(f"  note: {warning}")
    if settings.study.plan_only:
        if len(_calibrations(plan)) < plan.workers:
            launch(plan.workers)
        _say_price(plan, account, ended)
        account.say("  study.plan_only=true: nothing was trained.")
        return
    store = open_store(settings.tracking, plan.paths.root)
    book = plan.book()
    book.create(plan.definition)
    run = _study_run(plan, book, store)
    if not (book.enough() and not book.unfinished() and _baselines_done(book)):
        with _Watch(plan, book, run, store, account):
            launch(plan.workers)
    _finish(plan, book, run, store, account)


def train(settings: Settings, paths: Paths) -> None:
    """One tracked run of one configuration, outside any study."""
    arguments.check(settings.recipe)
    machine = _machine(settings)
    checkpoints.resolve(settings.recipe.model, paths.cache)
    desk = worker.Desk(settings, paths)
    devices.use_share(0, 1, machine)
    account = Account(settings)
    folder = paths.training(f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{time.monotonic_ns() % 10**6:06d}")
    run = Run(folder / "run", f"train/{folder.name}", f"train-{settings.data.name}-{settings.recipe.model.name}")
    run.status(State.RUNNING)
    run.tags({**mirror.facts(desk.corpus, ""), "kind": "train"})
    mirror.describe_training(run, settings, [], settings.overrides)
    run.deliver(desk.store)
    account.say(f"Training {settings.recipe.model.checkpoint} on {settings.data.name}: {desk.corpus.sizes}")
    outcome = worker.attempt_training(settings.recipe, desk, worker.TrainingRun(run, desk.store), folder / "training")
    mirror.record_outcome(run, outcome)
    run.deliver(desk.store)
    if outcome.state == State.FAIL:
        raise StudyEnded(f"The training failed: {outcome.reason} (its traceback is on the run, error.txt).")
    uri = _deliver_model(desk.store, run, folder / "training", desk.corpus, settings)
    account.result([_as_trial(outcome)], {}, desk.goal.direction)
    account.say(f"\n  MLflow run  {run.run_id(desk.store)}\n  model       {uri}\n  {_how_to_load(uri)}")


def _machine(settings: Settings) -> devices.Machine:
    machine = devices.this_machine(bool(settings.recipe.trainer.get("use_cpu")))
    if settings.recipe.trainer.get("require_gpu") and not machine.gpus:
        raise Refusal("trainer=gpu asks for a GPU, and torch finds none here; use trainer=cpu or trainer=auto.")
    return machine


def _facts(plan: Plan) -> dict[str, str]:
    """What the plan says of data and model."""
    sizes = ", ".join(f"{n} {split}" for split, n in plan.corpus.sizes.items() if split != "test")
    dropped = "; ".join(f"{key.replace('_', ' ')}: {n}" for key, n in plan.corpus.notes.items() if n)
    model = plan.settings.recipe.model
    sampler, pruner = (str(n["_target_"]).rsplit(".", 1)[-1] for n in (plan.settings.sampler, plan.settings.pruner))
    return {
        "data": f"{plan.corpus.name}: {sizes}; {plan.corpus.sizes['test']} test examples stay sealed",
        **({"in the data": dropped} if dropped else {}),
        "model": f"{model.checkpoint} ({plan.checkpoint.source}, {plan.checkpoint.megabytes:.0f} MB), at most "
        f"{model.max_tokens} tokens",
        "sampler, pruner": f"{sampler}, {pruner}; judged at {', '.join(f'{r:.0%}' for r in plan.settings.study.rungs)} "
        "of each schedule",
    }


def _calibrations(plan: Plan) -> list[Calibration]:
    key = worker.calibration_key(plan.settings, plan.corpus.fingerprint, plan.workers)
    files = sorted(plan.paths.calibration(key).glob("*.json"))
    return [Calibration.from_json(f.read_text()) for f in files]


def _say_price(plan: Plan, account: Account, ended: int) -> None:
    measured = _calibrations(plan)
    per_example = sum(c.seconds_per_example for c in measured) / len(measured)
    per_evaluated = sum(c.seconds_per_evaluated for c in measured) / len(measured)
    sizes, study = plan.corpus.sizes, plan.settings.study
    epochs = _mean_epochs(plan)
    one = sizes["train"] * epochs * per_example + len(study.rungs) * sizes["validation"] * per_evaluated
    left = max(0, study.n_trials - ended)
    rounds = max(left / plan.workers, 1 if left else 0)
    copies = study.keep_checkpoints + plan.workers + 1  # kept, in training, and MLflow's
    account.price(measured, one * rounds, copies * measured[0].megabytes / 1e3)


def _mean_epochs(plan: Plan) -> float:
    for parameter in plan.space.parameters:
        if parameter.key == "trainer.num_train_epochs":
            values = parameter.values() or [parameter.distribution.low, parameter.distribution.high]
            return float(sum(values) / len(values))
    return float(plan.settings.recipe.trainer.get("num_train_epochs", 3))


def _study_run(plan: Plan, book: Book, store: Store) -> Run:
    """The parent of all runs of the study."""
    study = plan.settings.study
    run = mirror.study_run(book)
    if not run.described:
        mirror.describe(run, plan.settings)
        run.params({f"space.{k}": v for k, v in plan.space.describe().items()})
        run.params({"study.metric": study.metric, "study.direction": plan.direction, "study.seed": study.seed})
    run.tags({**mirror.facts(plan.corpus, study.name), "kind": "study", "study.state": "RUNNING"})
    run.status(State.RUNNING)
    if not run.deliver(store):
        raise Refusal(f"The MLflow store at {store.uri} does not take records: {run.problem}")
    run.run_id(store)
    return run


def _baselines_done(book: Book) -> bool:
    return set(worker.baseline_outcomes(book)) == set(book.rules.baselines)


class _Watch:
    """A thread of the launching process: says what happens, keeps the parent run and the time spent up to date."""

    def __init__(self, plan: Plan, book: Book, run: Run, store: Store, account: Account) -> None:
        self.plan, self.book, self.run, self.store, self.account = plan, book, run, store, account
        self._over = threading.Event()
        self._said = {t.number for t in book.ended()}
        self._rungs = {(t.number, t.rung) for t in book.trials()}
        self._priced = False
        self._thread = threading.Thread(target=self._look_on, daemon=True, name="account")

    def __enter__(self) -> None:
        self._since = time.monotonic()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        self.book.spend(now - self._since)
        self._since = now
        if not self._priced and len(_calibrations(self.plan)) >= self.plan.workers:
            _say_price(self.plan, self.account, len(self._said))
            self._priced = True
        self._say_rungs()
        ended = self.book.ended()
        for done, trial in enumerate(ended, start=1):
            if trial.number not in self._said:
                self._said.add(trial.number)
                best = stopping.best_of(ended[:done], self.book.direction)
                self.account.trial(trial, done, best)
                self._record(done, best)

    def _say_rungs(self) -> None:
        """Where trials pause, the ends come late: say what is known on the way."""
        if not self.book.pauses:
            return
        for trial in self.book.trials():
            if trial.rung is not None and trial.rung < 100 and (trial.number, trial.rung) not in self._rungs:
                self._rungs.add((trial.number, trial.rung))
                self.account.rung(trial)

    def _record(self, done: int, best: TrialRecord | None) -> None:
        """Best so far as a curve over ended trials, and as tags; never as params, which cannot change."""
        if best is not None and best.score is not None:
            self.run.metrics(done, {"best/score": best.score})
            self.run.tags({"best.trial": best.number, "best.score": best.score, "best.run_id": best.run_id})
        self.run.deliver(self.store)


def _finish(plan: Plan, book: Book, run: Run, store: Store, account: Account) -> None:
    """Settle the records, deliver the best model, say what came of it."""
    trials, baselines = book.trials(), worker.baseline_outcomes(book)
    undelivered = _settle_runs(book, store, trials)
    worker.keep_best_checkpoints(book)
    reason = book.enough() or "its workers ended before it was done; the same command continues it"
    account.result(trials, baselines, book.direction)
    account.ending(reason, Counter(str(t.state) for t in trials), book.spent())
    best = book.best()
    if best is not None:
        uri = _deliver_best(plan, book, run, store, best)
        winner = config.as_overrides(dict(best.params))
        account.best(best, winner, _places(plan, store, run, best, uri))
    run.tags({"study.state": "ENDED" if book.enough() else "INTERRUPTED", "study.ending": reason})
    run.status(State.COMPLETE if book.enough() else State.PRUNED)
    if not run.deliver(store) or undelivered:
        account.say(f"  note: some records wait in {book.folder} for MLflow ({run.problem or undelivered}); the same "
                    "command delivers them.")  # fmt: skip
    if failing := stopping.failing(book.ended(), book.rules):
        raise StudyEnded(f"The study {book.name} ended: {failing}. Tracebacks are on the runs (error.txt).")
    if not book.enough():
        raise StudyEnded(f"The study {book.name} is not done: {reason}.")


def _settle_runs(book: Book, store: Store, trials: list[TrialRecord]) -> str | None:
    """Write the ends that a killed worker could not, and deliver what waits; the problem if it cannot be."""
    problem = None
    for trial in trials:
        if State(trial.state).final:
            run = mirror.trial_run(book, trial.number)
            if not run.ended:
                mirror.record_outcome(run, trial)
            run.deliver(store)
            problem = run.problem or problem
    for name in book.rules.baselines:
        run = mirror.baseline_run(book, name)
        run.deliver(store)
        problem = run.problem or problem
    return problem


def _deliver_best(plan: Plan, book: Book, run: Run, store: Store, best: TrialRecord) -> str:
    """Log the best trial's weights as a model, once; a model that is the best no longer is deleted."""
    file = book.folder / "delivered-model"
    number, _, uri = file.read_text().partition(" ") if file.exists() else ("", "", "")
    if number == str(best.number):
        return uri
    settings = plan.settings
    new = _deliver_model(store, mirror.trial_run(book, best.number), book.trial_folder(best.number) / "training",
                         plan.corpus, settings)  # fmt: skip
    file.write_text(f"{best.number} {new}")
    run.tags({"best.model": new})
    if uri:
        delivered.drop_model(store, uri)
    return new


def _deliver_model(store: Store, run: Run, training: Path, corpus: Corpus, settings: Settings) -> str:
    examples = corpus.frame("train")["text"].head(2).tolist()
    uri = delivered.log_model(store, run.run_id(store), training / "best", settings.recipe.model.max_tokens, examples)
    run.tags({"model.uri": uri})
    run.deliver(store)
    return uri


def _places(plan: Plan, store: Store, run: Run, best: TrialRecord, uri: str) -> Mapping[str, str]:
    experiment = f"#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
    return {
        "model": uri,
        "load it": _how_to_load(uri),
        "its run": f"{best.run_id} in {store.uri}",
        "study's run": run.run_id(store),
        "browse": f"mlflow ui    then open http://127.0.0.1:5000/{experiment}",
        "train it again": "python -m src.train "
        + shlex.join([*_of_training(plan.settings.overrides), *config.as_overrides(dict(best.params))]),
    }


def _of_training(overrides: Sequence[str]) -> list[str]:
    """The overrides that a single training reads too, without those of the search."""
    search = ("study.", "space", "~space", "+space", "sampler", "pruner", "storage", "workers", "launcher")
    return [o for o in overrides if not o.startswith(search)]


def _how_to_load(uri: str) -> str:
    return f'mlflow.transformers.load_model({uri!r})("a warm, funny film")'


def _as_trial(outcome: Any) -> TrialRecord:
    return TrialRecord(0, outcome.state, {}, outcome.score, metrics=outcome.metrics, megabytes=outcome.megabytes,
                       ms_per_1000_texts=outcome.ms_per_1000_texts)  # fmt: skip
