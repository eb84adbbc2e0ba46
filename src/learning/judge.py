"""Watches a training from inside: evaluates at the rungs, keeps the best weights, checkpoints, ends it when told to."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import TrainerCallback

from src.learning import devices, resume
from src.learning.checkpoints import BEST, CHANCES, WEIGHTS
from src.records import Calibration, Evaluation, Outcome, State, Stop


class TrainingFailed(Exception):
    """The training cannot go on, for the reason given."""


class Watcher(Protocol):
    """Who hears of a training as it goes, and may end it."""

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Training metrics at optimizer step `step`."""

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        """An evaluation at a rung; a returned order ends the training."""

    def timed(self, found: Calibration) -> None:
        """How fast the training goes: said once, after some steps, unless it continues another."""

    def saved(self) -> None:
        """A whole checkpoint was written, to continue from."""

    def asked_to_stop(self, step: int, /) -> Stop | None:
        """Asked after every optimizer step; a returned order ends the training."""


@dataclass(frozen=True)
class Goal:
    """What the score is, and at which shares of the schedule it is taken."""

    metric: str
    direction: str
    rungs: Sequence[float]
    rung_examples: int | None = None  # rungs before the last are judged on so many validation examples; None: on all

    def better(self, new: float, old: float | None) -> bool:
        return old is None or (new > old if self.direction == "maximize" else new < old)


class Judge(TrainerCallback):
    """The callback; one per training. `parts`: the validation data of the early rungs, and of the last."""

    def __init__(self, trainer: Any, goal: Goal, watcher: Watcher, folder: Path, parts: tuple[Any, Any]) -> None:
        self.trainer, self.goal, self.watcher, self.folder, self.parts = trainer, goal, watcher, folder, parts
        self.shares: dict[int, float] = {}  # optimizer step -> share of the schedule
        self.best: Evaluation | None = None
        self.ms_per_1000_texts: float | None = None
        self.stop: Stop | None = None
        self.reached, self.steps = 0.0, 0

    # --- what the Trainer calls ---

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self.shares = {max(1, math.ceil(share * state.max_steps)): share for share in sorted(self.goal.rungs)}

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        self.reached, self.steps = state.global_step / state.max_steps, state.global_step
        if state.global_step in self.shares:
            control.should_evaluate = True
            self.trainer.eval_dataset = self.parts[self.shares[state.global_step] == 1]
        elif stop := self.watcher.asked_to_stop(state.global_step):
            self._end(stop, control)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        values = {f"train/{key}": float(logs[key]) for key in ("loss", "learning_rate", "grad_norm") if key in logs}
        if not math.isfinite(values["train/loss"]):
            raise TrainingFailed(f"the training loss became {logs['loss']} by step {state.global_step}")
        self.watcher.curve(state.global_step, {**values, "train/epoch": float(state.epoch or 0)})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        share = self.shares[state.global_step]
        part = self.parts[share == 1]
        found = plain_metrics(metrics)
        if not math.isfinite(found["loss"]):
            raise TrainingFailed(f"the validation loss became {found['loss']} by step {state.global_step}")
        batch = args.train_batch_size * args.gradient_accumulation_steps
        examples = min(state.global_step * batch, round(float(state.epoch or 0) * len(self.trainer.train_dataset)))
        whole = len(part) == len(self.parts[True])
        evaluation = Evaluation(state.global_step, share, examples, found, metrics["eval_runtime"], whole)
        speed = evaluation.seconds / len(part) * 1e6 * devices.hands(args.use_cpu)
        self.ms_per_1000_texts = min(speed, self.ms_per_1000_texts or speed)
        if whole and self.goal.better(self._score(evaluation), self._score(self.best) if self.best else None):
            if state.is_world_process_zero:
                save(self.trainer.model, self.trainer.processing_class, self.folder / BEST, self.trainer.chances())
            self.best = evaluation
        stop = self.watcher.evaluated(evaluation)
        if share < 1:
            control.should_save = stop is None or stop.state == State.PAUSED
            if stop := stop or self.watcher.asked_to_stop(state.global_step):
                self._end(stop, control)

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Complete the checkpoint that the Trainer has just written; older ones go."""
        loss = self.trainer.accelerator.gather(self.trainer._tr_loss).mean().item()  # every rank has written, then
        pending = {"loss": loss, "since": self.trainer._globalstep_last_logged}
        if not state.is_world_process_zero:
            return
        values = {
            "best": asdict(self.best) if self.best else None,
            "ms_per_1000_texts": self.ms_per_1000_texts,
            "pending": pending,
            "share": self.reached,
            "rung": self.shares.get(state.global_step),
        }
        resume.complete(self.folder / f"checkpoint-{state.global_step}", values)
        self.watcher.saved()

    # --- what fine_tune calls ---

    def take_up(self, checkpoint: Path) -> "_Pending":
        """Be as this judge's forerunner was when it wrote `checkpoint`."""
        progress = resume.progress(checkpoint)
        self.best = Evaluation(**progress["best"]) if progress["best"] else None
        self.ms_per_1000_texts, self.reached = progress["ms_per_1000_texts"], progress["share"]
        return _Pending(self.trainer, **progress["pending"])

    def outcome(self, seconds: float) -> Outcome:
        weights = self.folder / BEST / WEIGHTS
        best = self.best
        ended = self.stop if self.reached < 1 else None
        return Outcome(
            state=ended.state if ended else State.COMPLETE,
            score=self._score(best) if best else None,
            metrics=best.metrics if best else {},
            step=best.step if best else None,
            share=self.reached,
            steps=self.steps,
            seconds=seconds,
            megabytes=weights.stat().st_size / 1e6 if weights.exists() else None,
            ms_per_1000_texts=self.ms_per_1000_texts,
            reason=ended.reason if ended else None,
        )

    def _score(self, evaluation: Evaluation) -> float:
        return evaluation.metrics[self.goal.metric]

    def _end(self, stop: Stop, control: Any) -> None:
        self.stop, control.should_training_stop = stop, True
        control.should_save = control.should_save or stop.state == State.PAUSED


class _Pending(TrainerCallback):
    """Gives the Trainer back the losses it had summed up but not logged yet, so that no logged mean changes."""

    def __init__(self, trainer: Any, loss: float, since: int) -> None:
        self.trainer, self.loss, self.since = trainer, loss, since

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._tr_loss += self.loss
        self.trainer._globalstep_last_logged = self.since


def save(model: Any, tokenizer: Any, folder: Path, chances: np.ndarray) -> None:
    """Weights, tokenizer and their answers on validation, in a scratch folder first: `folder` is whole or not there."""
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    np.save(scratch / CHANCES, chances.astype(np.float32))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def plain_metrics(found: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an evaluation, without the Trainer's prefix and its timing."""
    timing = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time")
    return {k.removeprefix("eval_"): float(v) for k, v in found.items() if k.startswith("eval_") and k not in timing}
