"""The MLflow store: opened, or created, before anything is written to it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from filelock import FileLock

from src.config.settings import TrackingSettings
from src.core.errors import InvalidInput, first_line, mask_secrets, with_full_stop
from src.core.messages import notify
from src.core.paths import replacing
from src.tracking import moved_folder

DATABASE = "mlflow.db"  # MLflow's own default name, so that a plain `mlflow ui` finds it


@dataclass(frozen=True)
class TrackingStore:
    """A tracking store, and the experiment in it that the runs belong to."""

    uri: str
    experiment_id: str

    @property
    def address(self) -> str:
        """The URI without its password."""
        return mask_secrets(self.uri)

    @cached_property
    def client(self) -> Any:
        """MLflow's client for the store."""
        from mlflow import MlflowClient

        _silence_loggers()
        return MlflowClient(self.uri)

    def active_run_ids(self, experiment_ids: list[str], query: str) -> set[str]:
        """The ids of all runs in these experiments that match `query` and were not deleted."""
        found, token = set[str](), None
        while True:
            page = self.client.search_runs(experiment_ids, query, page_token=token)
            found |= {str(run.info.run_id) for run in page}
            token = page.token
            if not token:
                return found

    def find_run(self, key: str) -> str | None:
        """The id of the run with the tag trialbook.key=`key`, unless it was deleted; else None."""
        runs = self.client.search_runs([self.experiment_id], f"tags.`trialbook.key` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None


def tracking_uri(tracking: TrackingSettings, root: Path) -> str:
    """tracking.uri, else MLFLOW_TRACKING_URI, else mlflow.db in `root`."""
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or moved_folder.sqlite_uri(root.resolve() / DATABASE)


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite URI, whose query (?timeout=60) is for the driver; None for other stores."""
    from sqlalchemy.engine import make_url

    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    if not database or database == ":memory:":
        raise InvalidInput(
            f"tracking.uri is {uri}, a database in memory, which is gone when the command ends; name a file: "
            "sqlite:///mlflow.db."
        )
    return Path(database)


def check_store(tracking: TrackingSettings, root: Path) -> None:
    """Raises InvalidInput if the store is of an unknown kind or does not answer. Creates nothing."""
    uri = tracking_uri(tracking, root)
    with _invalid_input_on_error(uri):
        if sqlite_file(uri) is not None:
            return
    _refuse_own_folder(uri, root)
    from mlflow import MlflowClient

    _silence_loggers()
    with _invalid_input_on_error(uri):
        MlflowClient(uri).search_experiments(max_results=1)


def open_store(tracking: TrackingSettings, root: Path, known_experiment: str | None = None) -> TrackingStore:
    """Create the database and the experiment if need be.

    Args:
        tracking: the store's URI and the experiment's name.
        root: the folder of mlflow.db and mlruns/.
        known_experiment: id of the experiment that a study's runs are in, whatever it is called now.

    Raises:
        InvalidInput: the store cannot be used.
    """
    uri = tracking_uri(tracking, root)
    (root / "mlruns").mkdir(parents=True, exist_ok=True)
    _silence_loggers()
    _refuse_own_folder(uri, root)
    with FileLock(root / "mlruns" / ".mlflow.lock"), _invalid_input_on_error(uri):
        if (file := sqlite_file(uri)) is not None:
            _make_database(file)
            _repair_moved_folder(uri, root)
        return TrackingStore(uri, _experiment(uri, tracking.experiment, root, known_experiment))


def _refuse_own_folder(uri: str, root: Path) -> None:
    """Raise InvalidInput for MLflow's store of files in mlruns/, whose folders it would take for experiments."""
    is_local = "://" not in uri or uri.startswith("file:")
    local = url2pathname(uri.removeprefix("file://").removeprefix("file:")) if is_local else ""
    if local and Path(local).resolve() == (root / "mlruns").resolve():
        raise InvalidInput(
            f"The MLflow store is {uri} (tracking.uri, or MLFLOW_TRACKING_URI), the folder in which Trialbook keeps "
            "its studies: MLflow would take them for experiments. Leave both out for the database mlflow.db, or name "
            "another folder or a server."
        )


def _repair_moved_folder(uri: str, root: Path) -> None:
    """Repair the artifact paths of the default database, and say so, if its folder was moved."""
    from mlflow import MlflowClient

    file = sqlite_file(uri)
    if file is None or file.resolve() != (root / DATABASE).resolve() or not file.exists():
        return
    locations = [str(e.artifact_location) for e in MlflowClient(uri).search_experiments()]
    if before := moved_folder.repair_artifact_paths(file, locations):
        notify(f"  note: this folder was in {before} before; the paths of its artifacts in {file.name} were changed.")


@contextmanager
def _invalid_input_on_error(uri: str) -> Iterator[None]:
    """Raise InvalidInput for any error of MLflow and its drivers."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"The MLflow store at {mask_secrets(uri)} (tracking.uri, or MLFLOW_TRACKING_URI, or the default) cannot be "
            f"used: {first_line(error)}"
        ) from error


def open_existing_store(uri: str | None, root: Path) -> TrackingStore:
    """A store to read from. Raises InvalidInput if there is none; creates nothing."""
    uri_used = tracking_uri(TrackingSettings(uri, ""), root)
    _silence_loggers()
    with _invalid_input_on_error(uri_used):
        file = sqlite_file(uri_used)
    if file is not None and not file.exists():
        raise InvalidInput(
            f"There is no MLflow store at {uri_used} (seen from {root}). Work in the folder that the study was "
            "searched in, or say where it is: MLFLOW_TRACKING_URI=<uri>."
        )
    _refuse_own_folder(uri_used, root)
    with _invalid_input_on_error(uri_used):
        _repair_moved_folder(uri_used, root)
    return TrackingStore(uri_used, "")


def _make_database(path: Path) -> None:
    """Create all tables in a scratch file and rename it, so that a kill leaves no incomplete database."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with replacing(path) as scratch:
        store = SqlAlchemyStore(moved_folder.sqlite_uri(scratch), str(path.parent / "mlruns"))
        store.engine.dispose()


def _experiment(uri: str, name: str, root: Path, known_id: str | None) -> str:
    """The experiment's id. A new experiment in a local database has its artifacts below mlruns/.

    A renamed one is found by `known_id`; a deleted one is restored.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name) or _renamed_experiment(client, known_id, name)
    if experiment is not None:
        if experiment.lifecycle_stage != "active":
            client.restore_experiment(experiment.experiment_id)
            notify(
                f"  note: the MLflow experiment {name} had been deleted; it was restored with its runs. For another "
                "one: tracking.experiment=<name>."
            )
        return str(experiment.experiment_id)
    local = None if uri.startswith("http") else (root.resolve() / "mlruns" / "artifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=local))


def _renamed_experiment(client: Any, known_id: str | None, name: str) -> Any:
    """The experiment with this id, if it is there under another name than `name`."""
    from mlflow.exceptions import MlflowException

    try:
        experiment = client.get_experiment(known_id) if known_id else None
    except MlflowException:
        return None
    if experiment is None or experiment.lifecycle_stage != "active" or experiment.name == "Default":
        return None
    notify(f"  note: the MLflow experiment {name} is called {experiment.name} now; the study's runs are in it.")
    return experiment


def explain(error: BaseException) -> str | None:
    """A sentence about an error of MLflow, its server or its database; None for other errors."""
    origins = {c.__module__.split(".", maxsplit=1)[0] for c in type(error).__mro__}
    if not origins & {"mlflow", "requests", "urllib3", "sqlalchemy", "psycopg"}:
        return None
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    where = f" Registered models are at {mask_secrets(registry)} (MLFLOW_REGISTRY_URI)." if registry else ""
    return f"MLflow or its database did not do what was asked: {with_full_stop(first_line(error))}{where}"


def _silence_loggers() -> None:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a server's address, at every run's end
    for name in ("mlflow", "alembic", "mlflow.transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # an error is raised by the request itself
