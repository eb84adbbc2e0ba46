"""What a worker keeps between trainings, and one training whose errors become results."""

import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from src.config.settings import ModelSettings, Recipe, Settings
from src.core.errors import InvalidInput, StorageUnavailable
from src.core.messages import notify
from src.core.paths import Paths, atomic_write
from src.core.record_files import read_record
from src.core.records import Calibration, Evaluation, State, StopDecision, TrainingResult
from src.data import dataset, tokenization
from src.tracking import recorders, run_tree
from src.tracking.run_log import RunLog
from src.tracking.store import TrackingStore, tracking_uri
from src.training import distributed, objectives, pretrained
from src.training.callbacks import Objective, TrainingCallback
from src.training.classifier_trainer import TokenizedData
from src.training.failures import (
    DISK_FULL,
    OUT_OF_MEMORY,
    failure_reason,
    free_memory,
    halve_micro_batch,
    micro_batch_size,
    reduce_micro_batch_to,
)
from src.training.pretrained import PretrainedModel
from src.workers.speed_lock import SpeedLock
from src.workers.worker_count import FIRST_TRIAL, calibration_key

MICRO_BATCH_FILE = "micro_batch"  # in a training's folder: how many examples at a time fitted


class WorkerContext:
    """The settings, data and MLflow store of a worker, kept from trial to trial."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        store: TrackingStore | None = None,
        begun_with: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.settings, self.paths, self._store = settings, paths, store
        self.dataset = dataset.prepare_dataset(settings.data, paths.cache_dir, begun_with)
        begun = begun_with()
        if begun is not None and begun != self.dataset.fingerprint:
            raise InvalidInput(
                f"The data ({settings.data.source}) have changed since the study or run began: their fingerprint was "
                f"{begun} and is {self.dataset.fingerprint}. Put the old data back."
            )
        metric, requested = settings.study.metric, settings.study.direction
        direction = objectives.resolve_direction(metric, requested, self.dataset.task)
        study = settings.study
        self.objective = Objective(
            metric, direction, study.rungs, study.rung_examples, extra_metrics=study.extra_metrics
        )
        self._tokenized_data: dict[tuple[str, int], tuple[PretrainedModel, TokenizedData]] = {}

    @property
    def store(self) -> TrackingStore:
        """The MLflow store.

        Workers of a study read the experiment's id from its folder, so they start while a server is down.
        """
        if self._store is None:
            uri = tracking_uri(self.settings.tracking, self.paths.root)
            experiment = run_tree.known_experiment(self.paths.study_dir(self.settings.study.name))
            self._store = TrackingStore(uri, experiment or "")
        return self._store

    def tokenized_data(self, model: ModelSettings) -> tuple[PretrainedModel, TokenizedData]:
        """The pretrained model and the data, tokenized for it; made once per model."""
        key = (model.checkpoint, model.max_tokens)
        if key not in self._tokenized_data:
            checkpoint = pretrained.resolve(model, self.paths.cache_dir)
            tokenizer = pretrained.load_tokenizer(checkpoint)
            tokenizer.model_max_length = model.max_tokens  # saved with the weights: served texts are cut alike
            train, validation = (
                tokenization.tokenize_split(self.dataset, split, tokenizer, model.max_tokens, self.paths.cache_dir)
                for split in ("train", "validation")
            )
            self._tokenized_data[key] = (
                checkpoint,
                TokenizedData(train, validation, tokenizer, self.dataset.task),
            )
        return self._tokenized_data[key]


class TrackingCallback(TrainingCallback):
    """Writes a training's curves and evaluations to its MLflow run. It waits while another worker measures a speed.

    `lock`: of this machine; None: nothing is measured.
    """

    def __init__(self, run: RunLog, store: TrackingStore, lock: SpeedLock | None = None) -> None:
        self.run, self.store, self._speed_lock = run, store, lock

    def on_training_begins(self, built: Mapping[str, str]) -> None:
        """Tag the run with what was built."""
        self.run.set_tags(built)

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values."""
        self.run.log_metrics(step, values)

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        """Send everything that was logged so far in one request."""
        self.run.log_metrics(evaluation.step, curve_metrics(evaluation))
        self.run.send_to(self.store)
        return None

    def should_stop(self, step: int) -> StopDecision | None:  # noqa: ARG002
        """Wait while another worker measures. The training goes on."""
        if self._speed_lock is not None:
            self._speed_lock.wait_while_measured()
        return None


