"""Runs that were deleted in MLflow, or with its database, are sent again from what the study has on disk."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest

from src.tracking.store import DATABASE
from tests.support.commands import COMPARE, INLINE, LETTERS, Done, Place, client_of, runs_of


@pytest.fixture
def copied(judged: tuple[Place, Done], tmp_path: Path) -> Place:
    """A copy of the study and its comparison."""
    shutil.copytree(judged[0].folder, tmp_path / "copy")
    return Place(tmp_path / "copy")


def summary(place: Place) -> dict[str, tuple[dict[str, str], dict[str, float], str]]:
    """By name: the run's params, metrics and final status. Runs of the same name are told apart by their parents."""
    runs = {run.info.run_id: run for run in runs_of(place)}
    found = {}
    for run in runs.values():
        parent = runs.get(run.data.tags.get("mlflow.parentRunId", ""))
        name = f"{parent.info.run_name if parent else ''}/{run.info.run_name}"
        found[name] = (run.data.params, run.data.metrics, run.info.status)
    assert len(found) == len(runs)
    return found


@pytest.mark.parametrize(
    "lost", [("study", "repeat"), ("trial", "contender"), ()], ids=["study, repeat", "trial, contender", "all"]
)
def test_what_was_deleted_is_sent_again(copied: Place, lost: Sequence[str]) -> None:
    """Two runs of different kinds, or all."""
    before = summary(copied)
    client = client_of(copied)
    for kind in lost:
        client.delete_run(runs_of(copied, kind)[0].info.run_id)
    if not lost:
        (copied.folder / DATABASE).unlink()
    done = copied.sweep(*LETTERS, *INLINE, "study.name=letters", "study.report=true")
    assert done.code == 0, done.err
    assert "MLflow has lost" in done.err + done.out
    done = copied.run("src.compare", *COMPARE)
    assert done.code == 0, done.err
    after = summary(copied)
    assert after.keys() == before.keys()
    for name, (params, metrics, status) in before.items():
        assert after[name][0] == params, name
        assert after[name][1] == pytest.approx(metrics, nan_ok=True), name
        assert after[name][2] == status, name
    again = copied.sweep(*LETTERS, *INLINE, "study.name=letters", "study.report=true")
    assert "MLflow has lost" not in again.err + again.out
    assert Counter(run.data.tags["kind"] for run in runs_of(copied))["study"] == 1
    mlflow.set_tracking_uri(f"sqlite:///{copied.folder}/{DATABASE}")
    (study,) = runs_of(copied, "study")
    assert mlflow.transformers.load_model(study.data.tags["best.model"])("abcd")[0]["label"] in ("low", "high")
