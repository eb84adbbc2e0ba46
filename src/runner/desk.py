"""What every training process has: the data and checkpoints at hand, where records go, and one guarded training."""

import os
import shutil
import traceback
from collections.abc import Mapping
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
    micro_batch,
    precision,
)
from src.learning.judge import Goal
from src.paths import Paths, write_whole
from src.records import Evaluation, Outcome, State, Stop
from src.runner.pace import calibration_key
from src.settings import ModelSettings, Recipe, Settings
from src.text import corpus as corpora
from src.text import tokens


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

    Out of memory, it is begun anew with half the examples at a time and twice the steps between updates, if
    worker.oom_retry says so. On a full disk its own files go first, so that the records of its end find room. Raises
    BookLost, which says nothing of the training.
    """
    each = desk.settings.worker.devices_per_trial
    while True:
        try:
            checkpoint, lesson = desk.lesson(recipe.model)
            together = {"devices": each} if each > 1 else {}
            watch.run.tags({**mirror.origin(checkpoint), "precision": precision(recipe), **together})
            return ranks.fine_tune(each, recipe, checkpoint, lesson, desk.goal, watch, folder)
        except BookLost:
            raise
        except Exception as error:  # one failing trial is a failed trial, never the end of the study
            reason, trace = failure_reason(error), traceback.format_exc()
            retry = desk.settings.worker.oom_retry and reason.startswith(OUT_OF_MEMORY)
            smaller = halved(recipe, each) if retry else None
        if reason.startswith(DISK_FULL) or smaller:
            shutil.rmtree(folder, ignore_errors=True)
        if smaller is None:
            watch.run.text("error.txt", trace)
            return Outcome(State.FAIL, reason=reason)
        free_memory()
        recipe = smaller
        watch.run.tags({"micro_batch": micro_batch(recipe)})


def measure_once(desk: Desk, index: int, of: int) -> None:
    """Measure the speed of the default recipe on worker `index`, unless it is known."""
    priced = desk.paths.calibration(calibration_key(desk.settings, desk.corpus.fingerprint, of)) / f"{index}.json"
    if not priced.exists():
        checkpoint, lesson = desk.lesson(desk.settings.recipe.model)
        scratch = priced.parent / f"scratch-{os.getpid()}"
        each = desk.settings.worker.devices_per_trial
        write_whole(priced, ranks.calibrate(each, desk.settings.recipe, checkpoint, lesson, scratch).to_json())
