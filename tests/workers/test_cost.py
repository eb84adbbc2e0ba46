"""The price of a study or a comparison is reckoned in one place."""

from dataclasses import replace

import pytest

from src.core.records import Calibration
from src.workers.cost import Speed


def measured(training: float, evaluation: float) -> Calibration:
    return Calibration(training, evaluation, megabytes=100.0, device="cpu", threads=1)


def test_a_training_costs_its_epochs_and_its_evaluations() -> None:
    speed = Speed.of([measured(0.01, 0.002), measured(0.03, 0.004)])
    seconds = speed.training_seconds({"train": 1000, "validation": 200, "test": 500}, epochs=2.5, n_rungs=3)
    assert seconds == pytest.approx(2.5 * 1000 * 0.02 + 3 * 200 * 0.003)


def test_a_checkpoint_takes_three_times_the_weights() -> None:
    speed = Speed.of([measured(0.01, 0.002)])
    assert speed.disk_gigabytes(weights=2, trainings=0) == pytest.approx(0.2)
    assert speed.disk_gigabytes(weights=0, trainings=1) == pytest.approx(0.7)
    assert speed.disk_gigabytes(weights=0, trainings=0, paused=1) == pytest.approx(0.4)
    assert speed.disk_gigabytes(weights=0, trainings=0, whole=2) == pytest.approx(0.2)
    of_adapter = replace(speed, megabytes=1.0, whole_megabytes=100.0)
    assert of_adapter.disk_gigabytes(weights=8, trainings=1, whole=2) == pytest.approx(0.215)
