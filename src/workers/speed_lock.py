"""The lock of a machine under which one worker measures a model's speed while the other workers' trainings wait."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout

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
