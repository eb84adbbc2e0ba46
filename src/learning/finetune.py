"""Fine-tuning through the Hugging Face Trainer: its one home."""

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from src.learning import metrics
from src.learning.checkpoints import WEIGHTS, Checkpoint, build
from src.records import Calibration, Evaluation, Outcome, State
from src.settings import Recipe

BEST = "best"  # the folder, below a training's own, of the weights that earned its score


class TrainingFailed(Exception):
    """The training cannot go on, for the reason given."""


class Watcher(Protocol):
    """Who hears of a training as it goes, and may end it."""

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Training metrics at optimizer step `step`."""

    def evaluated(self, evaluation: Evaluation) -> str | None:
        """An evaluation of the whole validation split; a returned reason ends the training as pruned."""

    def stop_reason(self) -> str | None:
        """Asked after every step; a returned reason ends the training as pruned."""


@dataclass(frozen=True)
class Lesson:
    """What is learned from and judged on: tokenised splits with input_ids, attention_mask, labels, length."""

    train: Any
    validation: Any
    tokenizer: Any
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class Goal:
    """What the score is, and at which shares of the schedule it is taken."""

    metric: str
    direction: str
    rungs: Sequence[float]

    def better(self, new: float, old: float | None) -> bool:
        return old is None or (new > old if self.direction == "maximize" else new < old)


def fine_tune(
    recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, goal: Goal, watcher: Watcher, folder: Path
) -> Outcome:
    """Train once; keep the weights of the best evaluation in `folder`/best.

    The score is the best evaluation's, and those weights are the ones kept. Raises TrainingFailed when the loss is no
    number.
    """
    began = time.monotonic()
    trainer = _trainer(recipe, checkpoint, lesson, folder)
    judge = _Judge(trainer, goal, watcher, folder, len(lesson.validation))
    trainer.add_callback(judge)
    trainer.train()
    return judge.outcome(time.monotonic() - began)


def calibrate(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path) -> Calibration:
    """Measure ten optimizer steps and up to four evaluation batches of `recipe`; nothing is kept."""
    timer = _Timer()
    trainer = _trainer(recipe, checkpoint, lesson, folder, max_steps=10)
    trainer.add_callback(timer)
    trainer.train()
    rows = range(0, len(lesson.validation), max(1, len(lesson.validation) // (4 * trainer.args.eval_batch_size)))
    few = lesson.validation.select(rows)
    evaluated = trainer.evaluate(few)
    batch = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps
    shutil.rmtree(folder, ignore_errors=True)
    return Calibration(
        seconds_per_example=timer.seconds_per_step() / min(batch, len(lesson.train)),
        seconds_per_evaluated=evaluated["eval_runtime"] / len(few),
        megabytes=checkpoint.megabytes,
        device=str(trainer.args.device),
        threads=torch.get_num_threads(),
    )


def evaluate_untrained(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path) -> Evaluation:
    """The model as it comes, its missing head at random from the seed, on the whole validation split."""
    trainer = _trainer(recipe, checkpoint, lesson, folder)
    found = trainer.evaluate()
    shutil.rmtree(folder, ignore_errors=True)
    return Evaluation(0, 1.0, 0, _metrics(found), found["eval_runtime"])


def failure_reason(error: Exception) -> str:
    """Why a training failed, in one line."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, TrainingFailed):
        return first
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in first
    return f"{'out of memory' if short else type(error).__name__}: {first}"


def supports_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def training_arguments(recipe: Recipe, folder: Path, **more: Any) -> TrainingArguments:
    """The groups' fields as they stand, and what Trialbook decides itself."""
    values = {**recipe.optimizer, **recipe.schedule, **recipe.trainer, **more}
    values.pop("require_gpu", None)
    if values.get("bf16") == "auto":
        values["bf16"] = supports_bf16() and not values.get("use_cpu")
    values.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    return TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        seed=recipe.seed,
        eval_strategy="no",  # the Judge evaluates, at shares of the schedule
        save_strategy="no",
        logging_strategy="steps",
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        disable_tqdm=True,
        **values,
    )


