"""The trainings of a comparison: a recipe from a fresh seed, and the winner's refits on train + validation."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from src.comparison import contenders
from src.comparison.contenders import Contenders, SeedRun
from src.comparison.forms import average_dir
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import SOFT_LABELS_FILE
from src.config.settings import Settings
from src.core import shutdown
from src.core.paths import atomic_write
from src.core.records import State, StopDecision, TrainingResult
from src.tracking import recorders, run_tree
from src.tracking.run_log import RunLog
from src.training import checkpoints
from src.training.callbacks import Objective, TrainingCallback, refit_objective
from src.verdict.records import REFIT, STUDENT
from src.workers.context import TrackingCallback, WorkerContext, attempt_training, train_within_memory
from src.workers.model_speed import speed_lock, train_and_measure


class SeedRunCallback(TrackingCallback):
    """A training outside the search: only a signal ends it early."""

    def should_stop(self, step: int) -> StopDecision | None:
        """After a signal."""
        super().should_stop(step)
        return _pause_if_requested()


class UntrackedCallback(TrainingCallback):
    """A training whose record is complete already; a signal ends it early."""

    def should_stop(self, step: int) -> StopDecision | None:  # noqa: ARG002
        """After a signal."""
        return _pause_if_requested()


def _pause_if_requested() -> StopDecision | None:
    """A decision to pause, if a signal has asked this process to stop."""
    return StopDecision(State.PAUSED, shutdown.REASON) if shutdown.requested() else None


def train(context: WorkerContext, saved: SavedStudy, seed_run: SeedRun, worker_tags: Mapping[str, int]) -> None:
    """Train a seed run or a refit, and record it. `worker_tags`: say on the run which worker trained it."""
    settings = seed_run.contender.settings(seed_run.seed)
    objective = _objective(context, saved, seed_run)
    run = _start_run(context, saved, seed_run, settings, objective)
    run.set_tags(worker_tags)
    run.set_status(State.RUNNING)
    run.send_to(context.store)
    lock, folder = speed_lock(context), seed_run.training_dir
    callback = SeedRunCallback(run, context.store, lock)
    train = partial(attempt_training, settings.recipe, context, callback, folder, objective)
    is_seed_run = objective.refit_share is None  # the speed of refits and students is that of their recipe
    result = train_and_measure(context, folder, lock, train, measures=is_seed_run)
    recorders.record_result(run, result)
    if result.state != State.PAUSED:
        atomic_write(seed_run.folder / "outcome.json", result.to_json())
        checkpoints.delete_checkpoints(seed_run.training_dir)
    run.send_to(context.store)


def train_again(context: WorkerContext, saved: SavedStudy, seed_run: SeedRun) -> bool:
    """Train weights again that an earlier comparison has deleted. Returns False if it was stopped by a signal.

    The same seed gives the same weights if nothing else has changed; if something has, the new result counts.
    """
    scratch = seed_run.folder / "again"
    recipe = seed_run.contender.settings(seed_run.seed).recipe
    objective = _objective(context, saved, seed_run)
    result = train_within_memory(recipe, context, UntrackedCallback(), scratch, objective=objective)
    if result.state == State.PAUSED:
        return False
    before = seed_run.result()
    if before is None or (before.score, dict(before.metrics)) != (result.score, dict(result.metrics)):
        atomic_write(seed_run.folder / "outcome.json", result.to_json())
    checkpoints.delete_checkpoints(scratch)
    scratch.rename(seed_run.training_dir)
    return True


def _objective(context: WorkerContext, saved: SavedStudy, seed_run: SeedRun) -> Objective:
    """Of a refit or a student: the share of the schedule at which the seed run of the same seed was kept."""
    form = seed_run.contender.form
    if form not in (REFIT, STUDENT):
        return context.objective
    folder = contenders.seed_run_dir(seed_run.contender.recipe_key, seed_run.seed, saved.comparison_dir)
    judged = SeedRun(seed_run.contender, seed_run.seed, folder).result()
    objective = refit_objective(context.objective, judged or TrainingResult(State.COMPLETE))
    if form == REFIT:
        return objective
    comparison = Contenders.read(saved.comparison_dir)
    folder = average_dir(seed_run.contender.key, comparison.seeds, saved.comparison_dir)
    return replace(objective, soft_labels=folder / SOFT_LABELS_FILE, trains_on_validation=REFIT in comparison.forms)


def _start_run(
    context: WorkerContext, saved: SavedStudy, seed_run: SeedRun, settings: Settings, objective: Objective
) -> RunLog:
    contender = seed_run.contender
    run = run_tree.seed_run(saved.study, saved.comparison_dir, contender.key, contender.name, seed_run.seed)
    tags = {"kind": "repeat", "contender": contender.name, "contender.key": contender.key}
    if objective.refit_share is not None:
        splits = ["train", *(["validation"] if objective.trains_on_validation else [])]
        tags |= {"kind": contender.form, "refit.share": f"{objective.refit_share:g}"}
        tags |= {"trained.on": " + ".join([*splits, *(["unlabelled texts"] if objective.soft_labels else [])])}
    if objective.soft_labels is not None:
        tags |= {"soft.labels": str(objective.soft_labels.relative_to(saved.paths.root))}
    run.set_tags({**recorders.common_tags(context.dataset, saved.name), **tags})
    if not run.has_params:
        searched = [p.key for p in saved.study.space.parameters]
        recorders.record_training_config(run, settings, searched, settings.overrides)
    return run
