"""Run records and the MLflow store: real databases, a real server."""

import base64
import json
import os
import shutil
import time
import zlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.errors import Refusal, masked
from src.evidence import environment, views
from src.evidence.runs import Run
from src.evidence.store import Store, open_store, tracking_uri
from src.records import Calibration, Evaluation, Outcome, State, TrialRecord
from src.settings import TrackingSettings
from tests.conftest import PROCESSES
from tests.servers import command_for, start, stop


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Store:
    shutil.copy(empty_store, tmp_path)
    return open_store(TrackingSettings(f"sqlite:///{tmp_path}/mlflow.db", "reviews"), tmp_path)


def curve(store: Store, run: Run, key: str) -> list[tuple[int, float]]:
    history = store.client.get_metric_history(run.run_id(store), key)
    return sorted((m.step, m.value) for m in history)


def test_a_run_is_delivered_whole(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "r", "key/1", "trial-0001")
    run.status(State.RUNNING)
    run.params({"optimizer.learning_rate": 1e-4})
    run.tags({"study": "s", "none": None})
    run.metrics(1, {"train/loss": 0.5})
    run.metrics(2, {"train/loss": 0.4, "validation/accuracy": 0.7})
    run.text("config.yaml", "a: 1")
    run.status(State.PRUNED)
    assert run.deliver(store)
    found = store.client.get_run(run.run_id(store))
    assert found.data.params == {"optimizer.learning_rate": "0.0001"}
    assert (found.data.tags["study"], "none" in found.data.tags) == ("s", False)
    assert found.info.status == "KILLED"
    assert curve(store, run, "train/loss") == [(1, 0.5), (2, 0.4)]
    assert [f.path for f in store.client.list_artifacts(run.run_id(store))] == ["config.yaml"]


def test_a_repeated_delivery_doubles_nothing(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "r", "key/1", "t")
    run.metrics(1, {"train/loss": 0.5})
    run.deliver(store)
    run.mark.unlink()  # as if the process had been killed before it noted the delivery
    (run.folder / "run_id").unlink()
    again = Run(tmp_path / "r", "key/1", "t")
    assert again.deliver(store)
    assert curve(store, again, "train/loss") == [(1, 0.5)]
    assert len(store.client.search_runs([store.experiment_id])) == 1


def test_a_training_begun_anew_doubles_no_step(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        run = Run(tmp_path / "r", "key/1", "t")
        for step in (1, 2, 3):
            run.metrics(step, {"train/loss": step / 10})
        run.deliver(store)
    run.metrics(4, {"train/loss": 0.4})
    run.deliver(store)
    assert curve(store, run, "train/loss") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]


def test_a_status_is_put_back_after_another_hand_changed_it(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "r", "key/1", "t")
    run.status(State.COMPLETE)
    run.deliver(store)
    ended = store.client.get_run(run.run_id(store)).info.end_time
    store.client.set_terminated(run.run_id(store), "FAILED")
    again = Run(tmp_path / "r", "key/1", "t")
    again.repeat_status()
    again.deliver(store)
    info = store.client.get_run(run.run_id(store)).info
    assert (info.status, info.end_time) == ("FINISHED", ended)


def test_a_torn_last_event_is_cut(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "r", "key/1", "t")
    run.metrics(1, {"train/loss": 0.5})
    with run.outbox.open("a") as stream:
        stream.write('{"metrics": {"train/lo')
    again = Run(tmp_path / "r", "key/1", "t")
    again.metrics(2, {"train/loss": 0.4})
    assert again.deliver(store)
    assert curve(store, again, "train/loss") == [(1, 0.5), (2, 0.4)]


@pytest.fixture
def server(tmp_path: Path) -> tuple[str, list[str]]:
    return command_for(tmp_path)


