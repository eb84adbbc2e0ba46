"""A run's records: durable in a local file first, delivered to MLflow in order, each once.

A line of `outbox.jsonl` is one event; `delivered` holds how many bytes of it MLflow has. Delivery can be repeated:
the same metric with the same timestamp, the same param and the same tag are stored once.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.errors import first_line
from src.evidence.store import Store
from src.records import State

STATUS = {
    State.COMPLETE: "FINISHED",
    State.PRUNED: "KILLED",
    State.FAIL: "FAILED",
    State.RUNNING: "RUNNING",
    State.PAUSED: "SCHEDULED",
}
OPEN = (STATUS[State.RUNNING], STATUS[State.PAUSED])
PARAM_LENGTH = 6000  # MLflow's own limit
QUIET_SECONDS = 30.0  # between two tries to reach a store that is down
BATCH = 1000  # metrics in one request, MLflow's own limit
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # columns and rows


class Tail:
    """What the run in `folder` says last, for who looks on: reads as it grows, writes nothing, holds nobody up."""

    def __init__(self, folder: Path) -> None:
        self.outbox = folder / "outbox.jsonl"
        self.metrics: dict[str, float] = {}  # the last value of each
        self.tags: dict[str, str] = {}
        self.status: str | None = None
        self._seen = 0

    def read(self) -> "Tail":
        """Take in the whole lines that are new."""
        size = self.outbox.stat().st_size if self.outbox.exists() else 0
        if size < self._seen:
            self._seen = 0  # another one of the same name
        if size == self._seen:
            return self
        with self.outbox.open("rb") as stream:
            stream.seek(self._seen)
            whole, _, _ = stream.read().rpartition(b"\n")
        for line in whole.splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                self.metrics |= event.get("metrics", {})
                self.tags |= event.get("tags", {})
                self.status = event.get("status", self.status)
        self._seen += len(whole) + 1 if whole else 0
        return self


class Run:
    """One run in `folder`. `key` names it for ever, so that a run begun by a killed process is found again."""

    def __init__(self, folder: Path, key: str, name: str, parent: str | None = None) -> None:
        self.folder, self.key, self.name, self.parent = folder, key, name, parent
        folder.mkdir(parents=True, exist_ok=True)
        self.outbox, self.mark = folder / "outbox.jsonl", folder / "delivered"
        self.problem: str | None = None
        self._quiet_until = 0.0
        self._status: dict[str, Any] | None = None  # the last status event
        self.described = False  # whether its params are
        self._last: dict[str, int] = {}
        self._seen = 0  # bytes of the outbox that the fields above speak of
        self._lock = FileLock(folder / "outbox.lock")  # two launches may share a study, and its run
        with self._lock:
            self._cut_torn_line()
            self._catch_up()

    def _catch_up(self) -> None:
        """Read what was written since, by this process or another."""
        for event in self._events(self._seen):
            self._status = event if "status" in event else self._status
            self.described = self.described or "params" in event
            for metric in event.get("metrics", {}):
                self._last[metric] = max(self._last.get(metric, -1), event["step"])
        self._seen = self.outbox.stat().st_size if self.outbox.exists() else 0

    # --- writing ---

    def params(self, values: Mapping[str, Any]) -> None:
        self._write({"params": {k: str(v)[:PARAM_LENGTH] for k, v in values.items()}})

    def tags(self, values: Mapping[str, Any]) -> None:
        self._write({"tags": {k: str(v) for k, v in values.items() if v is not None}})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves. A step that a curve has already (a training begun anew) is not written twice."""
        with self._lock:
            self._catch_up()
            new = {k: float(v) for k, v in values.items() if step > self._last.get(k, -1)}
            if new:
                self._write({"metrics": new, "step": step})

    def text(self, file: str, content: str) -> None:
        """A text artifact."""
        self._write({"text": content, "file": file})

    def tables(self, tables: Mapping[str, Table]) -> None:
        """Table artifacts (file -> columns and rows), as MLflow's own log_table writes them."""
        for file, (columns, rows) in tables.items():
            self.text(file, json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}))
        logged = [{"path": file, "type": "table"} for file in tables]
        self.tags({"mlflow.loggedArtifacts": json.dumps(logged)})

    def status(self, state: State) -> None:
        self._status = self._write({"status": STATUS[state]})

    def repeat_status(self) -> None:
        """Write the last status once more, with its time: for after a call that changes a run's status on its own."""
        if self._status is not None:
            self._write(self._status)

    def read_text(self, file: str) -> str | None:
        """The text artifact as it was last written here, delivered or not."""
        texts = [event["text"] for event in self._events(0) if event.get("file") == file]
        return texts[-1] if texts else None

    def curves(self) -> dict[str, dict[int, float]]:
        """Every metric written here: step -> value."""
        found: dict[str, dict[int, float]] = {}
        for event in self._events(0):
            for name, value in event.get("metrics", {}).items():
                found.setdefault(name, {})[event["step"]] = value
        return found

    @property
    def ended(self) -> bool:
        """Whether its end is written."""
        return self._status is not None and self._status["status"] not in OPEN

    def _write(self, event: Mapping[str, Any]) -> dict[str, Any]:
        written = {"time": int(time.time() * 1000), **event}
        with self._lock:
            before = self.outbox.stat().st_size if self.outbox.exists() else 0
            try:
                with self.outbox.open("a") as stream:
                    stream.write(json.dumps(written) + "\n")
            except OSError:  # a full disk may have taken half of the line
                if self.outbox.exists():
                    os.truncate(self.outbox, before)
                raise
        return written

    def _cut_torn_line(self) -> None:
        if self.outbox.exists():
            content = self.outbox.read_bytes()
            self.outbox.write_bytes(content[: content.rfind(b"\n") + 1]) if not content.endswith(b"\n") else None

    # --- delivering ---

    def recall(self, store: Store) -> None:
        """Learn which steps MLflow has already: this run was another machine's, whose last words may be only there."""
        run_id = self.run_id(store)
        for metric in store.client.get_run(run_id).data.metrics:
            steps = [point.step for point in store.client.get_metric_history(run_id, metric)]
            self._last[metric] = max([self._last.get(metric, -1), *steps])

    @property
    def known_id(self) -> str | None:
        """The MLflow run's id, if MLflow has given one yet."""
        file = self.folder / "run_id"
        return file.read_text() if file.exists() else None

    def run_id(self, store: Store) -> str:
        """The MLflow run, created on first use."""
        with self._lock:
            if known := self.known_id:
                return known
            run_id = store.find_run(self.key) or self._create(store)
            scratch = self.folder / "run_id.part"
            scratch.write_text(run_id)
            scratch.rename(self.folder / "run_id")
            return run_id

    def _create(self, store: Store) -> str:
        tags = {"trialbook.key": self.key} | ({"mlflow.parentRunId": self.parent} if self.parent else {})
        began = next((event["time"] for event in self._events(0)), None)  # it may be delivered long afterwards
        made = store.client.create_run(store.experiment_id, began, tags, run_name=self.name)
        return str(made.info.run_id)

    def deliver(self, store: Store, patient: bool = False) -> bool:
        """Send what MLflow does not have yet; False (and `problem`) if it could not be sent: try again later.

        After a failure the next try waits a while, so that a training is not held up by a store that is down; a
        `patient` caller, with nothing else to do, tries at once.
        """
        if not patient and time.monotonic() < self._quiet_until:
            return False
        with self._lock:
            return self._deliver(store)

    def _deliver(self, store: Store) -> bool:
        try:
            start = int(self.mark.read_text()) if self.mark.exists() else 0
            end = self.outbox.stat().st_size if self.outbox.exists() else 0
            if start < end:
                self._send(store, list(self._events(start)))
                scratch = self.folder / "delivered.part"
                scratch.write_text(str(end))
                scratch.rename(self.mark)
            self.problem = None
        except Exception as error:  # a tracker that is down, slow or full must not end a training
            self.problem = first_line(error)
            self._quiet_until = time.monotonic() + QUIET_SECONDS
        return self.problem is None

    def _send(self, store: Store, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id = self.run_id(store)
        metrics = [
            Metric(key, value, event["time"], event["step"])
            for event in events
            for key, value in event.get("metrics", {}).items()
        ]
        params = {k: v for event in events for k, v in event.get("params", {}).items()}
        tags = {k: v for event in events for k, v in event.get("tags", {}).items()}
        for first in range(0, max(len(metrics), 1), BATCH):
            store.client.log_batch(
                run_id,
                metrics=metrics[first : first + BATCH],
                params=[Param(k, v) for k, v in params.items()] if first == 0 else [],
                tags=[RunTag(k, v) for k, v in tags.items()] if first == 0 else [],
            )
        for event in events:
            if "text" in event:
                store.client.log_text(run_id, event["text"], event["file"])
            if event.get("status") in OPEN:
                store.client.update_run(run_id, status=event["status"])
            elif "status" in event:
                store.client.set_terminated(run_id, event["status"], end_time=event["time"])

    def _events(self, start: int) -> Iterator[dict[str, Any]]:
        if not self.outbox.exists():
            return
        with self.outbox.open() as stream:
            stream.seek(start)
            for line in stream:
                yield json.loads(line)
