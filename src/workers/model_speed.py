"""Measures how fast a trial's model answers, while the trainings of the other workers on this machine wait."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout

from src.core.messages import notify
from src.core.records import State, TrainingResult
from src.core.texts import texts_of
from src.training import devices, inference
from src.training.pretrained import BEST_DIR
from src.training.trainer import failure_reason
from src.workers.context import WorkerContext

MEASURED_TEXTS = 100  # of validation
REPEATS = 5  # the least of which counts
LOOK_SECONDS = 0.25  # how often a training looks whether another worker measures
LONGEST_WAIT_SECONDS = 900.0  # for the other workers' current step or evaluation


class SpeedLock:
    """Lets one worker of a machine measure, while the trainings of the others wait between two steps.

    A training holds a lock that trainings share; who measures waits until nobody holds it. A second lock says that
    somebody is about to measure: trainings let go then, and go on after it. The operating system releases both when a
    process dies. `folder`: that all workers on this machine see.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._shared = ReadWriteLock(folder / f"{platform.node()}.db", is_singleton=False)
        self._announced = FileLock(folder / f"{platform.node()}.lock")
        self._looked = 0.0  # when it last looked whether another worker measures
        self.waited_seconds = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """A training, which measurements wait for. Call `wait_while_measured` after each of its steps."""
        self._shared.acquire_read()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # it was interrupted while it waited, without a lock
                self._shared.release()

    def wait_while_measured(self) -> None:
        """Let another worker measure, if it is about to."""
        began = time.monotonic()
        if began - self._looked < LOOK_SECONDS:
            return
        self._looked = began
        try:
            self._announced.acquire(blocking=False)
        except Timeout:
            self._shared.release()
            with self._announced:
                self._shared.acquire_read()
            self.waited_seconds += time.monotonic() - began
        else:
            self._announced.release()

    @contextmanager
    def measuring(self) -> Iterator[bool]:
        """A measurement. The value is False if another worker did not stop in time."""
        with self._announced:
            try:
                self._shared.acquire_write(LONGEST_WAIT_SECONDS)
            except Timeout:
                yield False
                return
            try:
                yield True
            finally:
                self._shared.release()


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
