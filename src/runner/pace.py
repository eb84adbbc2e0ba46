"""How many workers pay on this machine: as measured here, where it was, by a rule where not.

`study.plan_only=true` measures: every count of workers that is tried trains for a few steps at once, and what they get
through together decides. The measurements stay with the caches, and later commands take the count that won.
"""

import json
from collections.abc import Callable
from dataclasses import replace

from src.evidence import environment
from src.learning import devices
from src.learning.devices import Machine
from src.paths import Paths
from src.records import Calibration
from src.settings import Recipe, Settings
from src.text import corpus as corpora
from src.text.corpus import Corpus

GAIN = 1.05  # a larger count pays if it gets through so many times more; below, it is noise
FIRST_TRIAL = 0  # in place of a count: the default recipe's trial, by itself on all cores
SHARED = 0.75  # of a step's work, what threads divide among them: as benchmarks' workers get through on two cores


def auto(settings: Settings, paths: Paths, corpus: Corpus, machine: Machine, trainings: int) -> int:
    """The measured best of the counts that `trainings` can keep busy; where none was measured, the rule's."""
    counts = devices.counts_to_try(machine, trainings)
    found = {count: speed(measured(settings, paths, corpus, count)) for count in counts}
    known = {count: value for count, value in found.items() if value}
    if 1 not in known or len(known) < min(2, len(counts)):
        return devices.workers_that_pay(machine, trainings)
    return best(known)


def measure(
    settings: Settings, paths: Paths, corpus: Corpus, machine: Machine, launch: Callable[[int], object]
) -> dict[int, float]:
    """Count -> training examples per second of all workers together, from one worker up until more does not pay.

    Counts that were measured before are not measured again.
    """
    found: dict[int, float] = {}
    peak = 0.0  # MB of a GPU's memory that one training takes
    for count in devices.counts_to_try(machine, settings.study.n_trials):
        if peak * count > devices.SAFE_SHARE * machine.gpu_megabytes * max(machine.gpus, 1):
            break
        if not measured(settings, paths, corpus, count):
            launch(count)
        each = measured(settings, paths, corpus, count)
        peak = max([peak, *(c.gpu_megabytes for c in each)])
        fastest = max(found.values(), default=0.0)
        found[count] = speed(each)
        if found[count] < GAIN * fastest:
            break
    return found


def best(found: dict[int, float]) -> int:
    """The smallest count that no larger one beats by more than noise."""
    chosen = min(found)
    for count in sorted(found):
        if found[count] >= GAIN * found[chosen]:
            chosen = count
    return chosen


def speed(each: list[Calibration]) -> float:
    """Training examples per second of these workers together; 0 for none."""
    return sum(1 / c.seconds_per_example for c in each)


def measured(settings: Settings, paths: Paths, corpus: Corpus, count: int) -> list[Calibration]:
    """What `count` workers at once measured, all of them; empty before they have."""
    found = calibrations(paths, settings, corpus.fingerprint, count)
    return found if len(found) >= count else []


def priced(settings: Settings, paths: Paths, fingerprint: str, workers: int) -> list[Calibration]:
    """What so many workers measured; else what the default recipe's trial shows by itself, divided among them."""
    found = calibrations(paths, settings, fingerprint, workers)
    if found:
        return found
    alone = calibrations(paths, settings, fingerprint, FIRST_TRIAL)
    return [shared(alone[0], workers)] * workers if alone else []


def shared(alone: Calibration, workers: int) -> Calibration:
    """The speed of one of `workers` that share the threads of the one measured, by Amdahl's law."""
    threads = max(1, alone.threads // workers)
    slower = _seconds(threads) / _seconds(alone.threads)
    return replace(
        alone,
        threads=threads,
        seconds_per_example=alone.seconds_per_example * slower,
        seconds_per_evaluated=alone.seconds_per_evaluated * slower,
    )


def _seconds(threads: int) -> float:
    """Of a step, where one thread takes 1."""
    return 1 - SHARED + SHARED / threads


# --- what was measured ---


def calibration_key(settings: Settings, fingerprint: str, workers: int) -> str:
    """Changes with whatever changes the speed of a step. `workers`: how many at once, or FIRST_TRIAL."""
    recipe = json.dumps(settings.recipe.flat(), sort_keys=True, default=str)
    each = settings.worker.devices_per_trial
    at_once = str(workers) if each == 1 else f"{workers} of {each}"
    return corpora.content_key(recipe, fingerprint, at_once, environment.machine())


def calibrations(paths: Paths, settings: Settings, fingerprint: str, workers: int) -> list[Calibration]:
    """What the workers measured, so many of them at once on these data; empty before they have."""
    files = sorted(paths.calibration(calibration_key(settings, fingerprint, workers)).glob("*.json"))
    return [Calibration.from_json(f.read_text()) for f in files]


def epochs(recipe: Recipe) -> float:
    """Passes over the training data; the Trainer's own default is 3."""
    return float(recipe.trainer.get("num_train_epochs", 3))
