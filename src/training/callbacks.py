"""Callbacks of a training: evaluation at rungs, best weights, checkpoints, and ending it early."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from src.core.metric import gain
from src.core.paths import replacing
from src.core.records import Calibration, Evaluation, State, StopDecision, TrainingResult
from src.training import adapters, checkpoints, classifiers, devices
from src.training.adapters import AdapterBase
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE, WEIGHTS_FILE

NOT_ARGUMENTS = ("lr", "weight_decay")  # of an optimizer's defaults: its parameter groups have their own


class TrainingFailed(Exception):
    """A training that cannot go on, with the reason."""


class TrainingCallback:
    """Follows one training, and may end it. Every method does nothing unless a subclass overrides it.

    It is not a transformers.TrainerCallback: RungCallback is, and calls it.
    """

    def on_training_begins(self, built: Mapping[str, str]) -> None:
        """The Trainer has built everything: precision, threads and optimizer, as the objects say (see built_with)."""

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Training metrics (train/loss, train/learning_rate, ...) at optimizer step `step`."""

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:  # noqa: ARG002
        """The validation split was evaluated at a rung; a returned decision ends the training."""
        return None

    def on_speed_measured(self, calibration: Calibration) -> None:
        """The first steps were timed; once per training, and not for one that continues another."""

    def on_checkpoint(self) -> None:
        """A complete checkpoint was written."""

    def should_stop(self, step: int) -> StopDecision | None:  # noqa: ARG002
        """Called after every optimizer step; a returned decision ends the training."""
        return None


