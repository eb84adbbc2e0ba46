"""The MLflow store: found or made, once, before anybody writes to it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.errors import Refusal, first_line, masked
from src.settings import TrackingSettings

IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "8", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
DATABASE = "mlflow.db"  # MLflow's own default name, so that a plain `mlflow ui` finds it


@dataclass(frozen=True)
class Store:
    """A tracking store and the experiment in it that this data set's runs belong to."""

    uri: str
    experiment_id: str

    @property
    def address(self) -> str:
        """The URI without its password, to be shown."""
        return masked(self.uri)

    @cached_property
    def client(self) -> Any:
        from mlflow import MlflowClient

        _quiet()
        return MlflowClient(self.uri)

    def find_run(self, key: str) -> str | None:
        """The id of the run tagged with `key` (see runs.py), if there is one that is not deleted."""
        found = self.client.search_runs([self.experiment_id], f"tags.`trialbook.key` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None


def tracking_uri(tracking: TrackingSettings, root: Path) -> str:
    """tracking.uri, else MLFLOW_TRACKING_URI, else mlflow.db in `root`."""
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / DATABASE}"


def check(tracking: TrackingSettings, root: Path) -> None:
    """Raises Refusal if the store is of no known kind or does not answer; makes nothing in it."""
    uri = tracking_uri(tracking, root)
    if uri.startswith("sqlite:///"):
        return
    from mlflow import MlflowClient

    _quiet()
    with _answered(uri), _impatient():
        MlflowClient(uri).search_experiments(max_results=1)


def open_store(tracking: TrackingSettings, root: Path) -> Store:
    """Make the database and the experiment if they are not there. Raises Refusal if the store cannot be used."""
    uri = tracking_uri(tracking, root)
    (root / "mlruns").mkdir(parents=True, exist_ok=True)
    _quiet()
    with FileLock(root / "mlruns" / ".mlflow.lock"), _answered(uri), _impatient():
        if uri.startswith("sqlite:///"):
            _make_database(Path(uri.removeprefix("sqlite:///")))
        return Store(uri, _experiment(uri, tracking.experiment, root))


@contextmanager
def _answered(uri: str) -> Iterator[None]:
    """Raises Refusal for whatever MLflow and the drivers below it raise."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(
            f"The MLflow store at {masked(uri)} (tracking.uri, or MLFLOW_TRACKING_URI, or the default) cannot be "
            f"used: {first_line(error)}"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    """MLflow itself has minutes of patience with a server that does not answer; here a person waits."""
    before = {name: os.environ.get(name) for name in IMPATIENT}
    os.environ.update({name: value for name, value in IMPATIENT.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def existing_store(uri: str | None, root: Path) -> Store:
    """A store to read from: nothing is made. Raises Refusal if there is none."""
    found = tracking_uri(TrackingSettings(uri, ""), root)
    _quiet()
    if found.startswith("sqlite:///") and not Path(found.removeprefix("sqlite:///")).exists():
        raise Refusal(
            f"There is no MLflow store at {found} (seen from {root}). Work in the folder that the study was searched "
            "in, or say where it is: MLFLOW_TRACKING_URI=<uri>."
        )
    return Store(found, "")


def _make_database(path: Path) -> None:
    """All tables in a scratch file first, then one rename: a kill in between leaves no half-made database."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    scratch = path.with_name(path.name + ".part")
    scratch.unlink(missing_ok=True)
    made = SqlAlchemyStore(f"sqlite:///{scratch}", str(path.parent / "mlruns"))
    made.engine.dispose()
    scratch.rename(path)


def _experiment(uri: str, name: str, root: Path) -> str:
    """The experiment's id; a new one on a local database keeps its artifacts below mlruns/."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise Refusal(
                f"The MLflow experiment {name} was deleted. Restore it (mlflow experiments restore -x "
                f"{found.experiment_id}), or use another one: tracking.experiment=<name>."
            )
        return str(found.experiment_id)
    local = None if uri.startswith("http") else (root.resolve() / "mlruns" / "artifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=local))


def _quiet() -> None:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a server's address, at every run's end
    for name in ("mlflow", "alembic", "mlflow.transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # whoever asked hears what went wrong
