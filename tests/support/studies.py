"""Studies without trainings: opened, searched to their end, and worked on by several processes."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from src.config.settings import TrackingSettings
from src.core.records import State, TrainingResult
from src.search import trial_lifecycle
from src.search.space import build_space
from src.search.study import Study
from src.tracking.store import open_store
from tests.support.data import settings_of
from tests.support.processes import PROCESSES


def open_book(folder: Path, *overrides: str) -> Study:
    settings = settings_of("study.name=s", *overrides)
    study = Study(settings, build_space(settings), "maximize", folder)
    study.create({"space": study.space.describe()})
    return study


def loss_free(params: dict[str, float]) -> float:
    """A smooth made-up score: the machinery is under test, not a training."""
    return 1 - abs(float(params.get("optimizer.learning_rate", 0)) - 1e-4) - float(params.get("model.dropout", 0)) / 9


def finish(study: Study, most: int = 10**6) -> list[dict[str, object]]:
    """Run up to `most` further trials without any training."""
    points = []
    while len(points) < most and (claim := trial_lifecycle.claim_trial(study)) is not None:
        points.append(claim.params)
        trial_lifecycle.end_trial(
            study, claim.number, TrainingResult(State.COMPLETE, score=loss_free(claim.params), metrics={})
        )
    return points


def feed(folder: str, *overrides: str) -> None:
    """A worker whose training is a short sleep."""
    study = open_book(Path(folder), *overrides)
    while (claim := trial_lifecycle.claim_trial(study)) is not None:
        time.sleep(0.01)
        trial_lifecycle.end_trial(study, claim.number, TrainingResult(State.COMPLETE, score=claim.number / 100))


def claim_and_hang(folder: str, *overrides: str) -> None:
    trial_lifecycle.claim_trial(open_book(Path(folder), *overrides))
    (Path(folder) / "claimed").touch()
    time.sleep(600)


def make_thirty(folders: Sequence[Path], *overrides: str) -> None:
    """A worker in each of the folders; together they make 30 trials, and no point twice."""
    workers = [PROCESSES.Process(target=feed, args=(str(folder), *overrides)) for folder in folders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    trials = open_book(folders[0], *overrides).trials()
    assert [t.number for t in trials] == list(range(30))
    assert {t.state for t in trials} == {State.COMPLETE}
    assert len({json.dumps(dict(t.params), sort_keys=True) for t in trials}) == 30


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


def open_fresh_store(folder: str) -> None:
    """The first process to come makes the MLflow store; they all find the same experiment."""
    os.chdir(folder)
    assert open_store(TrackingSettings(None, "reviews"), Path(folder)).experiment_id == "1"
