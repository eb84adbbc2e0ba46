"""How many workers train fastest on this machine.

`study.plan_only=true` measures it: each candidate count of workers trains for a few steps at once, and the count with
the most examples per second wins. The measurements are cached for later commands. Without them a rule decides.
"""

import json
from collections.abc import Callable
from dataclasses import replace

from src.config.settings import Settings
from src.core.cache import content_key
from src.core.paths import Paths
from src.core.record_files import read_record
from src.core.records import Calibration
from src.data.dataset import PreparedDataset
from src.tracking import environment
from src.training import devices
from src.training.devices import Machine

MIN_GAIN = 1.05  # speedup from which more workers are used; less may be noise
FIRST_TRIAL = 0  # in place of a count: the default recipe's trial, by itself on all cores
PARALLEL_FRACTION = 0.75  # fraction of a step's work that threads share, as measured by the benchmarks on two cores


def choose_worker_count(
    settings: Settings, paths: Paths, prepared: PreparedDataset, machine: Machine, trainings: int
) -> int:
    """The number of workers with the most examples per second; devices.default_worker_count without measurements.

    Args:
        settings: of the study.
        paths: of the cached measurements.
        prepared: the data.
        machine: that the workers share.
        trainings: that are left; more workers would be idle.
    """
    counts = devices.worker_counts_to_try(machine, trainings)
    speeds = {count: total_speed(complete_calibrations(settings, paths, prepared, count)) for count in counts}
    known = {count: value for count, value in speeds.items() if value}
    if 1 not in known or len(known) < min(2, len(counts)):
        return devices.default_worker_count(machine, trainings)
    return best_count(known)


def measure_worker_counts(
    settings: Settings, paths: Paths, prepared: PreparedDataset, machine: Machine, launch: Callable[[int], object]
) -> dict[int, float]:
    """Measure numbers of workers from one upwards until more are not faster. Cached ones are not measured again.

    Args:
        settings: of the study.
        paths: of the cached measurements.
        prepared: the data.
        machine: that the workers share.
        launch: starts so many workers, which measure their speed and end.

    Returns:
        Number of workers -> training examples per second of all workers together.
    """
    speeds: dict[int, float] = {}
    peak = 0.0  # MB of a GPU's memory that one training takes
    for count in devices.worker_counts_to_try(machine, settings.study.n_trials):
        if peak * count > devices.SAFE_GPU_FRACTION * machine.gpu_megabytes * max(machine.gpus, 1):
            break
        if not complete_calibrations(settings, paths, prepared, count):
            launch(count)
        each = complete_calibrations(settings, paths, prepared, count)
        peak = max([peak, *(c.gpu_megabytes for c in each)])
        fastest = max(speeds.values(), default=0.0)
        speeds[count] = total_speed(each)
        if speeds[count] < MIN_GAIN * fastest:
            break
    return speeds


def best_count(speeds: dict[int, float]) -> int:
    """The smallest count that no larger one beats by MIN_GAIN."""
    chosen = min(speeds)
    for count in sorted(speeds):
        if speeds[count] >= MIN_GAIN * speeds[chosen]:
            chosen = count
    return chosen


def total_speed(each: list[Calibration]) -> float:
    """Training examples per second of these workers together; 0 if there are none."""
    return sum(1 / c.seconds_per_example for c in each)


def complete_calibrations(settings: Settings, paths: Paths, prepared: PreparedDataset, count: int) -> list[Calibration]:
    """The calibrations of `count` workers that trained at once; empty until all of them have finished."""
    measured = calibrations(paths, settings, prepared.fingerprint, count)
    return measured if len(measured) >= count else []


def calibrations_or_estimate(settings: Settings, paths: Paths, fingerprint: str, workers: int) -> list[Calibration]:
    """The calibrations of so many workers; without any, an estimate from the default recipe's own trial.

    Args:
        settings: of the study.
        paths: of the cached measurements.
        fingerprint: of the data.
        workers: that train at the same time.
    """
    measured = calibrations(paths, settings, fingerprint, workers)
    if measured:
        return measured
    alone = calibrations(paths, settings, fingerprint, FIRST_TRIAL)
    return [estimate_shared_speed(alone[0], workers)] * workers if alone else []


def estimate_shared_speed(alone: Calibration, workers: int) -> Calibration:
    """The speed of one of `workers` that share the threads of the one measured.

    Source: Amdahl's law, PARALLEL_FRACTION.
    """
    threads = max(1, alone.threads // workers)
    slower = _relative_seconds(threads) / _relative_seconds(alone.threads)
    return replace(
        alone,
        threads=threads,
        seconds_per_example=alone.seconds_per_example * slower,
        seconds_per_evaluated=alone.seconds_per_evaluated * slower,
    )


def _relative_seconds(threads: int) -> float:
    """Seconds of a step with `threads` threads, where one thread takes 1."""
    return 1 - PARALLEL_FRACTION + PARALLEL_FRACTION / threads


# --- what was measured ---


def calibration_key(settings: Settings, fingerprint: str, workers: int) -> str:
    """A key that changes with everything that changes the speed of a step. `workers`: at once, or FIRST_TRIAL."""
    recipe = json.dumps(settings.recipe.flatten(), sort_keys=True, default=str)
    each = settings.worker.devices_per_trial
    at_once = str(workers) if each == 1 else f"{workers} of {each}"
    return content_key(recipe, fingerprint, at_once, environment.machine())


def calibrations(paths: Paths, settings: Settings, fingerprint: str, workers: int) -> list[Calibration]:
    """What `workers` workers have measured at once on these data."""
    files = sorted(paths.calibration_dir(calibration_key(settings, fingerprint, workers)).glob("*.json"))
    return [c for c in (read_record(file, Calibration.from_json) for file in files) if c is not None]
