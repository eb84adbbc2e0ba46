"""Opens the storage of a study: a journal file, a database, or Optuna's proxy of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from src.config.settings import StorageSettings
from src.core.errors import InvalidInput, first_line, mask_secrets, with_full_stop
from src.search.instantiate import expected_warnings
from src.search.storages.database import SQLITE, open_database
from src.search.storages.journal import open_journal
from src.search.storages.leases import FileLeases, Leases, PostgresLeases

POSTGRES, PROXY = "postgresql", "grpc://"
CONNECT_TIMEOUT_SECONDS = 8  # to wait for a database server that does not answer


def open_storage(storage: StorageSettings, folder: Path) -> BaseStorage:
    """The journal in `folder`, or the database at `storage.url`, directly or through Optuna's proxy."""
    url = storage.url
    if url is None:
        return open_journal(folder / "journal.log")
    with _invalid_input_on_error(url):
        if url.startswith(PROXY):
            return _open_proxy(url)
        return open_database(url)


def open_leases(storage: StorageSettings, study: str, folder: Path) -> Leases:
    """The leases of a study: in PostgreSQL if the study is there, else in `folder`, which all processes must share."""
    url = storage.url or ""
    return PostgresLeases(url, study) if url.startswith(POSTGRES) else FileLeases(folder)


def check_storage(storage: StorageSettings) -> None:
    """Raises InvalidInput if the database is of an unknown kind or does not answer. Creates nothing in it."""
    from sqlalchemy import create_engine

    url = storage.url
    if url is None:
        return
    with _invalid_input_on_error(url):
        if url.startswith(PROXY):
            _open_proxy(url)
            return
        local = url.startswith(SQLITE)
        engine = create_engine(url, connect_args={} if local else {"connect_timeout": CONNECT_TIMEOUT_SECONDS})
        if not local:
            engine.connect().close()


def _open_proxy(url: str) -> BaseStorage:
    """Optuna's proxy (optuna.storages.run_grpc_proxy_server), which shares its database connections among clients."""
    from optuna.storages import GrpcStorageProxy

    host, _, port = url.removeprefix(PROXY).rpartition(":")
    with expected_warnings():
        proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=CONNECT_TIMEOUT_SECONDS)
    return proxy


@contextmanager
def _invalid_input_on_error(url: str) -> Iterator[None]:
    """Raises InvalidInput for any error of drivers and servers."""
    try:
        yield
    except Exception as error:
        problem = with_full_stop(first_line(error))
        if isinstance(error, ImportError):
            problem += f" Install it: pip install -e '.[{'proxy' if url.startswith(PROXY) else POSTGRES}]'."
        raise InvalidInput(
            f"storage.url is {mask_secrets(url)}, and it could not be opened: {problem} It is null for the journal, a "
            "database such as sqlite:///mlruns/optuna.db or postgresql+psycopg://host/name, or Optuna's proxy of one, "
            "grpc://host:port."
        ) from error


def load_optuna_study(name: str, storage: BaseStorage) -> optuna.Study | None:
    """The study `name`, if the storage has it."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    except ValueError as error:  # a line of a journal that is no JSON, or no text
        raise InvalidInput(
            f"The records of the study {name} are damaged: {with_full_stop(first_line(error))} Put its journal.log "
            "back from a copy, or search again under another study.name; other studies are not affected."
        ) from error