@dataclass(frozen=True)
class Objective:
    """The metric that is the score, and the rungs at which it is evaluated."""

    metric: str
    direction: str
    rungs: Sequence[float]
    rung_examples: int | None = None  # rungs before the last are judged on so many validation examples; None: on all
    train_examples: int | None = None  # so many training texts are used, stratified and always the same; None: all
    refit_share: float | None = (
        None  # a refit: nothing is judged, and the weights at this share of the schedule are kept
    )
    trains_on_validation: bool = True  # a refit: whether it does
    soft_labels: Path | None = None  # a refit: further texts with soft labels, see training/soft_labels.py
    extra_metrics: tuple[str, ...] = ()  # that every evaluation computes, too

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that every evaluation computes beside the usual ones."""
        return (self.metric, *self.extra_metrics)

    def better_than(self, new: float, old: float | None) -> bool:
        """Whether `new` is better than `old`; anything is better than None."""
        return old is None or gain(new, self.direction) > gain(old, self.direction)


def refit_objective(objective: Objective, judged: TrainingResult) -> Objective:
    """The objective of a refit that ends where the training with the result `judged` was kept.

    That is at a rung of `objective`: the weights of the best evaluation are kept.
    """
    kept = judged.step / judged.steps * (judged.share or 1.0) if judged.step and judged.steps else 1.0
    return replace(objective, refit_share=min(objective.rungs, key=lambda rung: abs(rung - kept)))


class RungCallback(TrainerCallback):
    """The Trainer callback of one training: evaluates at the rungs, keeps the best weights, completes checkpoints.

    `parts`: the validation data of the rungs before the last, and of the last.
    """

    def __init__(
        self, trainer: Any, objective: Objective, callback: TrainingCallback, folder: Path, parts: tuple[Any, Any]
    ) -> None:
        self.trainer, self.objective, self.callback, self.folder, self.validation_parts = (
            trainer,
            objective,
            callback,
            folder,
            parts,
        )
        self.rung_of_step: dict[int, float] = {}  # optimizer step -> share of the schedule
        self.best: Evaluation | None = None
        self.ms_per_1000_texts: float | None = None
        self.stop: StopDecision | None = None
        self.share_done, self.steps_done = 0.0, 0
        self._seconds_before, self._began = 0.0, time.monotonic()  # of training, before this process

    # --- what the Trainer calls ---

    def on_train_begin(self, _args: Any, state: Any, _control: Any, optimizer: Any = None, **_: Any) -> None:
        """Compute the steps at which rungs are reached, and pass on what was built."""
        self.callback.on_training_begins(built_with(self.trainer, optimizer))
        self.rung_of_step = {
            max(1, math.ceil(share * state.max_steps)): share for share in sorted(self.objective.rungs)
        }

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate at a rung; elsewhere, ask whether to stop."""
        self.share_done, self.steps_done = state.global_step / state.max_steps, state.global_step
        if state.global_step in self.rung_of_step:
            control.should_evaluate = True
            self.trainer.eval_dataset = self.validation_parts[self.rung_of_step[state.global_step] == 1]
        elif stop := self.callback.should_stop(state.global_step):
            self._end(stop, control)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Pass the logged values on. Raises TrainingFailed if the loss is NaN or infinite."""
        if "loss" not in logs:
            return
        values = {f"train/{key}": float(logs[key]) for key in ("loss", "learning_rate", "grad_norm") if key in logs}
        if not math.isfinite(values["train/loss"]):
            raise TrainingFailed(f"the training loss became {logs['loss']} by step {state.global_step}")
        self.callback.on_log(state.global_step, {**values, "train/epoch": float(state.epoch or 0)})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """Keep the best weights, pass the evaluation on, and stop or save a checkpoint."""
        share = self.rung_of_step[state.global_step]
        part = self.validation_parts[share == 1]
        values = strip_eval_prefix(metrics)
        if not math.isfinite(values["loss"]):
            raise TrainingFailed(f"the validation loss became {values['loss']} by step {state.global_step}")
        batch = args.train_batch_size * args.gradient_accumulation_steps
        examples = min(state.global_step * batch, round(float(state.epoch or 0) * len(self.trainer.train_dataset)))
        is_full_split = len(part) == len(self.validation_parts[True])
        evaluation = Evaluation(state.global_step, share, examples, values, metrics["eval_runtime"], is_full_split)
        speed = evaluation.seconds / len(part) * 1e6 * devices.compute_units(args.use_cpu)
        self.ms_per_1000_texts = min(speed, self.ms_per_1000_texts or speed)
        if is_full_split and self.objective.better_than(
            self._score(evaluation), self._score(self.best) if self.best else None
        ):
            if state.is_world_process_zero:
                self._save_weights(self.trainer.validation_probabilities())
            self.best = evaluation
        stop = self.callback.on_evaluation(evaluation)
        if share < 1:
            control.should_save = stop is None or stop.state == State.PAUSED
            if stop := stop or self.callback.should_stop(state.global_step):
                self._end(stop, control)

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Complete the checkpoint that the Trainer has just written, and delete older ones."""
        loss = self.trainer.accelerator.gather(self.trainer._tr_loss).mean().item()  # waits for all ranks
        pending = {"loss": loss, "since": self.trainer._globalstep_last_logged}
        if not state.is_world_process_zero:
            return
        values = {
            "best": asdict(self.best) if self.best else None,
            "ms_per_1000_texts": self.ms_per_1000_texts,
            "seconds": self._training_seconds(),
            "pending": pending,
            "share": self.share_done,
            "rung": self.rung_of_step.get(state.global_step),
        }
        checkpoints.mark_complete(self.folder / f"checkpoint-{state.global_step}", values)
        self.callback.on_checkpoint()

    # --- what fine_tune calls ---

    def restore(self, checkpoint: Path) -> "_RestoreLoggedLoss":
        """Restore the state that was saved with `checkpoint`."""
        progress = checkpoints.read_progress(checkpoint)
        self.best = Evaluation(**progress["best"]) if progress["best"] else None
        self.ms_per_1000_texts, self.share_done = progress["ms_per_1000_texts"], progress["share"]
        self._seconds_before = progress.get("seconds", 0.0)  # an earlier version did not store them
        return _RestoreLoggedLoss(self.trainer, **progress["pending"])

    def _training_seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def result(self, seconds: float) -> TrainingResult:
        """The result of the training, which took `seconds`."""
        best = self.best
        ended = self.stop if self.share_done < 1 else None
        return TrainingResult(
            state=ended.state if ended else State.COMPLETE,
            score=self._score(best) if best else None,
            metrics=best.metrics if best else {},
            step=best.step if best else None,
            share=self.share_done,
            steps=self.steps_done,
            seconds=seconds,
            megabytes=self._megabytes(),
            ms_per_1000_texts=self.ms_per_1000_texts,
            training_seconds=self._training_seconds(),
            reason=(ended.reason or None) if ended else None,
        )

    def _megabytes(self) -> float | None:
        """Size of the best weights in MB (10**6 bytes); of an adapter, that of the model into which it is merged."""
        folder = self.folder / BEST_DIR
        if adapters.is_adapter(folder):
            return classifiers.merged_megabytes(self.trainer.model)
        weights = folder / WEIGHTS_FILE
        return weights.stat().st_size / 1e6 if weights.exists() else None

    def _save_weights(self, probabilities: np.ndarray | None) -> None:
        trainer = self.trainer
        with trainer.scale.inside(trainer.model) if trainer.scale else nullcontext():
            save_weights(
                trainer.model, trainer.processing_class, self.folder / BEST_DIR, probabilities, trainer.adapter_base
            )

    def _score(self, evaluation: Evaluation) -> float:
        return evaluation.metrics[self.objective.metric]

    def _end(self, stop: StopDecision, control: Any) -> None:
        self.stop, control.should_training_stop = stop, True
        control.should_save = control.should_save or stop.state == State.PAUSED


