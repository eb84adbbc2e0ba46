"""Measures the speed of a training from its first steps."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl

from src.training.callbacks import TrainingFailed

MEASURED_STEPS = 12  # a quarter of the 50 batches whose texts get_length_grouped_indices sorts together
WARM_UP_STEPS = 3  # any number of whole quarters gives long and short texts their share
MEASURED_SECONDS = 3.0  # enough, if a quarter is finished
FORWARD_FRACTION = 1 / 3  # fraction of a training step's time; backward takes twice as long


class StepTimer(TrainerCallback):
    """Times optimizer steps. After enough of them, it calls `known` with itself; without `known`, the training ends."""

    def __init__(self, known: Callable[["StepTimer"], None] | None = None) -> None:
        self.on_measured = known
        self.seconds: list[float] = []
        self._began, self._over = 0.0, False

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start timing a step."""
        self._began = time.monotonic()

    def on_step_end(self, args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        """Stop timing a step; report once enough are timed."""
        if self._over:
            return
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # wait until the GPU has finished
        self.seconds.append(time.monotonic() - self._began)
        quarters, within = divmod(len(self.seconds), WARM_UP_STEPS)
        slow = sum(self.seconds[WARM_UP_STEPS:]) >= MEASURED_SECONDS
        alone = args.world_size == 1  # ranks that disagree about the end would wait for each other forever
        if within or quarters < 2 or not (len(self.seconds) >= MEASURED_STEPS or (slow and alone)):
            return
        self._report()
        control.should_training_stop = control.should_training_stop or self.on_measured is None

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Report what was timed, if the training was short."""
        if not self._over and len(self.seconds) > WARM_UP_STEPS:
            self._report()

    def _report(self) -> None:
        self._over = True
        if self.on_measured is not None:
            self.on_measured(self)

    def seconds_per_step(self) -> float:
        """Mean over all steps except the first ones, which are slower."""
        if len(self.seconds) <= WARM_UP_STEPS:
            raise TrainingFailed(f"the training data make no more than {WARM_UP_STEPS} optimizer steps")
        return float(np.mean(self.seconds[WARM_UP_STEPS:]))

    def seconds_per_epoch(self, tokens: np.ndarray) -> float:
        """Seconds of an epoch whose steps have `tokens` each, padding included, [n_steps]; proportional to tokens."""
        measured = np.resize(tokens, len(self.seconds))[WARM_UP_STEPS:]
        return float(self.seconds_per_step() * tokens.sum() / measured.mean())


def tokens_per_step(lengths: Sequence[int], order: Sequence[int], batch: int, accumulated: int = 1) -> np.ndarray:
    """Tokens of each step, padding included, [n_steps].

    Args:
        lengths: tokens of each text, [n_texts].
        order: of the texts in the epoch.
        batch: texts that are padded to the same length.
        accumulated: batches per step.
    """
    sorted_ = np.asarray(lengths)[np.asarray(order)]
    padded = [batch_.size * batch_.max() for batch_ in np.split(sorted_, range(batch, len(sorted_), batch))]
    return np.add.reduceat(padded, range(0, len(padded), accumulated))
