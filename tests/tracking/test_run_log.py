"""Run records and the MLflow store: real databases, a real server."""

import base64
import json
import shutil
import time
import zlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.config.settings import TrackingSettings
from src.core.errors import InvalidInput, mask_secrets
from src.core.record_files import NewerRecord
from src.core.records import Calibration, Evaluation, State, TrainingResult, TrialRecord
from src.tracking import environment, ui_views
from src.tracking.run_log import RunLog
from src.tracking.store import TrackingStore, open_store, tracking_uri
from tests.support.processes import PROCESSES
from tests.support.servers import command_for, start, stop
from tests.support.studies import open_fresh_store


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> TrackingStore:
    shutil.copy(empty_store, tmp_path)
    return open_store(TrackingSettings(f"sqlite:///{tmp_path}/mlflow.db", "reviews"), tmp_path)


def curve(store: TrackingStore, run: RunLog, key: str) -> list[tuple[int, float]]:
    history = store.client.get_metric_history(run.ensure_run_id(store), key)
    return sorted((m.step, m.value) for m in history)


def test_a_run_is_delivered_whole(store: TrackingStore, tmp_path: Path) -> None:
    run = RunLog(tmp_path / "r", "key/1", "trial-0001")
    run.set_status(State.RUNNING)
    run.log_params({"optimizer.learning_rate": 1e-4})
    run.set_tags({"study": "s", "none": None})
    run.log_metrics(1, {"train/loss": 0.5})
    run.log_metrics(2, {"train/loss": 0.4, "validation/accuracy": 0.7})
    run.log_text("config.yaml", "a: 1")
    run.set_status(State.PRUNED)
    assert run.send_to(store)
    result = store.client.get_run(run.ensure_run_id(store))
    assert result.data.params == {"optimizer.learning_rate": "0.0001"}
    assert (result.data.tags["study"], "none" in result.data.tags) == ("s", False)
    assert result.info.status == "KILLED"
    assert curve(store, run, "train/loss") == [(1, 0.5), (2, 0.4)]
    assert [f.path for f in store.client.list_artifacts(run.ensure_run_id(store))] == ["config.yaml"]


def test_a_repeated_delivery_doubles_nothing(store: TrackingStore, tmp_path: Path) -> None:
    run = RunLog(tmp_path / "r", "key/1", "t")
    run.log_metrics(1, {"train/loss": 0.5})
    run.send_to(store)
    run.sent_path.unlink()  # as if the process had been killed before it noted the delivery
    (run.folder / "run_id").unlink()
    again = RunLog(tmp_path / "r", "key/1", "t")
    assert again.send_to(store)
    assert curve(store, again, "train/loss") == [(1, 0.5)]
    assert len(store.client.search_runs([store.experiment_id])) == 1


def test_a_training_begun_anew_doubles_no_step(store: TrackingStore, tmp_path: Path) -> None:
    for _ in range(2):
        run = RunLog(tmp_path / "r", "key/1", "t")
        for step in (1, 2, 3):
            run.log_metrics(step, {"train/loss": step / 10})
        run.send_to(store)
    run.log_metrics(4, {"train/loss": 0.4})
    run.send_to(store)
    assert curve(store, run, "train/loss") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]


def test_a_status_is_put_back_after_another_hand_changed_it(store: TrackingStore, tmp_path: Path) -> None:
    run = RunLog(tmp_path / "r", "key/1", "t")
    run.set_status(State.COMPLETE)
    run.send_to(store)
    ended = store.client.get_run(run.ensure_run_id(store)).info.end_time
    store.client.set_terminated(run.ensure_run_id(store), "FAILED")
    again = RunLog(tmp_path / "r", "key/1", "t")
    again.repeat_status()
    again.send_to(store)
    info = store.client.get_run(run.ensure_run_id(store)).info
    assert (info.status, info.end_time) == ("FINISHED", ended)


