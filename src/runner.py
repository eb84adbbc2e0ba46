"""The order of things in the launching process: check, plan, launch, account, deliver."""

import time
from collections.abc import Callable

from src import closing, mirror, worker
from src.errors import Refusal, StudyEnded
from src.evidence.runs import Run
from src.evidence.store import Store, open_store
from src.learning import arguments, checkpoints, devices, resume
from src.paths import Paths
from src.plan import Plan, calibrations, facts, machine_for, say_price
from src.records import Outcome, State, TrialRecord
from src.search.account import Account
from src.search.study import Book
from src.settings import Settings
from src.watch import Watch

Launch = Callable[[int], None]  # start so many workers on the study, and return when they have ended


def search(plan: Plan, launch: Launch) -> None:
    """Run the study, or what is left of it. Raises StudyEnded when it cannot usefully go on."""
    settings = plan.settings
    account = Account(settings)
    begun = plan.begun()
    ended = len(begun.ended()) if begun else 0
    account.plan(plan.space, plan.workers, facts(plan), ended)
    for warning in plan.warnings:
        account.say(f"  note: {warning}")
    if settings.study.plan_only:
        if len(calibrations(plan)) < plan.workers:
            launch(plan.workers)
        say_price(plan, account, ended)
        account.say("  study.plan_only=true: nothing was trained.")
        return
    store = open_store(settings.tracking, plan.paths.root)
    book = plan.book()
    book.create(plan.definition)
    run = _study_run(plan, book, store)
    if not (book.enough() and not book.unfinished() and _baselines_done(book)):
        try:
            with Watch(plan, book, run, store, account):
                launch(plan.workers)
        except KeyboardInterrupt:
            run.tags({"study.state": "INTERRUPTED"})
            run.status(State.PAUSED)
            run.deliver(store, patient=True)
            raise
    closing.close(plan, book, run, store, account)


def train(settings: Settings, paths: Paths) -> None:
    """One tracked run of one configuration, outside any study."""
    arguments.check(settings.recipe)
    machine = machine_for(settings)
    checkpoints.resolve(settings.recipe.model, paths.cache)
    desk = worker.Desk(settings, paths, open_store(settings.tracking, paths.root))
    devices.use_share(0, 1, machine)
    account = Account(settings)
    folder = paths.training(f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{time.monotonic_ns() % 10**6:06d}")
    run = Run(folder / "run", f"train/{folder.name}", f"train-{settings.data.name}-{settings.recipe.model.name}")
    run.status(State.RUNNING)
    run.tags({**mirror.facts(desk.corpus, ""), "kind": "train"})
    mirror.describe_training(run, settings, [], settings.overrides)
    run.deliver(desk.store)
    account.say(f"Training {settings.recipe.model.checkpoint} on {settings.data.name}: {desk.corpus.sizes}")
    watcher = worker.TrainingRun(run, desk.store)
    try:
        outcome = worker.attempt_training(settings.recipe, desk, watcher, folder / "training")
    except KeyboardInterrupt:
        outcome = Outcome(State.PRUNED, reason="stopped by hand")
    resume.drop(folder / "training")
    mirror.record_outcome(run, outcome)
    run.deliver(desk.store)
    if outcome.state == State.PRUNED:
        raise StudyEnded("Stopped. Its curves are on the run; the same command begins a new training.")
    if outcome.state == State.FAIL:
        raise StudyEnded(f"The training failed: {outcome.reason} (its traceback is on the run, error.txt).")
    uri = closing.deliver_model(desk.store, run, folder / "training", desk.corpus)
    account.result([_as_trial(outcome)], {}, desk.goal.direction)
    account.say(f"\n  MLflow run  {run.run_id(desk.store)}\n  model       {uri}\n  {closing.how_to_load(uri)}")


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
    if not run.deliver(store, patient=True):
        raise Refusal(f"The MLflow store at {store.address} does not take records: {run.problem}")
    mirror.experiment_file(book.folder).write_text(store.experiment_id)
    return run


def _baselines_done(book: Book) -> bool:
    return set(worker.baseline_outcomes(book)) == set(book.rules.baselines)


def _as_trial(outcome: Outcome) -> TrialRecord:
    return TrialRecord(0, outcome.state, {}, outcome.score, metrics=outcome.metrics, megabytes=outcome.megabytes,
                       ms_per_1000_texts=outcome.ms_per_1000_texts)  # fmt: skip
