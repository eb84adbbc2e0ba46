"""An MLflow run that is written to a local log first, and sent to MLflow in order, each event once.

A line of `outbox.jsonl` is one event; `delivered` holds how many bytes of it MLflow has. Sending may be repeated:
MLflow stores the same metric with the same timestamp, the same param and the same tag once.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.core.errors import first_line
from src.core.paths import atomic_write
from src.core.record_files import SCHEMA, SCHEMA_TAG, read_record, with_schema
from src.core.records import State
from src.tracking.store import TrackingStore

STATUS = {
    State.COMPLETE: "FINISHED",
    State.PRUNED: "KILLED",
    State.FAIL: "FAILED",
    State.RUNNING: "RUNNING",
    State.PAUSED: "SCHEDULED",
}
OPEN_STATUSES = (STATUS[State.RUNNING], STATUS[State.PAUSED])
SENT_FILE = "delivered"  # in a run's folder: how many bytes of its log MLflow has
MAX_PARAM_LENGTH = 6000  # MLflow's own limit
RETRY_SECONDS = 30.0  # between two attempts to reach a store that is down
MAX_METRICS_PER_REQUEST = 1000  # metrics in one request, MLflow's own limit
RUN_ID = re.compile(r"[0-9a-f]{32}")
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # columns and rows


def read_run_id(folder: Path) -> str | None:
    """The id of the MLflow run whose log is in `folder`; None if it was not created yet, or the file is damaged."""

    def parse(text: str) -> str:
        if not RUN_ID.fullmatch(text):
            raise ValueError("it is no run id")
        return text

    return read_record(folder / "run_id", parse)


class RunTail:
    """The latest metrics, tags and status in a run's log. Reads it as it grows, without locking it."""

    def __init__(self, folder: Path) -> None:
        self.log_path = folder / "outbox.jsonl"
        self.metrics: dict[str, float] = {}  # the last value of each
        self.tags: dict[str, str] = {}
        self.status: str | None = None
        self._read_bytes = 0

    def read(self) -> "RunTail":
        """Read the complete lines that are new."""
        size = self.log_path.stat().st_size if self.log_path.exists() else 0
        if size < self._read_bytes:
            self._read_bytes = 0  # a new log of the same name
        if size == self._read_bytes:
            return self
        with self.log_path.open("rb") as stream:
            stream.seek(self._read_bytes)
            lines, _, _ = stream.read().rpartition(b"\n")
        for line in lines.splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                self.metrics |= event.get("metrics", {})
                self.tags |= event.get("tags", {})
                self.status = event.get("status", self.status)
        self._read_bytes += len(lines) + 1 if lines else 0
        return self


