"""A worker of a comparison: trains recipes on fresh seeds, later predicts the opened test split."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from src.comparison import contenders, saved_study
from src.comparison.contenders import BASELINE, Contender, Contenders, SeedRun
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection
from src.config.settings import Recipe, Settings
from src.core import shutdown
from src.core.paths import Paths, atomic_write, replacing
from src.core.records import State, StopDecision
from src.data import test_split
from src.tracking import recorders, registry, run_tree
from src.tracking.run_log import RunLog
from src.training import baselines, checkpoints, devices, inference, label_mapping, pretrained
from src.training.callbacks import TrainingCallback
from src.workers.context import (
    TrackingCallback,
    WorkerContext,
    attempt_training,
    measure_speed_once,
    train_within_memory,
)


@dataclass(frozen=True)
class WorkUnit:
    """A piece of work for one worker at a time. Its folder says whether it is done."""

    folder: Path
    is_done: Callable[[], bool]
    do: Callable[[], None]

    def try_run(self) -> bool:
        """Do it, unless it is done or another worker does it. Returns whether it was done here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", blocking=False):
                if self.is_done():
                    return False
                self.do()
                return True
        except Timeout:
            return False


class SeedRunCallback(TrackingCallback):
    """A training outside the search: only a signal ends it early."""

    def should_stop(self, step: int) -> StopDecision | None:  # noqa: ARG002
        """After a signal."""
        return _pause_if_requested()


class UntrackedCallback(TrainingCallback):
    """A training whose record is complete already; a signal ends it early."""

    def should_stop(self, step: int) -> StopDecision | None:  # noqa: ARG002
        """After a signal."""
        return _pause_if_requested()


def _pause_if_requested() -> StopDecision | None:
    """A decision to pause, if a signal has asked this process to stop."""
    return StopDecision(State.PAUSED, shutdown.REASON) if shutdown.requested() else None


def run_worker(
    study: str, index: int, of: int, paths: Paths, cpus: int | None = None, measure_only: bool = False
) -> None:  # fmt: skip
    """Do what is left of a comparison: trainings on fresh seeds, or predictions on the opened test split.

    Any number of processes may do so at once.

    Args:
        study: its name.
        index: of this worker, from 0.
        of: how many workers the launching process has started.
        paths: of the folder that the command was started in.
        cpus: threads of this worker; None for its share of the machine.
        measure_only: measure the speed of training, and return.
    """
    saved = saved_study.load_study(study, paths)
    settings = saved.settings
    machine = devices.detect_machine(bool(settings.recipe.trainer.get("use_cpu")), settings.worker.devices_per_trial)
    threads = devices.set_worker_share(index, of, machine, cpus)
    context = WorkerContext(saved.settings, paths, begun_with=lambda: saved.dataset.fingerprint)
    measure_speed_once(context, index, of)
    if measure_only:
        return
    comparison = Contenders.read(saved.comparison_dir)
    selection = Selection.read(saved.comparison_dir, comparison)
    if selection is None:
        units = list(_training_units(context, saved, comparison, {"threads": threads, "worker": index}))
    else:
        units = list(_test_units(context, saved, selection))
    for unit in units:
        if shutdown.requested():
            return
        unit.try_run()


def _training_units(
    context: WorkerContext, saved: SavedStudy, comparison: Contenders, worker_tags: Mapping[str, int]
) -> Iterator[WorkUnit]:
    """A unit per recipe and seed. `worker_tags`: say on the run which worker trained it."""
    for seed_run in contenders.seed_runs(comparison, saved.comparison_dir):
        yield WorkUnit(
            seed_run.folder, partial(_has_result, seed_run), partial(_train, context, saved, seed_run, worker_tags)
        )


def _has_result(seed_run: SeedRun) -> bool:
    return seed_run.result() is not None


def _train(context: WorkerContext, saved: SavedStudy, seed_run: SeedRun, worker_tags: Mapping[str, int]) -> None:
    settings = seed_run.contender.settings(seed_run.seed)
    run = _start_run(context, saved, seed_run, settings)
    run.set_tags(worker_tags)
    run.set_status(State.RUNNING)
    run.send_to(context.store)
    result = attempt_training(settings.recipe, context, SeedRunCallback(run, context.store), seed_run.training_dir)
    recorders.record_result(run, result)
    if result.state != State.PAUSED:
        atomic_write(seed_run.folder / "outcome.json", result.to_json())
        checkpoints.delete_checkpoints(seed_run.training_dir)
    run.send_to(context.store)


