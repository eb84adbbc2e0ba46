"""A model's speed is measured while no training of another worker runs."""

import time
from pathlib import Path
from typing import cast

import pytest

from src.core.records import State, TrainingResult
from src.workers import model_speed
from src.workers.context import WorkerContext
from src.workers.speed_lock import SpeedLock
from tests.support.processes import PROCESSES
from tests.support.studies import wait_for

STEP_SECONDS = 0.05


def train(folder: str, name: str) -> None:
    """A training with many short steps, each of which is written down."""
    lock = SpeedLock(Path(folder) / "locks")
    with lock.training(), (Path(folder) / f"{name}.steps").open("a") as log:
        while not (Path(folder) / "stop").exists():
            time.sleep(STEP_SECONDS)
            log.write(f"{time.time()}\n")
            log.flush()
            lock.wait_while_measured()


def steps(folder: Path, name: str) -> list[float]:
    return [float(line) for line in (folder / f"{name}.steps").read_text().split()]


def test_trainings_wait_while_one_measures_and_go_on_after_it(tmp_path: Path) -> None:
    workers = [PROCESSES.Process(target=train, args=(str(tmp_path), name)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    try:
        for name in ("a", "b"):
            wait_for(tmp_path / f"{name}.steps")
        lock = SpeedLock(tmp_path / "locks")
        with lock.measuring() as is_alone:
            assert is_alone
            began = time.time()
            time.sleep(10 * STEP_SECONDS)
            ended = time.time()
        time.sleep(20 * STEP_SECONDS)
        for name in ("a", "b"):
            assert not [t for t in steps(tmp_path, name) if began < t < ended]
            assert [t for t in steps(tmp_path, name) if t > ended]
    finally:
        (tmp_path / "stop").touch()
        for worker in workers:
            worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_killed_training_holds_nobody_up(tmp_path: Path) -> None:
    worker = PROCESSES.Process(target=train, args=(str(tmp_path), "a"))
    worker.start()
    wait_for(tmp_path / "a.steps")
    worker.kill()
    worker.join(60)
    with SpeedLock(tmp_path / "locks").measuring() as is_alone:
        assert is_alone


def test_a_training_that_does_not_stop_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.workers.speed_lock.LONGEST_WAIT_SECONDS", 0.2)
    with SpeedLock(tmp_path).training(), SpeedLock(tmp_path).measuring() as is_alone:
        assert not is_alone
    with SpeedLock(tmp_path).measuring() as is_alone:
        assert is_alone


def test_a_measurement_that_fails_fails_its_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(model_speed, "measure_speed_alone", out_of_memory)
    lock = SpeedLock(tmp_path)
    done = TrainingResult(State.COMPLETE, 0.9, training_seconds=5.0)
    context = cast("WorkerContext", None)
    result = model_speed.train_and_measure(context, tmp_path, lock, lambda: done)
    assert (result.state, result.reason) == ("FAIL", "its speed could not be measured: RuntimeError: no memory is left")
    assert model_speed.train_and_measure(context, tmp_path, lock, lambda: done, measures=False) == done
    assert model_speed.train_and_measure(context, tmp_path, None, lambda: done) == done
    with lock.measuring() as is_alone:
        assert is_alone


def test_measurements_come_one_after_another(tmp_path: Path) -> None:
    """Two workers whose trainings end at the same time."""
    first, second = SpeedLock(tmp_path), SpeedLock(tmp_path)
    with first.measuring() as is_alone:
        assert is_alone
        with pytest.raises(TimeoutError):
            second._announced.acquire(timeout=0.1)
