"""Measures how fast a trial's model answers, while the trainings of the other workers on this machine wait."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from src.core.messages import notify
from src.core.records import State, TrainingResult
from src.core.texts import texts_of
from src.training import devices, inference
from src.training.failures import failure_reason
from src.training.pretrained import BEST_DIR
from src.workers.context import WorkerContext
from src.workers.speed_lock import SpeedLock

MEASURED_TEXTS = 100  # of validation
REPEATS = 5  # the least of which counts


def train_and_measure(
    context: WorkerContext,
    folder: Path,
    lock: SpeedLock | None,
    train: Callable[[], TrainingResult],
    measures: bool = True,
) -> TrainingResult:
    """The result of a training, with the speed of its weights.

    Args:
        context: of this worker.
        folder: of the training.
        lock: of this machine; None: nothing is measured.
        train: trains, and asks `lock` after each step.
        measures: False for a training that only waits for the measurements of others.
    """
    if lock is None:
        return train()
    with lock.training():
        result = train()
    if result.training_seconds is not None:
        result = replace(result, training_seconds=max(0.0, result.training_seconds - lock.waited_seconds))
    if result.state != State.COMPLETE or not measures:
        return result
    try:
        return measure_speed_alone(context, result, folder, lock)
    except Exception as error:  # memory that runs out, for example: one failed training, not the end of the worker
        return replace(result, state=State.FAIL, reason=f"its speed could not be measured: {failure_reason(error)}")


def speed_lock(context: WorkerContext) -> SpeedLock | None:
    """The lock of this machine, if the study needs the speed of its models; else None."""
    return SpeedLock(context.paths.speed_dir) if context.settings.study.needs_speed else None


def measure_speed_alone(
    context: WorkerContext, result: TrainingResult, folder: Path, lock: SpeedLock
) -> TrainingResult:
    """The result with the speed of its weights: the least of five times, on one processor thread or one GPU.

    Args:
        context: of this worker.
        result: of the training, which is over.
        folder: of the training.
        lock: of this machine.
    """
    use_cpu = bool(context.settings.recipe.trainer.get("use_cpu"))
    texts = texts_of(context.dataset.frame("validation"))[:MEASURED_TEXTS]
    with devices.one_thread(), lock.measuring() as is_alone:
        if not is_alone:
            notify("  note: a model's speed was measured while another worker was at work: its training did not stop.")
        classifier = inference.load_classifier(folder / BEST_DIR, use_cpu)
        # on one processor thread, its own time, which leaves out what other programs take of the processor
        clock = time.thread_time if classifier.device.type == "cpu" else time.perf_counter
        seconds = []
        for _ in range(REPEATS):
            began = clock()
            inference.predict_probabilities(classifier, texts)
            seconds.append(clock() - began)
    return replace(result, ms_per_1000_texts=min(seconds) / len(texts) * 1e6)
