"""The MLflow store: opened, or created, before anything is written to it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.config.settings import TrackingSettings
from src.core.errors import InvalidInput, first_line, mask_secrets
from src.core.paths import replacing

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

    def find_run(self, key: str) -> str | None:
        """The id of the run with the tag trialbook.key=`key`, unless it was deleted; else None."""
        runs = self.client.search_runs([self.experiment_id], f"tags.`trialbook.key` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None


def tracking_uri(tracking: TrackingSettings, root: Path) -> str:
    """tracking.uri, else MLFLOW_TRACKING_URI, else mlflow.db in `root`."""
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / DATABASE}"


def check_store(tracking: TrackingSettings, root: Path) -> None:
    """Raises InvalidInput if the store is of an unknown kind or does not answer. Creates nothing."""
    uri = tracking_uri(tracking, root)
    if uri.startswith("sqlite:///"):
        return
    from mlflow import MlflowClient

    _silence_loggers()
    with _invalid_input_on_error(uri):
        MlflowClient(uri).search_experiments(max_results=1)


def open_store(tracking: TrackingSettings, root: Path) -> TrackingStore:
    """Create the database and the experiment if need be. Raises InvalidInput if the store cannot be used."""
    uri = tracking_uri(tracking, root)
    (root / "mlruns").mkdir(parents=True, exist_ok=True)
    _silence_loggers()
    with FileLock(root / "mlruns" / ".mlflow.lock"), _invalid_input_on_error(uri):
        if uri.startswith("sqlite:///"):
            _make_database(Path(uri.removeprefix("sqlite:///")))
        return TrackingStore(uri, _experiment(uri, tracking.experiment, root))


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
    if uri_used.startswith("sqlite:///") and not Path(uri_used.removeprefix("sqlite:///")).exists():
        raise InvalidInput(
            f"There is no MLflow store at {uri_used} (seen from {root}). Work in the folder that the study was "
            "searched in, or say where it is: MLFLOW_TRACKING_URI=<uri>."
        )
    return TrackingStore(uri_used, "")


def _make_database(path: Path) -> None:
    """Create all tables in a scratch file and rename it, so that a kill leaves no incomplete database."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with replacing(path) as scratch:
        store = SqlAlchemyStore(f"sqlite:///{scratch}", str(path.parent / "mlruns"))
        store.engine.dispose()


def _experiment(uri: str, name: str, root: Path) -> str:
    """The experiment's id. A new experiment in a local database has its artifacts below mlruns/."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage != "active":
            raise InvalidInput(
                f"The MLflow experiment {name} was deleted. Restore it (mlflow experiments restore -x "
                f"{experiment.experiment_id}), or use another one: tracking.experiment=<name>."
            )
        return str(experiment.experiment_id)
    local = None if uri.startswith("http") else (root.resolve() / "mlruns" / "artifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=local))


def _silence_loggers() -> None:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a server's address, at every run's end
    for name in ("mlflow", "alembic", "mlflow.transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # an error is raised by the request itself