class RunLog:
    """One run, in `folder`. `key` identifies it, so that a run that a killed process has created is found again."""

    def __init__(self, folder: Path, key: str, name: str, parent: str | None = None) -> None:
        self.folder, self.key, self.name, self.parent = folder, key, name, parent
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path, self.sent_path = folder / "outbox.jsonl", folder / SENT_FILE
        self.problem: str | None = None
        self._retry_after = 0.0
        self._status: dict[str, Any] | None = None  # the last status event
        self.has_params = False  # whether params were logged
        self._last_step: dict[str, int] = {}
        self._read_bytes = 0  # bytes of the outbox that the fields above describe
        self._lock = FileLock(folder / "outbox.lock")  # two commands may share a study and its run
        with self._lock:
            self._cut_torn_line()
            self._catch_up()

    def _catch_up(self) -> None:
        """Read what this process or another has written since the last call."""
        for event in self._events(self._read_bytes):
            self._status = event if "status" in event else self._status
            self.has_params = self.has_params or "params" in event
            for metric in event.get("metrics", {}):
                self._last_step[metric] = max(self._last_step.get(metric, -1), event["step"])
        self._read_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0

    # --- writing ---

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log params; values are cut at MLflow's limit."""
        self._write({"params": {k: str(v)[:MAX_PARAM_LENGTH] for k, v in values.items()}})

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; None is left out."""
        self._write({"tags": {k: str(v) for k, v in values.items() if v is not None}})

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics at one step. A metric is skipped if it was logged at this step or a later one before."""
        with self._lock:
            self._catch_up()
            new = {k: float(v) for k, v in values.items() if step > self._last_step.get(k, -1)}
            if new:
                self._write({"metrics": new, "step": step})

    def log_text(self, file: str, content: str) -> None:
        """Log a text artifact."""
        self._write({"text": content, "file": file})

    def log_tables(self, tables: Mapping[str, Table]) -> None:
        """Log table artifacts (file -> columns and rows) as MLflow's log_table does."""
        for file, (columns, rows) in tables.items():
            self.log_text(file, json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}))
        logged = [{"path": file, "type": "table"} for file in tables]
        self.set_tags({"mlflow.loggedArtifacts": json.dumps(logged)})

    def set_status(self, state: State) -> None:
        """Log the status that stands for `state`."""
        self._status = self._write({"status": STATUS[state]})

    def repeat_status(self) -> None:
        """Log the last status again, with its time: for after a call that changes a run's status itself."""
        if self._status is not None:
            self._write(self._status)

    def read_text(self, file: str) -> str | None:
        """The latest content of a text artifact, sent or not; None if there is none."""
        texts = [event["text"] for event in self._events(0) if event.get("file") == file]
        return texts[-1] if texts else None

    def read_curves(self) -> dict[str, dict[int, float]]:
        """Every metric: step -> value."""
        curves: dict[str, dict[int, float]] = {}
        for event in self._events(0):
            for name, value in event.get("metrics", {}).items():
                curves.setdefault(name, {})[event["step"]] = value
        return curves

    @property
    def has_ended(self) -> bool:
        """Whether a final status was logged."""
        return self._status is not None and self._status["status"] not in OPEN_STATUSES

    def _write(self, event: Mapping[str, Any]) -> dict[str, Any]:
        written = with_schema({"time": int(time.time() * 1000), **event})
        with self._lock:
            before = self.log_path.stat().st_size if self.log_path.exists() else 0
            try:
                with self.log_path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(written) + "\n")
            except OSError:  # on a full disk, a part of the line may have been written
                if self.log_path.exists():
                    os.truncate(self.log_path, before)
                raise
        return written

    def _cut_torn_line(self) -> None:
        if self.log_path.exists():
            content = self.log_path.read_bytes()
            self.log_path.write_bytes(content[: content.rfind(b"\n") + 1]) if not content.endswith(b"\n") else None

    # --- delivering ---

    def load_logged_steps(self, store: TrackingStore) -> None:
        """Read from MLflow which steps it has: another machine may have logged more than this one's log holds."""
        run_id = self.ensure_run_id(store)
        for metric in store.client.get_run(run_id).data.metrics:
            steps = [params.step for params in store.client.get_metric_history(run_id, metric)]
            self._last_step[metric] = max([self._last_step.get(metric, -1), *steps])

    @property
    def known_run_id(self) -> str | None:
        """The id of the MLflow run, or None if it was not created yet."""
        return read_run_id(self.folder)

    def ensure_run_id(self, store: TrackingStore) -> str:
        """The id of the MLflow run, which is created if need be."""
        with self._lock:
            if known := self.known_run_id:
                return known
            run_id = store.find_run(self.key) or self._create(store)
            atomic_write(self.folder / "run_id", run_id)
            return run_id

    def _create(self, store: TrackingStore) -> str:
        tags = {"trialbook.key": self.key, SCHEMA_TAG: str(SCHEMA)} | (
            {"mlflow.parentRunId": self.parent} if self.parent else {}
        )
        began = next((event["time"] for event in self._events(0)), None)  # it may be sent long afterwards
        run = store.client.create_run(store.experiment_id, began, tags, run_name=self.name)
        return str(run.info.run_id)

    def send_to(self, store: TrackingStore, retry_now: bool = False) -> bool:
        """Send the events that MLflow does not have.

        Args:
            store: to send them to.
            retry_now: try even if the last try failed within RETRY_SECONDS. Trainings do not, so that a store that is
                down does not slow them.

        Returns:
            Whether MLflow has everything. If not, `problem` says why.
        """
        if not retry_now and time.monotonic() < self._retry_after:
            return False
        with self._lock:
            return self._send_new_events(store)

    def _send_new_events(self, store: TrackingStore) -> bool:
        try:
            start = read_record(self.sent_path, int) or 0
            end = self.log_path.stat().st_size if self.log_path.exists() else 0
            if start < end:
                self._send(store, list(self._events(start)))
                atomic_write(self.sent_path, str(end))
            self.problem = None
        except Exception as error:  # a server that is down, slow or full must not end a training
            self.problem = first_line(error)
            self._retry_after = time.monotonic() + RETRY_SECONDS
        return self.problem is None

    def _send(self, store: TrackingStore, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id = self.ensure_run_id(store)
        metrics = [
            Metric(key, value, event["time"], event["step"])
            for event in events
            for key, value in event.get("metrics", {}).items()
        ]
        params = {k: v for event in events for k, v in event.get("params", {}).items()}
        tags = {k: v for event in events for k, v in event.get("tags", {}).items()}
        for first in range(0, max(len(metrics), 1), MAX_METRICS_PER_REQUEST):
            store.client.log_batch(
                run_id,
                metrics=metrics[first : first + MAX_METRICS_PER_REQUEST],
                params=[Param(k, v) for k, v in params.items()] if first == 0 else [],
                tags=[RunTag(k, v) for k, v in tags.items()] if first == 0 else [],
            )
        for event in events:
            if "text" in event:
                store.client.log_text(run_id, event["text"], event["file"])
            if event.get("status") in OPEN_STATUSES:
                store.client.update_run(run_id, status=event["status"])
            elif "status" in event:
                store.client.set_terminated(run_id, event["status"], end_time=event["time"])

    def _events(self, start: int) -> Iterator[dict[str, Any]]:
        if not self.log_path.exists():
            return
        with self.log_path.open(encoding="utf-8") as stream:
            stream.seek(start)
            for line in stream:
                yield json.loads(line)
