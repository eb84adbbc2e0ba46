"""A training as its MLflow run tells it: config, versions, threads, precision, and every number at every step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.errors import Refusal, first_line
from src.evidence.store import Store
from src.records import State

REPRODUCIBLE = ("trial", "repeat", "train")
CALIBRATION = "validation/calibration_error"  # worked out afterwards, from the kept weights
ASIDE = ("seconds", "model/ms_per_1000_texts", CALIBRATION)  # timings differ from run to run

Curves = Mapping[str, Mapping[int, float]]  # metric -> step -> value


@dataclass(frozen=True)
class Recorded:
    """What is on record of one training."""

    run_id: str
    name: str
    kind: str
    state: str
    steps: int | None  # optimizer steps it got to
    yaml: str
    versions: Mapping[str, str]
    machine: str
    threads: int | None
    precision: str | None  # bf16, fp16 or fp32
    micro_batch: int | None  # examples at a time, where memory was too short for as many as the config says
    devices: int  # that trained it together
    data: str  # fingerprint
    curves: Curves


def read(store: Store, run_id: str) -> Recorded:
    """Raises Refusal if there is no such run, or if it is not a training."""
    run = _run(store, run_id)
    tags = run.data.tags
    ended = tags.get("trial.state") in [state for state in State if state.final] and "trial.steps" in tags
    if tags.get("kind") not in REPRODUCIBLE or not (ended or tags.get("trial.state") == State.FAIL):
        raise Refusal(
            f"run is {run_id}, a run of kind {tags.get('kind', 'unknown')} and state "
            f"{tags.get('trial.state', 'unknown')}; trainings that have ended can be reproduced, of the kinds "
            f"{', '.join(REPRODUCIBLE)}."
        )
    names = [name for name in run.data.metrics if name not in ASIDE]
    curves = {name: {m.step: m.value for m in store.client.get_metric_history(run_id, name)} for name in names}
    steps, threads = tags.get("trial.steps"), tags.get("threads")
    return Recorded(
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
    )


def tags(store: Store, run_id: str) -> Mapping[str, str]:
    """The run's tags. Raises Refusal if there is no such run."""
    return dict(_run(store, run_id).data.tags)


def note(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Tags on the run: that it was reproduced, and how."""
    for key, value in tags.items():
        store.client.set_tag(run_id, key, value)


def _run(store: Store, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        raise Refusal(f"{store.address} has no run {run_id}: {first_line(error)}") from error


def _text(store: Store, run_id: str, file: str) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(store.uri)
    try:
        return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{file}"))
    except (MlflowException, OSError) as error:
        raise Refusal(f"The run {run_id} has no {file} on record, and without it it cannot be reproduced.") from error
