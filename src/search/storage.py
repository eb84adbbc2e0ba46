"""Where a study lives: a journal file that survives kills, or a database."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # what its locks derive from; not exported

from src.errors import Refusal, first_line, masked, sentence
from src.settings import StorageSettings

SQLITE = "sqlite:///"
PATIENCE_SECONDS = 8  # with a database server that does not answer


class KernelLock(BaseJournalFileLock):
    """A lock that the kernel frees when its holder dies, so that a killed worker stalls nobody."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path)

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


def open_storage(storage: StorageSettings, folder: Path) -> BaseStorage:
    """The journal in `folder`, or the database at `storage.url`."""
    if storage.url is None:
        return _journal(folder / "journal.log")
    with _answered(storage.url):
        return _sqlite(storage.url) if storage.url.startswith(SQLITE) else RDBStorage(storage.url)


def check(storage: StorageSettings) -> None:
    """Raises Refusal if the database is of no known kind or does not answer; makes nothing in it."""
    from sqlalchemy import create_engine

    if storage.url is not None:
        with _answered(storage.url):
            local = storage.url.startswith(SQLITE)
            engine = create_engine(storage.url, connect_args={} if local else {"connect_timeout": PATIENCE_SECONDS})
            if not local:
                engine.connect().close()


@contextmanager
def _answered(url: str) -> Iterator[None]:
    """Raises Refusal for whatever drivers and servers raise."""
    try:
        yield
    except Exception as error:
        raise Refusal(
            f"storage.url is {masked(url)}, and it could not be opened: {sentence(first_line(error))} It is null for "
            "the journal, or a database such as sqlite:///mlruns/optuna.db or postgresql+psycopg://host/name."
        ) from error


def _journal(path: Path) -> BaseStorage:
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


def _sqlite(url: str) -> BaseStorage:
    """SQLite that takes its write lock when a transaction begins: two workers cannot take one trial."""
    from sqlalchemy import event

    Path(url.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(url.removeprefix(SQLITE) + ".lock"):  # one process at a time makes the tables
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    event.listen(storage.engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    storage.engine.dispose()
    return storage


def load(name: str, storage: BaseStorage) -> optuna.Study | None:
    """The study `name`, if the storage has it."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