def curve_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation's metrics under the names of their curves.

    validation/<name>, or rung/<name> if a part of the split was evaluated.
    """
    prefix = "validation" if evaluation.whole else "rung"
    values = {f"{prefix}/{name}": value for name, value in evaluation.metrics.items()}
    return {**values, "train/examples": float(evaluation.examples)}


def attempt_training(
    recipe: Recipe,
    context: WorkerContext,
    callback: TrackingCallback,
    folder: Path,
    objective: Objective | None = None,
) -> TrainingResult:
    """Train. An error becomes a FAIL result with its reason, and a traceback on the MLflow run.

    If the disk is full, the training's own files are deleted, so that its end can be recorded.

    Args:
        recipe: to train.
        context: of this worker.
        callback: has the MLflow run.
        folder: of checkpoints and weights.
        objective: None for that of the study.

    Raises:
        StorageUnavailable: the study's records cannot be written, which says nothing about the training.
    """
    each = context.settings.worker.devices_per_trial
    if each > 1:
        callback.run.set_tags({"devices": each})
    try:
        callback.run.set_tags(recorders.weights_tags(context.tokenized_data(recipe.model)[0]))
        return train_within_memory(
            recipe, context, callback, folder, lambda n: callback.run.set_tags({"micro_batch": n}), objective
        )
    except StorageUnavailable:
        raise
    except Exception as error:  # one failing trial is a failed trial, never the end of the study
        reason, trace = failure_reason(error), traceback.format_exc()
    if reason.startswith(DISK_FULL):
        shutil.rmtree(folder, ignore_errors=True)
    callback.run.log_text("error.txt", trace)
    return TrainingResult(State.FAIL, reason=reason)


def train_within_memory(
    recipe: Recipe,
    context: WorkerContext,
    callback: TrainingCallback,
    folder: Path,
    fits: Callable[[int], object] = lambda _: None,
    objective: Objective | None = None,
) -> TrainingResult:
    """Train; if memory runs out, start again with half the micro-batch and twice the accumulation steps.

    Args:
        recipe: to train.
        context: of this worker.
        callback: follows the training.
        folder: of its checkpoints and weights. It also holds the micro-batch that fitted, for a resumed training.
        fits: called with the new micro-batch, in examples.
        objective: None for that of the study.
    """
    objective = objective or context.objective
    each, file = context.settings.worker.devices_per_trial, folder / MICRO_BATCH_FILE
    if file.exists():
        recipe = reduce_micro_batch_to(read_record(file, int) or micro_batch_size(recipe), recipe, each)
    while True:
        try:
            checkpoint, data = context.tokenized_data(recipe.model)
            return distributed.fine_tune(each, recipe, checkpoint, data, objective, callback, folder)
        except StorageUnavailable:
            raise
        except Exception as error:
            smaller = smaller_recipe(error, recipe, context.settings)
            if smaller is None:
                raise
        shutil.rmtree(folder, ignore_errors=True)
        free_memory()
        recipe = smaller
        atomic_write(file, str(micro_batch_size(recipe)))
        fits(micro_batch_size(recipe))


def smaller_recipe(error: Exception, recipe: Recipe, settings: Settings) -> Recipe | None:
    """The recipe with half the micro-batch, if memory ran out and worker.oom_retry is set; else None."""
    retry = settings.worker.oom_retry and failure_reason(error).startswith(OUT_OF_MEMORY)
    return halve_micro_batch(recipe, settings.worker.devices_per_trial) if retry else None


def measure_speed_once(context: WorkerContext, index: int, of: int) -> None:
    """Measure the speed of the default recipe on worker `index`, unless it was measured before.

    An error is printed and does not end the worker: trials that meet it record it.
    """
    measured = _calibration_path(context, index, of)
    recipe: Recipe | None = None if measured.exists() else context.settings.recipe
    while recipe is not None:
        scratch = measured.parent / f"scratch-{os.getpid()}"
        try:
            checkpoint, data = context.tokenized_data(recipe.model)
            calibration = distributed.measure_speed(
                context.settings.worker.devices_per_trial, recipe, checkpoint, data, scratch
            )
            atomic_write(measured, calibration.to_json())
            return
        except Exception as error:
            shutil.rmtree(scratch, ignore_errors=True)
            recipe = smaller_recipe(error, recipe, context.settings)
            if recipe is None:
                notify(f"  note: worker {index} could not measure its speed: {failure_reason(error)}")
        free_memory()


def save_speed(context: WorkerContext, calibration: Calibration) -> None:
    """Save the speed of the default recipe's own trial, which estimates the cost of later studies."""
    with suppress(OSError):  # a full disk: no price is no reason to fail
        atomic_write(_calibration_path(context, 0, FIRST_TRIAL), calibration.to_json())


def _calibration_path(context: WorkerContext, index: int, of: int) -> Path:
    return (
        context.paths.calibration_dir(calibration_key(context.settings, context.dataset.fingerprint, of))
        / f"{index}.json"
    )
