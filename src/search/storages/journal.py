"""A journal file that survives kills: an incomplete last line is removed, and a dead process holds no lock."""

import os
from pathlib import Path
from typing import Any

import filelock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from src.core.paths import can_write
from src.search.storages.leases import POLL_SECONDS


class KernelLock:
    """A lock that the kernel releases when its holder dies, so that a killed worker does not block the others."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path, poll_interval=POLL_SECONDS)

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


class RepairingJournalBackend(JournalFileBackend):
    """Removes an incomplete last line before it writes: another process may have been killed while writing it."""

    def __init__(self, path: Path, lock: KernelLock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self._path, self._kernel_lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Remove an incomplete last line, then append."""
        self._kernel_lock.acquire()
        try:
            cut_torn_line(self._path)
            super().append_logs(logs)
        finally:
            self._kernel_lock.release()


def open_journal(path: Path) -> BaseStorage:
    """The storage in the file `path`, which is created if need be. Where nothing can be written, it can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = KernelLock(path.with_suffix(".lock"))
    if path.exists() and not can_write(path.parent):
        return JournalStorage(RepairingJournalBackend(path, lock))
    lock.acquire()
    try:
        cut_torn_line(path)
    finally:
        lock.release()
    return JournalStorage(RepairingJournalBackend(path, lock))


def cut_torn_line(path: Path) -> int:
    """Remove an incomplete last line of a killed writer. Returns the number of bytes. Call with the lock held."""
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) == b"\n":
            return 0
    content = path.read_bytes()
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        with path.open("r+b") as stream:
            stream.truncate(len(content) - torn)
    return torn
