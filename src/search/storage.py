"""Where a study lives: a journal file that survives kills, or a database."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage  # what Optuna itself puts over a database; not exported
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # what its locks derive from; not exported
from optuna.trial import FrozenTrial

from src.errors import Refusal, first_line, masked, sentence
from src.search.leases import POLL_SECONDS, InFolder, InPostgres, Leases
from src.search.targets import expected_warnings
from src.settings import StorageSettings

SQLITE, POSTGRES, PROXY = "sqlite:///", "postgresql", "grpc://"
PATIENCE_SECONDS = 8  # with a database server that does not answer
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True}  # of a worker; more only for a moment


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


class Steady(_CachedStorage):
    """Optuna's cache over a database; while the study's lock is held, running trials too are read once.

    Nobody else changes them then; what this process writes is read again.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._steady, self._known = 0, set[int]()

    @contextmanager
    def steady(self) -> Iterator[None]:
        """From here to the block's end, of this process's threads, this one has the study's lock."""
        self._steady += 1
        try:
            yield
        finally:
            self._steady -= 1
            self._known.clear()

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._steady and study_id in self._known:
            return
        super()._read_trials_from_remote_storage(study_id)
        if self._steady:
            self._known.add(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Also a running one from what was read under the lock, as a copy: Optuna's trials write into theirs."""
        with self._lock:
            study_id, number = self._trial_id_to_study_id_and_number.get(trial_id, (None, -1))
            if study_id in self._known:
                return copy.deepcopy(self._studies[study_id].trials[number])
        return super().get_trial(trial_id)

    def create_new_trial(self, *given: Any, **named: Any) -> int:
        self._known.clear()
        return super().create_new_trial(*given, **named)

    def set_trial_param(self, *given: Any, **named: Any) -> None:
        self._known.clear()
        super().set_trial_param(*given, **named)

    def set_trial_state_values(self, *given: Any, **named: Any) -> bool:
        self._known.clear()
        return super().set_trial_state_values(*given, **named)

    def set_trial_intermediate_value(self, *given: Any, **named: Any) -> None:
        self._known.clear()
        super().set_trial_intermediate_value(*given, **named)

    def set_trial_user_attr(self, *given: Any, **named: Any) -> None:
        self._known.clear()
        super().set_trial_user_attr(*given, **named)

    def set_trial_system_attr(self, *given: Any, **named: Any) -> None:
        self._known.clear()
        super().set_trial_system_attr(*given, **named)


@contextmanager
def locked(leases: Leases, storage: BaseStorage) -> Iterator[None]:
    """The study's lock, and a storage that knows of it."""
    with leases.lock, storage.steady() if isinstance(storage, Steady) else nullcontext():
        yield


def open_storage(storage: StorageSettings, folder: Path) -> BaseStorage:
    """The journal in `folder`, or the database at `storage.url`, directly or through Optuna's proxy."""
    url = storage.url
    if url is None:
        return _journal(folder / "journal.log")
    with _answered(url):
        if url.startswith(PROXY):
            return _proxied(url)
        return Steady(_sqlite(url) if url.startswith(SQLITE) else RDBStorage(url, engine_kwargs=ONE_CONNECTION))


def leases_of(storage: StorageSettings, study: str, folder: Path) -> Leases:
    """PostgreSQL keeps its studies' leases; everything else has them in `folder`, which all processes then share."""
    url = storage.url or ""
    return InPostgres(url, study) if url.startswith(POSTGRES) else InFolder(folder)


def check(storage: StorageSettings) -> None:
    """Raises Refusal if the database is of no known kind or does not answer; makes nothing in it."""
    from sqlalchemy import create_engine

    url = storage.url
    if url is None:
        return
    with _answered(url):
        if url.startswith(PROXY):
            _proxied(url)
            return
        local = url.startswith(SQLITE)
        engine = create_engine(url, connect_args={} if local else {"connect_timeout": PATIENCE_SECONDS})
        if not local:
            engine.connect().close()


def _proxied(url: str) -> BaseStorage:
    """Optuna's proxy (optuna.storages.run_grpc_proxy_server), which holds the database's connections for many."""
    from optuna.storages import GrpcStorageProxy

    host, _, port = url.removeprefix(PROXY).rpartition(":")
    with expected_warnings():
        proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=PATIENCE_SECONDS)
    return proxy


@contextmanager
def _answered(url: str) -> Iterator[None]:
    """Raises Refusal for whatever drivers and servers raise."""
    try:
        yield
    except Exception as error:
        problem = sentence(first_line(error))
        if isinstance(error, ImportError):
            problem += f" Install it: pip install -e '.[{'proxy' if url.startswith(PROXY) else POSTGRES}]'."
        raise Refusal(
            f"storage.url is {masked(url)}, and it could not be opened: {problem} It is null for the journal, a "
            "database such as sqlite:///mlruns/optuna.db or postgresql+psycopg://host/name, or Optuna's proxy of one, "
            "grpc://host:port."
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


def _sqlite(url: str) -> RDBStorage:
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