def test_a_torn_last_event_is_cut(store: TrackingStore, tmp_path: Path) -> None:
    run = RunLog(tmp_path / "r", "key/1", "t")
    run.log_metrics(1, {"train/loss": 0.5})
    with run.log_path.open("a") as stream:
        stream.write('{"metrics": {"train/lo')
    again = RunLog(tmp_path / "r", "key/1", "t")
    again.log_metrics(2, {"train/loss": 0.4})
    assert again.send_to(store)
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
        run = RunLog(tmp_path / "r", "key/1", "t")
        run.log_metrics(1, {"train/loss": 0.5})
        assert run.send_to(store)
        stop(process)
        run.log_metrics(2, {"train/loss": 0.4})
        assert not run.send_to(store)
        assert "127.0.0.1" in run.problem
        run.log_metrics(3, {"train/loss": 0.3})
        process = start(url, command)
        assert RunLog(tmp_path / "r", "key/1", "t").send_to(store)
        assert curve(store, run, "train/loss") == [(1, 0.5), (2, 0.4), (3, 0.3)]
    finally:
        stop(process)


@pytest.mark.long
def test_ten_processes_open_a_fresh_store(tmp_path: Path) -> None:
    processes = [PROCESSES.Process(target=open_fresh_store, args=(str(tmp_path),)) for _ in range(10)]
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
    with pytest.raises(InvalidInput) as caught:
        open_store(TrackingSettings("nothing://me:secret@host/x", "x"), tmp_path)
    assert "nothing://***@host/x" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        Evaluation(5, 0.5, 80, {"loss": 0.5}, 1.5),
        TrainingResult(State.PRUNED, 0.5, {"loss": 0.1}, 5, 0.5, 9.0, 90.9, 100.0, "bad"),
        TrialRecord(3, {"model.dropout": 0.1}, TrainingResult(State.COMPLETE, 0.9)),
        Calibration(0.01, 0.005, 90.9, "cpu", 1),
    ],
)
def test_records_come_back_equal_from_json(record) -> None:  # type: ignore[no-untyped-def]
    assert type(record).from_json(record.to_json()) == record
    with pytest.raises(NewerRecord, match="has no field colour"):
        type(record).from_json(json.dumps(json.loads(record.to_json()) | {"colour": 1}))


def test_the_environment_names_what_a_run_was_made_with() -> None:
    assert {"python", "torch", "transformers", "optuna", "mlflow"} <= set(environment.versions())
    assert environment.machine()


def test_passwords_in_urls_are_not_shown() -> None:
    shown = mask_secrets("python -m src.sweep tracking.uri=postgresql+psycopg://me:pa:s@s@host/db text='a: b@c'")
    assert shown == "python -m src.sweep tracking.uri=postgresql+psycopg://***@host/db text='a: b@c'"


def test_a_run_that_is_delivered_late_began_when_it_began(store: TrackingStore, tmp_path: Path) -> None:
    run = RunLog(tmp_path / "late", "late", "late")
    run.set_status(State.RUNNING)
    time.sleep(0.3)
    run.set_status(State.COMPLETE)
    time.sleep(0.3)
    assert run.send_to(store)
    info = store.client.get_run(run.known_run_id).info
    assert 300 <= info.end_time - info.start_time < 600


def test_a_view_is_kept_as_mlflows_own_ui_keeps_one(store: TrackingStore) -> None:
    ui_views.save_view(
        store, "mine", "Mine", "tags.kind = 'trial'", ui_views.SortOrder("metrics.`score`", True), ["params.`a`"]
    )
    (value,) = [
        v for k, v in store.client.get_experiment(store.experiment_id).tags.items() if k == f"{ui_views.TAG}mine"
    ]
    kept = json.loads(value)
    assert kept["name"] == "Mine"
    state = json.loads(zlib.decompress(base64.b64decode(kept["state"].removeprefix("deflate;"))))
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`score`", False)
    assert state["selectedColumns"] == ["params.`a`"]