def _start_run(context: WorkerContext, saved: SavedStudy, seed_run: SeedRun, settings: Settings) -> RunLog:
    contender = seed_run.contender
    run = run_tree.seed_run(saved.study, saved.comparison_dir, contender.key, contender.name, seed_run.seed)
    tags = {"kind": "repeat", "contender": contender.name, "contender.key": contender.key}
    run.set_tags({**recorders.common_tags(context.dataset, saved.name), **tags})
    if not run.has_params:
        searched = [p.key for p in saved.study.space.parameters]
        recorders.record_training_config(run, settings, searched, settings.overrides)
    return run


def _test_units(context: WorkerContext, saved: SavedStudy, selection: Selection) -> Iterator[WorkUnit]:
    """A unit for each contender that predicts the test split."""
    ledger = saved.paths.test_openings_path(saved.dataset.fingerprints["test"])
    frame = test_split.read_test_split(
        context.dataset, ledger, test_split.SplitOpening(selection.opening, selection.key)
    )
    texts = frame["text"].tolist()
    for seed_run in selection.tested_seed_runs:
        yield WorkUnit(
            seed_run.folder,
            partial(_is_answered, seed_run, selection),
            partial(_predict_with_seed_run, context, seed_run, texts),
        )
    for contender in selection.without_training:
        file = contenders.fixed_probabilities_path(contender, saved.comparison_dir)
        yield WorkUnit(file.parent, file.exists, partial(_predict_with_fixed, context, contender, frame, file))


def _is_answered(seed_run: SeedRun, selection: Selection) -> bool:
    """Whether the test split was predicted, and the weights are there if they are to be registered."""
    return seed_run.test_probabilities_path.exists() and (
        seed_run.folder != selection.registered_seed_run.folder or seed_run.weights_dir.is_dir()
    )


def _save_probabilities(file: Path, answers: np.ndarray) -> None:
    with replacing(file) as scratch, scratch.open("wb") as stream:
        np.save(stream, answers.astype(np.float32))


def _predict_with_seed_run(context: WorkerContext, seed_run: SeedRun, texts: list[str]) -> None:
    recipe = seed_run.contender.settings(seed_run.seed).recipe
    if not seed_run.weights_dir.is_dir() and not _train_again(context, seed_run, recipe):
        return
    use_cpu = bool(recipe.trainer.get("use_cpu"))
    _save_probabilities(
        seed_run.test_probabilities_path,
        inference.predict_probabilities(inference.load_classifier(seed_run.weights_dir, use_cpu), texts),
    )


def _train_again(context: WorkerContext, seed_run: SeedRun, recipe: Recipe) -> bool:
    """Train weights again that an earlier comparison has deleted. Returns False if it was stopped by a signal.

    The same seed gives the same weights if nothing else has changed; if something has, the new result counts.
    """
    scratch = seed_run.folder / "again"
    result = train_within_memory(recipe, context, UntrackedCallback(), scratch)
    if result.state == State.PAUSED:
        return False
    before = seed_run.result()
    if before is None or (before.score, dict(before.metrics)) != (result.score, dict(result.metrics)):
        atomic_write(seed_run.folder / "outcome.json", result.to_json())
    checkpoints.delete_checkpoints(scratch)
    scratch.rename(seed_run.training_dir)
    return True


def _predict_with_fixed(context: WorkerContext, contender: Contender, frame: pd.DataFrame, file: Path) -> None:
    """Predict with a baseline, or with the champion as it is registered."""
    names = context.dataset.label_names
    if contender.kind == BASELINE and contender.name in baselines.CLASSIC:
        train = context.dataset.frame("train")
        _save_probabilities(file, baselines.predict_classic(contender.name, train, frame["text"], len(names)))
        return
    if contender.name == "ready_made":
        ready_made = label_mapping.check_ready_made(context.settings, names, context.paths.cache_dir)
        _save_probabilities(
            file, label_mapping.predict_probabilities(ready_made, context.settings, names, frame["text"].tolist())
        )
        return
    if contender.kind == BASELINE:
        recipe = context.settings.recipe
        checkpoint = pretrained.resolve(recipe.model, context.paths.cache_dir)
        classifier = inference.untuned_classifier(checkpoint, recipe.model, names, recipe.seed)
    else:
        classifier = registry.load_pipeline(context.store, contender.uri)
    probabilities = inference.predict_probabilities(classifier, frame["text"].tolist())
    order = inference.label_names(classifier)
    _save_probabilities(file, probabilities[:, [order.index(name) for name in names]])
