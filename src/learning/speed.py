"""How fast a training goes: the time of some of its optimizer steps."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl

from src.learning.judge import TrainingFailed

MEASURED_STEPS = 12  # get_length_grouped_indices sorts so many batches' texts by quarters:
WARM_UP_STEPS = 3  # any number of whole quarters gives long and short texts their share
MEASURED_SECONDS = 3.0  # enough, if a quarter is done
FORWARD = 1 / 3  # of a training step: backward takes twice as long


class Speedometer(TrainerCallback):
    """Times optimizer steps until enough are known. Then `known` hears of it, and the training goes on.

    Without a `known` the training was but a measurement, and ends.
    """

    def __init__(self, known: Callable[["Speedometer"], None] | None = None) -> None:
        self.known = known
        self.seconds: list[float] = []
        self._began, self._over = 0.0, False

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        if self._over:
            return
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # what was asked of a GPU is done
        self.seconds.append(time.monotonic() - self._began)
        quarters, within = divmod(len(self.seconds), WARM_UP_STEPS)
        slow = sum(self.seconds[WARM_UP_STEPS:]) >= MEASURED_SECONDS
        alone = args.world_size == 1  # ranks that disagree about the end would wait for each other for ever
        if within or quarters < 2 or not (len(self.seconds) >= MEASURED_STEPS or (slow and alone)):
            return
        self._tell()
        control.should_training_stop = control.should_training_stop or self.known is None

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if not self._over and len(self.seconds) > WARM_UP_STEPS:
            self._tell()

    def _tell(self) -> None:
        self._over = True
        if self.known is not None:
            self.known(self)

    def seconds_per_step(self) -> float:
        """Mean over all but the first steps, which also warm up."""
        if len(self.seconds) <= WARM_UP_STEPS:
            raise TrainingFailed(f"the training data make no more than {WARM_UP_STEPS} optimizer steps")
        return float(np.mean(self.seconds[WARM_UP_STEPS:]))

    def seconds_per_epoch(self, tokens: np.ndarray) -> float:
        """`tokens` [steps of an epoch]: of each step, padding included. The first ones need not be like the others."""
        measured = np.resize(tokens, len(self.seconds))[WARM_UP_STEPS:]
        return float(self.seconds_per_step() * tokens.sum() / measured.mean())


def tokens_of_steps(lengths: Sequence[int], order: Sequence[int], batch: int, accumulated: int = 1) -> np.ndarray:
    """[steps]: tokens that a step goes through, padding included. `lengths` [n_texts]; `order`: of texts, in the epoch.

    `batch`: texts padded to the same length; a step takes `accumulated` of them.
    """
    sorted_ = np.asarray(lengths)[np.asarray(order)]
    padded = [batch_.size * batch_.max() for batch_ in np.split(sorted_, range(batch, len(sorted_), batch))]
    return np.add.reduceat(padded, range(0, len(padded), accumulated))
