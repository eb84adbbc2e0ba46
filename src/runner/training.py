"""One tracked run of one configuration, outside any study."""

import time
from pathlib import Path

from src import mirror
from src.errors import StudyEnded, first_line
from src.evidence.runs import Run
from src.evidence.store import open_store
from src.learning import arguments, checkpoints, devices, resume
from src.paths import Paths, check_writable
from src.records import Outcome, State, TrialRecord
from src.runner import desk as desks
from src.runner import inspecting
from src.runner.plan import machine_for
from src.search.account import Account
from src.settings import Settings


def train(settings: Settings, paths: Paths) -> None:
    """One tracked run of one configuration, outside any study."""
    arguments.check(settings.recipe, settings.worker.devices_per_trial)
    machine = machine_for(settings)
    check_writable(paths.root)
    checkpoints.resolve(settings.recipe.model, paths.cache)
    desk = desks.Desk(settings, paths, open_store(settings.tracking, paths.root))
    threads = devices.use_share(0, 1, machine)
    account = Account(settings)
    folder = paths.training(f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{time.monotonic_ns() % 10**6:06d}")
    run = Run(folder / "run", f"train/{folder.name}", f"train-{settings.data.name}-{settings.recipe.model.name}")
    run.status(State.RUNNING)
    run.tags({**mirror.facts(desk.corpus, ""), "kind": "train", "threads": threads})
    mirror.describe_training(run, settings, [], settings.overrides)
    run.deliver(desk.store)
    account.say(f"Training {settings.recipe.model.checkpoint} on {settings.data.name}: {desk.corpus.sizes}")
    watcher = desks.TrainingRun(run, desk.store)
    try:
        outcome = desks.attempt_training(settings.recipe, desk, watcher, folder / "training")
    except KeyboardInterrupt:
        outcome = Outcome(State.PRUNED, reason="stopped by hand")
    resume.drop(folder / "training")
    mirror.record_outcome(run, outcome)
    run.deliver(desk.store)
    if outcome.state == State.PRUNED:
        raise StudyEnded("Stopped. Its curves are on the run; the same command begins a new training.")
    if outcome.state == State.FAIL:
        raise StudyEnded(f"The training failed: {outcome.reason} (its traceback is on the run, error.txt).")
    uri = mirror.deliver_model(desk.store, run, folder / "training")
    if settings.study.report and (problem := _inspected(settings, folder / "training", desk, run)):
        account.say(f"  note: {problem}")
    account.result([_as_trial(outcome)], {}, desk.goal.direction)
    account.say(f"\n  MLflow run  {run.run_id(desk.store)}\n  model       {uri}\n  {mirror.how_to_load(uri)}")


def _inspected(settings: Settings, training: Path, desk: desks.Desk, run: Run) -> str | None:
    """Look into the weights; what went wrong, if it did: the training is done and delivered."""
    try:
        mirror.record_inspection(run, inspecting.inspect(settings, training, desk.corpus, desk.paths))
    except Exception as error:
        return f"the weights could not be looked into ({type(error).__name__}: {first_line(error)})"
    run.deliver(desk.store, patient=True)
    return run.problem


def _as_trial(outcome: Outcome) -> TrialRecord:
    return TrialRecord(0, outcome.state, {}, outcome.score, metrics=outcome.metrics, megabytes=outcome.megabytes,
                       ms_per_1000_texts=outcome.ms_per_1000_texts)  # fmt: skip
