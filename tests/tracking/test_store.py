"""Stores by their addresses, experiments that were renamed or deleted, folders that were moved."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.config.settings import TrackingSettings
from src.core.errors import InvalidInput
from src.tracking import store
from src.tracking.moved_folder import sqlite_uri
from src.tracking.store import DATABASE, open_existing_store, open_store, sqlite_file


@pytest.fixture
def root(empty_store: Path, tmp_path: Path) -> Path:
    """A folder whose store is that of `empty_store`, before it has any experiment of its own."""
    folder = tmp_path / "here # 100% [ü]"
    folder.mkdir()
    shutil.copy(empty_store, folder / DATABASE)
    return folder


def settings(uri: str | None = None, experiment: str = "mine") -> TrackingSettings:
    return TrackingSettings(uri, experiment)


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:///mlflow.db?timeout=60", "mlflow.db"),
        ("sqlite:////data/a b.db?timeout=60&cached_statements=0", "/data/a b.db"),
        ("sqlite:////data/why%3F/100%25/mlflow.db?timeout=60", "/data/why?/100%/mlflow.db"),
        ("http://127.0.0.1:5000", None),
        ("postgresql://u:p@host/db", None),
    ],
)
def test_the_file_of_an_address(uri: str, file: str | None) -> None:
    assert sqlite_file(uri) == (None if file is None else Path(file))


def test_a_store_with_parameters_is_made_and_found_again(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/{DATABASE}?timeout=60"
    made = open_store(settings(uri), tmp_path)
    assert made.experiment_id == open_store(settings(uri), tmp_path).experiment_id
    assert open_existing_store(uri, tmp_path).client.get_experiment(made.experiment_id).name == "mine"
    assert [file.name for file in tmp_path.glob("*.db*")] == [DATABASE]


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InvalidInput, match="a database in memory, which is gone when the command ends"):
        store.check_store(settings(uri), tmp_path)


@pytest.mark.parametrize("uri", ["file:./mlruns", "./mlruns", "mlruns", "file://{root}/mlruns"])
def test_the_old_store_of_files_in_our_own_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (store.check_store, open_store):
        with pytest.raises(InvalidInput, match="MLflow would take them for experiments"):
            use(settings(uri.format(root=tmp_path)), tmp_path)


def test_a_renamed_experiment_is_followed_and_a_deleted_one_restored(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = open_store(settings(), root)
    made.client.rename_experiment(made.experiment_id, "films")
    assert open_store(settings(), root, made.experiment_id).experiment_id == made.experiment_id
    assert "the MLflow experiment mine is called films now" in capsys.readouterr().err
    made.client.delete_experiment(made.experiment_id)
    assert open_store(settings(experiment="films"), root).experiment_id == made.experiment_id
    assert "the MLflow experiment films had been deleted; it was restored" in capsys.readouterr().err
    assert open_store(settings(), root, "12345").experiment_id != made.experiment_id  # of a store that is gone


def test_the_artifacts_of_a_moved_folder_are_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = open_store(settings(), root)
    run = made.client.create_run(made.experiment_id)
    made.client.log_text(run.info.run_id, "what was written", "note.txt")
    copy = root.with_name("a copy, elsewhere ?")
    shutil.copytree(root, copy)
    assert read_note(copy, run.info.run_id) == "what was written"
    assert f"this folder was in {root} before" in capsys.readouterr().err
    experiment = MlflowClient(sqlite_uri(copy / DATABASE)).get_experiment(made.experiment_id)
    assert experiment.artifact_location == (copy / "mlruns" / "artifacts" / "mine").as_uri()
    shutil.rmtree(root)
    assert read_note(copy, run.info.run_id) == "what was written"
    assert capsys.readouterr().err == ""  # once


def read_note(folder: Path, run_id: str) -> str:
    opened = open_existing_store(None, folder)
    file = opened.client.download_artifacts(run_id, "note.txt", str(folder))
    return Path(file).read_text()


def test_artifacts_that_are_kept_elsewhere_are_left_alone(root: Path, tmp_path: Path) -> None:
    client = MlflowClient(sqlite_uri(root / DATABASE))
    near = (tmp_path / "x/mlruns/artifacts/near").as_uri()
    client.create_experiment("far", artifact_location="s3://bucket/mlruns/artifacts/far")
    client.create_experiment("near", artifact_location=near)
    (root / "mlruns" / "artifacts" / "far").mkdir(parents=True)
    open_existing_store(None, root)
    assert client.get_experiment_by_name("far").artifact_location == "s3://bucket/mlruns/artifacts/far"
    assert client.get_experiment_by_name("near").artifact_location == near


def test_errors_are_told_apart_by_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import Timeout

    assert store.explain(ValueError("x")) is None
    assert store.explain(MlflowException("no space")) == "MLflow or its database did not do what was asked: no space."
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://me:secret@models:5000")
    assert store.explain(Timeout("refused")) == (
        "MLflow or its database did not do what was asked: refused. Registered models are at http://***@models:5000 "
        "(MLFLOW_REGISTRY_URI)."
    )
