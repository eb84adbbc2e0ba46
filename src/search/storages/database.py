"""A study in a database: Optuna's own storage, for PostgreSQL or one SQLite file."""

from pathlib import Path
from typing import Any

import filelock
from optuna.storages import RDBStorage

SQLITE = "sqlite:///"
SQLITE_TIMEOUT_SECONDS = 60  # to wait for another process to finish writing
POOL = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True}  # connections of a worker


def open_database(url: str) -> RDBStorage:
    """The storage at `url`, whose tables are created if need be. Raises the errors of SQLAlchemy and its drivers.

    Hand it to `optuna.load_study` and read trials through the study: Optuna caches finished trials there.
    """
    return _open_sqlite(url) if url.startswith(SQLITE) else RDBStorage(url, engine_kwargs=POOL)


def has_database(url: str) -> bool:
    """Whether there is a database at `url`: for SQLite, its file; servers have one."""
    from sqlalchemy.engine import make_url

    return not url.startswith(SQLITE) or Path(make_url(url).database or "").is_file()


def _open_sqlite(url: str) -> RDBStorage:
    """SQLite that takes its write lock when a transaction begins.

    A transaction that read first and writes then is refused at once, without waiting, if another process has written
    in between. One that holds the write lock from its beginning waits for its turn.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import make_url

    path = Path(make_url(url).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):  # one process at a time creates the tables
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}})

    def leave_transactions_to_sqlalchemy(connection: Any, _: object) -> None:
        connection.isolation_level = None

    def take_the_write_lock(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", leave_transactions_to_sqlalchemy)
    event.listen(storage.engine, "begin", take_the_write_lock)
    storage.engine.dispose()
    return storage
