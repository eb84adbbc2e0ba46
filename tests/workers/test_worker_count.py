"""How many workers pay: measured where it was measured."""

import shutil
from pathlib import Path

import pytest

from src.config.settings import Settings
from src.core.paths import Paths, atomic_write
from src.core.records import Calibration
from src.data import dataset
from src.data.dataset import PreparedDataset
from src.training.devices import Machine, worker_counts_to_try
from src.workers import worker_count
from src.workers.context import calibration_key
from tests.support.commands import TINY, Place
from tests.support.data import settings_of

FOUR = Machine(cores=4, free_gigabytes=64.0, gpus=0)
CARD = Machine(cores=16, free_gigabytes=100.0, gpus=1, gpu_megabytes=10_000)


class Site:
    """A project folder in which workers measure what `speeds` (count -> examples per second together) says."""

    def __init__(self, folder: Path, speeds: dict[int, float], gpu_megabytes: float = 0.0) -> None:
        self.paths, self.speeds, self.gpu_megabytes = Paths(folder), speeds, gpu_megabytes
        self.settings: Settings = settings_of(*TINY)
        self.corpus: PreparedDataset = dataset.prepare_dataset(self.settings.data, self.paths.cache_dir)
        self.launched: list[int] = []

    def launch(self, count: int) -> None:
        self.launched.append(count)
        for index in range(count):
            result = Calibration(count / self.speeds[count], 0.001, 1.0, "cpu", 1, self.gpu_megabytes)
            key = calibration_key(self.settings, self.corpus.fingerprint, count)
            atomic_write(self.paths.calibration_dir(key) / f"{index}.json", result.to_json())

    def measure(self, machine: Machine) -> dict[int, float]:
        return worker_count.measure_worker_counts(self.settings, self.paths, self.corpus, machine, self.launch)

    def auto(self, machine: Machine, trainings: int) -> int:
        return worker_count.choose_worker_count(self.settings, self.paths, self.corpus, machine, trainings)


def test_counts_are_measured_until_more_does_not_pay(tmp_path: Path) -> None:
    site = Site(tmp_path, {1: 100.0, 2: 130.0, 4: 131.0})
    result = site.measure(FOUR)
    assert result == pytest.approx({1: 100.0, 2: 130.0, 4: 131.0})
    assert worker_count.best_count(result) == 2
    assert site.launched == [1, 2, 4]
    site.measure(FOUR)
    assert site.launched == [1, 2, 4]  # known by now


def test_a_count_that_is_slower_ends_the_measuring(tmp_path: Path) -> None:
    site = Site(tmp_path, {1: 100.0, 2: 80.0})
    assert worker_count.best_count(site.measure(FOUR)) == 1
    assert site.launched == [1, 2]


def test_auto_takes_what_was_measured_and_the_rule_before(tmp_path: Path) -> None:
    site = Site(tmp_path, {1: 100.0, 2: 130.0, 4: 131.0})
    assert site.auto(FOUR, trainings=8) == 4
    site.measure(FOUR)
    assert site.auto(FOUR, trainings=8) == 2
    assert site.auto(FOUR, trainings=1) == 1


def test_trainings_are_packed_on_a_card_as_long_as_its_memory_holds_them(tmp_path: Path) -> None:
    site = Site(tmp_path, {1: 100.0, 2: 190.0, 4: 350.0, 8: 500.0, 16: 600.0}, gpu_megabytes=1_500)
    assert worker_counts_to_try(CARD, 99) == (1, 2, 4, 8, 16)
    assert site.auto(CARD, trainings=99) == 1
    site.measure(CARD)
    assert site.launched == [1, 2, 4]  # eight would take 12 GB of 10
    assert site.auto(CARD, trainings=99) == 4


@pytest.mark.long
def test_the_plan_measures_workers_and_the_study_takes_the_best(place: Place) -> None:
    done = place.sweep(*TINY, "study.name=paced", "study.plan_only=true", "study.n_trials=2")
    assert done.code == 0, done.err
    assert "training examples per second, by workers   1: " in done.out
    chosen = int(done.out.split("workers=auto takes ")[1].split()[0])
    shutil.rmtree(place.study("paced"), ignore_errors=True)
    after = place.sweep(*TINY, "study.name=paced", "study.n_trials=2", "study.baselines=[]")
    assert after.code == 0, after.err
    assert f"2 trials, {chosen} worker" in after.out


def test_the_price_is_that_of_the_first_trial_until_workers_have_measured(tmp_path: Path) -> None:
    site = Site(tmp_path, {1: 100.0, 2: 130.0})
    about = site.settings, site.paths, site.corpus.fingerprint
    assert worker_count.calibrations_or_estimate(*about, 2) == []
    alone = Calibration(0.01, 0.004, 1.0, "cpu", 4)
    key = calibration_key(site.settings, site.corpus.fingerprint, worker_count.FIRST_TRIAL)
    atomic_write(site.paths.calibration_dir(key) / "0.json", alone.to_json())
    two, four = worker_count.calibrations_or_estimate(*about, 2), worker_count.calibrations_or_estimate(*about, 4)
    assert [c.threads for c in (*two, *four)] == [2, 2, 1, 1, 1, 1]
    assert (
        worker_count.total_speed(four) > worker_count.total_speed(two) > worker_count.total_speed([alone])
    )  # fewer threads each, more is got through
    assert four[0].seconds_per_evaluated / four[0].seconds_per_example == pytest.approx(0.4)
    assert worker_count.calibrations_or_estimate(*about, 1) == [alone]
    site.launch(2)
    assert worker_count.total_speed(worker_count.calibrations_or_estimate(*about, 2)) == pytest.approx(130.0)
    assert site.auto(FOUR, 8) == 4  # nothing that was not measured counts
