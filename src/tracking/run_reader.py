"""Reads a training from its MLflow run: config, versions, threads, precision, and every metric at every step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.core.errors import InvalidInput, first_line
from src.core.record_files import SCHEMA_TAG, check_schema
from src.core.records import State
from src.tracking.store import TrackingStore

REPRODUCIBLE_KINDS = ("trial", "repeat", "refit", "student", "train")
CODE_TAG = "code.sha256."  # before the path of each file of own code
CALIBRATION = "validation/calibration_error"  # computed afterwards from the best weights
NOT_COMPARED = ("seconds", "training_seconds", "model/ms_per_1000_texts", CALIBRATION)  # timings differ from run to run

Curves = Mapping[str, Mapping[int, float]]  # metric -> step -> value


@dataclass(frozen=True)
class RecordedRun:
    """What an MLflow run says of a training."""

    run_id: str
    name: str
    kind: str
    state: str
    steps: int | None  # optimizer steps done
    yaml: str
    versions: Mapping[str, str]
    machine: str
    threads: int | None
    precision: str | None  # bf16, fp16 or fp32
    micro_batch: int | None  # micro-batch, if memory was too small for the config's
    devices: int  # devices that trained it together
    data: str  # fingerprint
    curves: Curves
    refit_share: float | None  # of a refit or a student: the share of its schedule that was trained
    trained_on: str  # of a refit or a student: the parts of the data
    soft_labels: str | None  # of a student: the file of what it learned, seen from the project's folder
    code: Mapping[str, str]  # sha256 of each file of own code, by its path in the working folder


@dataclass(frozen=True)
class RecordedAverage:
    """What an MLflow run says of an average of weights."""

    name: str
    members: tuple[str, ...]  # ids of their runs
    sha256: str  # of the weights' file


def read_average(store: TrackingStore, run_id: str) -> RecordedAverage | None:
    """The average that the run is of; None if it is of something else. Raises InvalidInput if there is no such run."""
    run = _run(store, run_id)
    tags = run.data.tags
    check_schema(tags.get(SCHEMA_TAG, 1), f"The run {run_id}")
    if "members.runs" not in tags or "weights.sha256" not in tags:
        return None
    return RecordedAverage(str(run.info.run_name), tuple(tags["members.runs"].split(",")), tags["weights.sha256"])


def read_run(store: TrackingStore, run_id: str) -> RecordedRun:
    """Raises InvalidInput if there is no such run, if it is no training, or if a newer version recorded it."""
    run = _run(store, run_id)
    tags = run.data.tags
    check_schema(tags.get(SCHEMA_TAG, 1), f"The run {run_id}")
    ended = tags.get("trial.state") in [state for state in State if state.is_final] and "trial.steps" in tags
    if tags.get("kind") not in REPRODUCIBLE_KINDS or not (ended or tags.get("trial.state") == State.FAIL):
        raise InvalidInput(
            f"run is {run_id}, a run of kind {tags.get('kind', 'unknown')} and state "
            f"{tags.get('trial.state', 'unknown')}; trainings that have ended can be reproduced, of the kinds "
            f"{', '.join(REPRODUCIBLE_KINDS)}, and averages of their weights."
        )
    names = [name for name in run.data.metrics if name not in NOT_COMPARED]
    curves = {name: {m.step: m.value for m in store.client.get_metric_history(run_id, name)} for name in names}
    steps, threads = tags.get("trial.steps"), tags.get("threads")
    return RecordedRun(
        run_id=run_id,
        name=str(run.info.run_name),
        kind=tags["kind"],
        state=tags["trial.state"],
        steps=int(steps) if steps else None,
        yaml=_text(store, run_id, "config.yaml"),
        versions=json.loads(_text(store, run_id, "environment.json")),
        machine=tags.get("machine", ""),
        threads=int(threads) if threads else None,
        precision=tags.get("precision"),
        micro_batch=int(tags["micro_batch"]) if "micro_batch" in tags else None,
        devices=int(tags.get("devices", 1)),
        data=tags.get("data.fingerprint", ""),
        curves=curves,
        refit_share=float(tags["refit.share"]) if "refit.share" in tags else None,
        trained_on=tags.get("trained.on", ""),
        soft_labels=tags.get("soft.labels"),
        code={key.removeprefix(CODE_TAG): value for key, value in tags.items() if key.startswith(CODE_TAG)},
    )


def read_tags(store: TrackingStore, run_id: str) -> Mapping[str, str]:
    """The run's tags. Raises InvalidInput if there is no such run."""
    return dict(_run(store, run_id).data.tags)


def set_tags(store: TrackingStore, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on the run, such as that it was reproduced."""
    for key, value in tags.items():
        store.client.set_tag(run_id, key, value)


def _run(store: TrackingStore, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        raise InvalidInput(f"{store.address} has no run {run_id}: {first_line(error)}") from error


def _text(store: TrackingStore, run_id: str, file: str) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(store.uri)
    try:
        return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{file}"))
    except (MlflowException, OSError) as error:
        raise InvalidInput(
            f"The run {run_id} has no {file} on record, and without it it cannot be reproduced."
        ) from error
