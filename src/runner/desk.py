"""What every training process has: the data and checkpoints at hand, where records go, and one guarded training."""

import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from src import mirror
from src.errors import BookLost
from src.evidence.runs import Run
from src.evidence.store import Store, tracking_uri
from src.learning import checkpoints, names, ranks
from src.learning.checkpoints import Checkpoint
from src.learning.finetune import (
    DISK_FULL,
    OUT_OF_MEMORY,
    Lesson,
    failure_reason,
    free_memory,
    halved,
    halved_to,
    micro_batch,
    precision,
)
from src.learning.judge import Goal, Watcher
from src.paths import Paths, write_whole
from src.records import Calibration, Evaluation, Outcome, State, Stop
from src.runner.pace import FIRST_TRIAL, calibration_key
from src.settings import ModelSettings, Recipe, Settings
from src.text import corpus as corpora
from src.text import tokens

MICRO_BATCH = "micro_batch"  # in a training's folder: how many examples at a time fitted


class Desk:
    """What a worker keeps from trial to trial: the data, tokenised once per model, and where records go."""

    def __init__(self, settings: Settings, paths: Paths, store: Store | None = None) -> None:
        self.settings, self.paths, self._store = settings, paths, store
        self.corpus = corpora.prepare(settings.data, paths.cache)
        metric, asked = settings.study.metric, settings.study.direction
        direction = names.direction_of(metric, asked, len(self.corpus.label_names))
        self.goal = Goal(metric, direction, settings.study.rungs, settings.study.rung_examples)
        self._lessons: dict[tuple[str, int], tuple[Checkpoint, Lesson]] = {}

    @property
    def store(self) -> Store:
        """Where records go. A study's workers learn it from its folder: they start also while a server is down."""
        if self._store is None:
            uri = tracking_uri(self.settings.tracking, self.paths.root)
            self._store = Store(uri, mirror.experiment_file(self.paths.study(self.settings.study.name)).read_text())
        return self._store

    def lesson(self, model: ModelSettings) -> tuple[Checkpoint, Lesson]:
        """The checkpoint and the data as its tokenizer cuts them."""
        key = (model.checkpoint, model.max_tokens)
        if key not in self._lessons:
            found = checkpoints.resolve(model, self.paths.cache)
            tokenizer = checkpoints.load_tokenizer(found)
            tokenizer.model_max_length = model.max_tokens  # saved with the weights: served texts are cut alike
            train, validation = (
                tokens.tokenised(self.corpus, split, tokenizer, model.max_tokens, self.paths.cache)
                for split in ("train", "validation")
            )
            self._lessons[key] = found, Lesson(train, validation, tokenizer, self.corpus.label_names)
        return self._lessons[key]


class TrainingRun:
    """Watches one training: its curves and evaluations go to its run, its scores to whoever judges them."""

    def __init__(self, run: Run, store: Store) -> None:
        self.run, self.store = run, store

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        self.run.metrics(step, values)

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        """Record the evaluation and send everything so far: one batched write."""
        self.run.metrics(evaluation.step, curve_names(evaluation))
        self.run.deliver(self.store)
        return None

    def timed(self, found: Calibration) -> None:
        pass

    def saved(self) -> None:
        pass

    def asked_to_stop(self, _step: int) -> Stop | None:
        return None


def curve_names(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation's numbers under the names of their curves."""
    prefix = "validation" if evaluation.whole else "rung"
    values = {f"{prefix}/{name}": value for name, value in evaluation.metrics.items()}
    return {**values, "train/examples": float(evaluation.examples)}


def attempt_training(recipe: Recipe, desk: Desk, watch: TrainingRun, folder: Path) -> Outcome:
    """Train; whatever goes wrong in it is a failed outcome with its reason, and a traceback on the run.

    On a full disk its own files go first, so that the records of its end find room. Raises BookLost, which says nothing
    of the training.
    """
    each = desk.settings.worker.devices_per_trial
    watch.run.tags({"precision": precision(recipe), **({"devices": each} if each > 1 else {})})
    try:
        watch.run.tags(mirror.origin(desk.lesson(recipe.model)[0]))
        return train_within_memory(recipe, desk, watch, folder, lambda n: watch.run.tags({"micro_batch": n}))
    except BookLost:
        raise
    except Exception as error:  # one failing trial is a failed trial, never the end of the study
        reason, trace = failure_reason(error), traceback.format_exc()
    if reason.startswith(DISK_FULL):
        shutil.rmtree(folder, ignore_errors=True)
    watch.run.text("error.txt", trace)
    return Outcome(State.FAIL, reason=reason)


def train_within_memory(
    recipe: Recipe, desk: Desk, watch: Watcher, folder: Path, fits: Callable[[int], object] = lambda _: None
) -> Outcome:
    """Train. Out of memory, begin anew with half the examples at a time and twice the steps between updates, if
    worker.oom_retry says so; `fits` hears how many. One that is taken up again goes on with as many as before."""
    each, file = desk.settings.worker.devices_per_trial, folder / MICRO_BATCH
    if file.exists():
        recipe = halved_to(int(file.read_text()), recipe, each)
    while True:
        try:
            checkpoint, lesson = desk.lesson(recipe.model)
            return ranks.fine_tune(each, recipe, checkpoint, lesson, desk.goal, watch, folder)
        except BookLost:
            raise
        except Exception as error:
            smaller = smaller_after(error, recipe, desk.settings)
            if smaller is None:
                raise
        shutil.rmtree(folder, ignore_errors=True)
        free_memory()
        recipe = smaller
        write_whole(file, str(micro_batch(recipe)))
        fits(micro_batch(recipe))


def smaller_after(error: Exception, recipe: Recipe, settings: Settings) -> Recipe | None:
    """The recipe with half the examples at a time, if memory was what was wrong, and that is to be tried."""
    retry = settings.worker.oom_retry and failure_reason(error).startswith(OUT_OF_MEMORY)
    return halved(recipe, settings.worker.devices_per_trial) if retry else None


def measure_once(desk: Desk, index: int, of: int) -> None:
    """Measure the speed of the default recipe on worker `index`, unless it is known. What cannot be measured is said.

    Whatever is wrong is not the study's end here: its trials meet it, too, and are recorded.
    """
    measured = _calibration_file(desk, index, of)
    recipe: Recipe | None = None if measured.exists() else desk.settings.recipe
    while recipe is not None:
        scratch = measured.parent / f"scratch-{os.getpid()}"
        try:
            checkpoint, lesson = desk.lesson(recipe.model)
            found = ranks.calibrate(desk.settings.worker.devices_per_trial, recipe, checkpoint, lesson, scratch)
            write_whole(measured, found.to_json())
            return
        except Exception as error:
            shutil.rmtree(scratch, ignore_errors=True)
            recipe = smaller_after(error, recipe, desk.settings)
            if recipe is None:
                print(f"  note: worker {index} could not measure its speed: {failure_reason(error)}", flush=True)
        free_memory()


def keep_speed(desk: Desk, found: Calibration) -> None:
    """Of the default recipe's trial by itself: from now on the price of such studies is known beforehand."""
    with suppress(OSError):  # a full disk: no price is no reason to fail
        write_whole(_calibration_file(desk, 0, FIRST_TRIAL), found.to_json())


def _calibration_file(desk: Desk, index: int, of: int) -> Path:
    return desk.paths.calibration(calibration_key(desk.settings, desk.corpus.fingerprint, of)) / f"{index}.json"
