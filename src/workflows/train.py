"""One tracked run of one configuration, outside any study."""

import time
from pathlib import Path

from src.config.settings import Settings
from src.console import data_summary
from src.console.output import StudyConsole
from src.core import environment, own_code
from src.core.errors import CommandFailed, InvalidInput, first_line
from src.core.paths import Paths, check_writable
from src.core.records import State, TrainingResult, TrialRecord
from src.data import dataset
from src.search import validate
from src.tracking import recorders
from src.tracking.run_log import RunLog
from src.tracking.store import open_store
from src.training import arguments, checkpoints, devices, pretrained
from src.workers import context, recipe_check
from src.workflows.sweep import weight_inspection
from src.workflows.sweep.plan import machine_for


def train(settings: Settings, paths: Paths) -> None:
    """One tracked run of one configuration, outside any study."""
    own_code.load(settings.code, paths.root)
    arguments.check_arguments(settings.recipe, settings.worker.devices_per_trial)
    machine = machine_for(settings)
    check_writable(paths.root)
    checkpoint = pretrained.resolve(settings.recipe.model, paths.cache_dir)
    prepared = dataset.prepare_dataset(settings.data, paths.cache_dir)
    validate.check_task(settings, prepared.task)
    validate.try_own_code(settings, prepared.frame("train"), len(prepared.label_names))
    InvalidInput.raise_if_any(recipe_check.find_problems([("", settings.recipe, checkpoint)], prepared.task))
    worker_context = context.WorkerContext(settings, paths, open_store(settings.tracking, paths.root))
    threads = devices.set_worker_share(0, 1, machine)
    console = StudyConsole(settings)
    folder = paths.training_dir(f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{time.monotonic_ns() % 10**6:06d}")
    run = RunLog(folder / "run", f"train/{folder.name}", f"train-{settings.data.name}-{settings.recipe.model.name}")
    run.set_status(State.RUNNING)
    run.set_tags({**recorders.common_tags(worker_context.dataset, ""), "kind": "train", "threads": threads})
    recorders.record_training_config(run, settings, [], settings.overrides)
    run.send_to(worker_context.store)
    console.print(f"Training {settings.recipe.model.checkpoint}")
    console.rows(data_summary.rows(worker_context.dataset))
    data_summary.print_labels(worker_context.dataset, console)
    for remark in (*environment.cleared_variables(), *data_summary.remarks(worker_context.dataset)):
        console.print(f"  note: {remark}")
    callback = context.TrackingCallback(run, worker_context.store)
    try:
        result = context.attempt_training(settings.recipe, worker_context, callback, folder / "training")
    except KeyboardInterrupt:
        result = TrainingResult(State.PRUNED, reason="stopped by hand")
    checkpoints.delete_checkpoints(folder / "training")
    recorders.record_result(run, result)
    run.send_to(worker_context.store)
    if result.state == State.PRUNED:
        raise CommandFailed("Stopped. Its curves are on the run; the same command begins a new training.")
    if result.state == State.FAIL:
        raise CommandFailed(f"The training failed: {result.reason} (its traceback is on the run, error.txt).")
    uri = recorders.log_best_model(worker_context.store, run, folder / "training")
    if settings.study.report and (problem := _inspect(settings, folder / "training", worker_context, run)):
        console.print(f"  note: {problem}")
    console.result([TrialRecord(0, {}, result)], {}, worker_context.objective.direction)
    console.print(f"\n  MLflow run  {run.ensure_run_id(worker_context.store)}")
    console.print(f"  model       {uri}\n  {recorders.load_snippet(uri, prepared.task)}")


def _inspect(settings: Settings, training: Path, worker_context: context.WorkerContext, run: RunLog) -> str | None:
    """Analyse the weights. Returns the problem, if any: the training is done and delivered."""
    try:
        recorders.record_inspection(
            run, weight_inspection.inspect_weights(settings, training, worker_context.dataset, worker_context.paths)
        )
    except Exception as error:
        return f"the weights could not be analysed ({type(error).__name__}: {first_line(error)})"
    run.send_to(worker_context.store, retry_now=True)
    return run.problem