@pytest.mark.long
def test_records_wait_while_the_server_is_down(
    server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url, command = server
    process = start(url, command)
    try:
        store = open_store(TrackingSettings(url, "reviews"), tmp_path)
        run = Run(tmp_path / "r", "key/1", "t")
        run.metrics(1, {"train/loss": 0.5})
        assert run.deliver(store)
        stop(process)
        run.metrics(2, {"train/loss": 0.4})
        assert not run.deliver(store)
        assert "127.0.0.1" in run.problem
        run.metrics(3, {"train/loss": 0.3})
        process = start(url, command)
        assert Run(tmp_path / "r", "key/1", "t").deliver(store)
        assert curve(store, run, "train/loss") == [(1, 0.5), (2, 0.4), (3, 0.3)]
    finally:
        stop(process)


def opened(folder: str) -> None:
    os.chdir(folder)
    assert open_store(TrackingSettings(None, "reviews"), Path(folder)).experiment_id == "1"


@pytest.mark.long
def test_ten_processes_open_a_fresh_store(tmp_path: Path) -> None:
    processes = [PROCESSES.Process(target=opened, args=(str(tmp_path),)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0] * 10
    assert [e.name for e in MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()] == [
        "reviews",
        "Default",
    ]


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(TrackingSettings(None, "x"), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(TrackingSettings(None, "x"), tmp_path) == "http://127.0.0.1:1"
    assert tracking_uri(TrackingSettings("sqlite:///b.db", "x"), tmp_path) == "sqlite:///b.db"


def test_a_store_that_cannot_be_used_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        open_store(TrackingSettings("nothing://me:secret@host/x", "x"), tmp_path)
    assert "nothing://***@host/x" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_deleted_experiment_is_refused(store: Store, tmp_path: Path) -> None:
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(Refusal, match=r"The MLflow experiment reviews was deleted\. Restore it"):
        open_store(TrackingSettings(store.uri, "reviews"), tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        Evaluation(5, 0.5, 80, {"loss": 0.5}, 1.5),
        Outcome(State.PRUNED, 0.5, {"loss": 0.1}, 5, 0.5, 9.0, 90.9, 100.0, "bad"),
        TrialRecord(3, State.COMPLETE, {"model.dropout": 0.1}, 0.9),
        Calibration(0.01, 0.005, 90.9, "cpu", 1),
    ],
)
def test_records_come_back_equal_from_json(record) -> None:  # type: ignore[no-untyped-def]
    assert type(record).from_json(record.to_json()) == record
    with pytest.raises(ValueError, match="has no field colour"):
        type(record).from_json(json.dumps(json.loads(record.to_json()) | {"colour": 1}))


def test_the_environment_names_what_a_run_was_made_with() -> None:
    assert {"python", "torch", "transformers", "optuna", "mlflow"} <= set(environment.versions())
    assert environment.machine()


def test_passwords_in_urls_are_not_shown() -> None:
    shown = masked("python -m src.sweep tracking.uri=postgresql+psycopg://me:pa:s@s@host/db text='a: b@c'")
    assert shown == "python -m src.sweep tracking.uri=postgresql+psycopg://***@host/db text='a: b@c'"


def test_a_run_that_is_delivered_late_began_when_it_began(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "late", "late", "late")
    run.status(State.RUNNING)
    time.sleep(0.3)
    run.status(State.COMPLETE)
    time.sleep(0.3)
    assert run.deliver(store)
    info = store.client.get_run(run.known_id).info
    assert 300 <= info.end_time - info.start_time < 600


def test_a_view_is_kept_as_mlflows_own_ui_keeps_one(store: Store) -> None:
    views.save(store, "mine", "Mine", "tags.kind = 'trial'", views.Order("metrics.`score`", True), ["params.`a`"])
    (value,) = [v for k, v in store.client.get_experiment(store.experiment_id).tags.items() if k == f"{views.TAG}mine"]
    kept = json.loads(value)
    assert kept["name"] == "Mine"
    state = json.loads(zlib.decompress(base64.b64decode(kept["state"].removeprefix("deflate;"))))
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`score`", False)
    assert state["selectedColumns"] == ["params.`a`"]