def _trainer(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path, **more: Any) -> "_Trainer":
    by_length = np.argsort(lesson.validation["length"][:], kind="stable")[::-1]
    trainer = _Trainer(
        model=build(checkpoint, recipe.model, lesson.label_names, recipe.seed),
        args=training_arguments(recipe, folder, **more),
        train_dataset=lesson.train,
        eval_dataset=lesson.validation.select(by_length),  # like lengths together; the longest first
        processing_class=lesson.tokenizer,
        data_collator=DataCollatorWithPadding(lesson.tokenizer),
        compute_metrics=lambda p: metrics.compute(p.label_ids, p.predictions),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _EpochSampler(Sampler[int]):
    """An order that depends on (seed, epoch) alone, so that a training cut anywhere can be taken up again."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, group: bool) -> None:
        self.lengths, self.batch, self.seed, self.group, self.epoch = list(lengths), batch, seed, group, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.group:
            return iter(get_length_grouped_indices(self.lengths, self.batch, generator=generator))
        return iter(torch.randperm(len(self.lengths), generator=generator).tolist())


class _Trainer(Trainer):
    """The Trainer with orders of its own: training by (seed, epoch), evaluation as the rows lie."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        data = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(data)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _EpochSampler(self.train_dataset["length"][:], batch, self.args.seed, strategy == "group_by_length")

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)


class _Judge(TrainerCallback):
    """Evaluates at the rungs, keeps the best weights, hands everything to the watcher, ends what it is told to."""

    def __init__(self, trainer: _Trainer, goal: Goal, watcher: Watcher, folder: Path, n_validation: int) -> None:
        self.trainer, self.goal, self.watcher, self.folder = trainer, goal, watcher, folder
        self.n_validation = n_validation
        self.shares: dict[int, float] = {}  # optimizer step -> share of the schedule
        self.best: Evaluation | None = None
        self.seconds: list[float] = []
        self.reason: str | None = None
        self.reached = 0.0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self.shares = {max(1, math.ceil(share * state.max_steps)): share for share in sorted(self.goal.rungs)}

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        self.reached = state.global_step / state.max_steps
        control.should_evaluate = state.global_step in self.shares
        if reason := self.watcher.stop_reason():
            self.reason, control.should_training_stop = reason, True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        values = {f"train/{key}": float(logs[key]) for key in ("loss", "learning_rate", "grad_norm") if key in logs}
        if not math.isfinite(values["train/loss"]):
            raise TrainingFailed(f"the training loss became {logs['loss']} by step {state.global_step}")
        self.watcher.curve(state.global_step, {**values, "train/epoch": float(state.epoch or 0)})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        share = self.shares[state.global_step]
        found = _metrics(metrics)
        if not math.isfinite(found["loss"]):
            raise TrainingFailed(f"the validation loss became {found['loss']} by step {state.global_step}")
        batch = args.train_batch_size * args.gradient_accumulation_steps
        examples = min(state.global_step * batch, round(float(state.epoch or 0) * len(self.trainer.train_dataset)))
        evaluation = Evaluation(state.global_step, share, examples, found, metrics["eval_runtime"])
        self.seconds.append(evaluation.seconds)
        if self.goal.better(found[self.goal.metric], self.best.metrics[self.goal.metric] if self.best else None):
            save(self.trainer.model, self.trainer.processing_class, self.folder / BEST)
            self.best = evaluation
        reason = self.watcher.evaluated(evaluation)
        if reason and share < 1:
            self.reason, control.should_training_stop = reason, True

    def outcome(self, seconds: float) -> Outcome:
        weights = self.folder / BEST / WEIGHTS
        pruned = self.reason is not None and self.reached < 1
        best = self.best
        return Outcome(
            state=State.PRUNED if pruned else State.COMPLETE,
            score=best.metrics[self.goal.metric] if best else None,
            metrics=best.metrics if best else {},
            step=best.step if best else None,
            share=self.reached,
            seconds=seconds,
            megabytes=weights.stat().st_size / 1e6 if weights.exists() else None,
            ms_per_1000_texts=min(self.seconds) / self.n_validation * 1e6 if self.seconds else None,
            reason=self.reason if pruned else None,
        )


class _Timer(TrainerCallback):
    """The time of each optimizer step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.monotonic())

    def seconds_per_step(self) -> float:
        """Mean over all but the first step, which also warms up."""
        if len(self.ends) < 2:
            raise TrainingFailed("the training data make fewer than two optimizer steps")
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights and tokenizer into `folder`, which changes from the old ones to the new ones in one rename."""
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def _metrics(found: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an evaluation, without the Trainer's prefix and its timing."""
    timing = (
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "eval_model_preparation_time",
    )
    return {k.removeprefix("eval_"): float(v) for k, v in found.items() if k.startswith("eval_") and k not in timing}
