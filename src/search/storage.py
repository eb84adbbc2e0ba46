"""Where a study lives: a journal file, a database, or Optuna's proxy of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from src.errors import Refusal, first_line, masked, sentence
from src.search.database import SQLITE, open_database
from src.search.journal import open_journal
from src.search.leases import InFolder, InPostgres, Leases
from src.search.targets import expected_warnings
from src.settings import StorageSettings

POSTGRES, PROXY = "postgresql", "grpc://"
PATIENCE_SECONDS = 8  # with a database server that does not answer


def open_storage(storage: StorageSettings, folder: Path) -> BaseStorage:
    """The journal in `folder`, or the database at `storage.url`, directly or through Optuna's proxy."""
    url = storage.url
    if url is None:
        return open_journal(folder / "journal.log")
    with _answered(url):
        if url.startswith(PROXY):
            return _proxied(url)
        return open_database(url)


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


def load(name: str, storage: BaseStorage) -> optuna.Study | None:
    """The study `name`, if the storage has it."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