class RefitCallback(RungCallback):
    """The callback of a refit. It judges nothing, since validation may be among the texts that are trained on.

    Checkpoints are saved where rungs would be judged. The training ends at `objective.refit_share` of its schedule, and
    those weights are kept.
    """

    def __init__(self, trainer: Any, objective: Objective, callback: TrainingCallback, folder: Path) -> None:
        super().__init__(trainer, objective, callback, folder, (None, None))
        assert objective.refit_share is not None
        self.share = objective.refit_share

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the weights and end at the share that is kept; save a checkpoint at the rungs before it."""
        self.share_done, self.steps_done = state.global_step / state.max_steps, state.global_step
        if state.global_step >= max(1, math.ceil(self.share * state.max_steps)):
            if state.is_world_process_zero:
                self._save_weights(None)
            self._end(StopDecision(State.COMPLETE, ""), control)
            return
        control.should_save = state.global_step in self.rung_of_step
        if stop := self.callback.should_stop(state.global_step):
            self._end(stop, control)


class _RestoreLoggedLoss(TrainerCallback):
    """Gives the Trainer back the loss that it had not logged yet, so that the next logged mean is the same."""

    def __init__(self, trainer: Any, loss: float, since: int) -> None:
        self.trainer, self.loss, self.since = trainer, loss, since

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._tr_loss += self.loss
        self.trainer._globalstep_last_logged = self.since


def save_weights(
    model: Any, tokenizer: Any, folder: Path, probabilities: np.ndarray | None = None, base: AdapterBase | None = None
) -> None:
    """Save weights and tokenizer, all of them or nothing.

    Args:
        model: of transformers, or of peft.
        tokenizer: that it was trained with.
        folder: what is there is replaced.
        probabilities: of the weights on validation, [n_examples, n_labels], to keep beside them.
        base: of an adapter, of which alone the weights are saved.
    """
    with replacing(folder) as scratch:
        if base is None:
            model.save_pretrained(scratch)
        else:
            adapters.save_adapter(model, base, scratch)
        tokenizer.save_pretrained(scratch)
        if probabilities is not None:
            np.save(scratch / PROBABILITIES_FILE, probabilities.astype(np.float32))
        shutil.rmtree(folder, ignore_errors=True)


def built_with(trainer: Any, optimizer: Any) -> dict[str, str]:
    """Tags of a training, read from its built objects.

    Returns:
        precision: bf16, fp16 or fp32; threads: of this process; optimizer: its class and arguments.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    arguments = ", ".join(f"{key}={value}" for key, value in inner.defaults.items() if key not in NOT_ARGUMENTS)
    return {
        "precision": computed_precision(trainer),
        "threads": str(torch.get_num_threads()),
        "optimizer": f"{type(inner).__name__}({arguments})",
    }


def computed_precision(trainer: Any) -> str:
    """The precision that a Trainer's forward pass computes in: bf16, fp16 or fp32, read from a product in it."""
    one = torch.ones(1, 1, device=trainer.args.device)
    with trainer.accelerator.autocast():
        dtype = torch.nn.functional.linear(one, one).dtype
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")


def strip_eval_prefix(values: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an evaluation, without the Trainer's prefix and timings."""
    timing = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time")
    return {k.removeprefix("eval_"): float(v) for k, v in values.items() if k.startswith("eval_") and k not in timing}
