"""A study in a journal file that survives kills: a torn last line is cut, and a dead process holds no lock."""

import os
from pathlib import Path
from typing import Any

import filelock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # what its locks derive from; not exported

from src.search.leases import POLL_SECONDS


class KernelLock(BaseJournalFileLock):
    """A lock that the kernel frees when its holder dies, so that a killed worker stalls nobody."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path, poll_interval=POLL_SECONDS)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class SoundJournal(JournalFileBackend):
    """Mends a torn last line before it writes: its writer may have been killed while this process was open."""

    def __init__(self, path: Path, lock: KernelLock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self._path, self._kernel_lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._kernel_lock.acquire()
        try:
            repair(self._path)
            super().append_logs(logs)
        finally:
            self._kernel_lock.release()


def open_journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = KernelLock(path.with_suffix(".lock"))
    lock.acquire()
    try:
        repair(path)
    finally:
        lock.release()
    return JournalStorage(SoundJournal(path, lock))


def repair(path: Path) -> int:
    """Cut a torn last line, left by a writer that was killed; returns the bytes cut. Call with the lock held."""
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
