"""Fine-tuning through the Hugging Face Trainer: its one home."""

import errno
import gc
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from src.errors import first_line
from src.learning import devices, embeddings, metrics, processor
from src.learning.checkpoints import Checkpoint, build
from src.learning.judge import Goal, Judge, TrainingFailed, Watcher, plain_metrics
from src.learning.resume import last_checkpoint
from src.learning.speed import FORWARD, MEASURED_STEPS, Speedometer, tokens_of_steps
from src.records import Calibration, Evaluation, Outcome
from src.settings import Recipe
from src.text import splits

OUT_OF_MEMORY, DISK_FULL = "out of memory", "the disk is full"  # how reasons of a failure begin
NO_MEMORY = (  # as torch's allocators, the system, cuBLAS and cuDNN, and oneDNN say it
    "can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory", "STATUS_ALLOC_FAILED",
    "could not create a primitive", "could not create a memory",
)  # fmt: skip
NO_SPACE = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")


@dataclass(frozen=True)
class Lesson:
    """What is learned from and judged on: tokenised splits with input_ids, attention_mask, labels, length."""

    train: Any
    validation: Any
    tokenizer: Any
    label_names: tuple[str, ...]


def fine_tune(
    recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, goal: Goal, watcher: Watcher, folder: Path
) -> Outcome:
    """Train once, from the last whole checkpoint in `folder` if there is one; keep the best weights in `folder`/best.

    The score is the best whole evaluation's, and those weights are the ones kept. Raises TrainingFailed when the loss
    is no number.
    """
    began = time.monotonic()
    trainer = _trainer(recipe, checkpoint, lesson, folder)
    whole = trainer.eval_dataset
    judge = Judge(trainer, goal, watcher, folder, (_part(whole, goal.rung_examples), whole))
    start = last_checkpoint(folder)
    if start is not None:
        trainer.add_callback(judge.take_up(start))
    else:
        known = partial(_timed, trainer, recipe, checkpoint, lesson)
        trainer.add_callback(Speedometer(lambda meter: watcher.timed(known(meter))))
    trainer.add_callback(judge)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    return judge.outcome(time.monotonic() - began)


def _part(validation: Any, size: int | None) -> Any:
    """A stratified part of `validation`, always the same; all of it where `size` asks for no less."""
    if size is None or size >= len(validation):
        return validation
    labels = pd.DataFrame({"label": validation["labels"][:]})
    return validation.select(splits.sample(labels, size, 0, False, "study.rung_examples").index)


def calibrate(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path) -> Calibration:
    """Measure up to twelve optimizer steps, some seconds, and four evaluation batches of `recipe`; nothing is kept.

    The steps go over twelve batches of texts drawn at random. The first ones of a whole epoch would not do: where like
    lengths share a batch, an epoch goes through fifty batches' texts at a time, the longest first.
    """
    meter = Speedometer()
    batch = micro_batch(recipe) * int(recipe.trainer.get("gradient_accumulation_steps", 1))
    drawn = np.random.default_rng(recipe.seed).permutation(len(lesson.train))[: MEASURED_STEPS * batch]
    trainer = _trainer(recipe, checkpoint, lesson, folder, max_steps=MEASURED_STEPS)
    trainer.train_dataset = lesson.train.select(drawn)
    trainer.add_callback(meter)
    trainer.train()
    rows = range(0, len(lesson.validation), max(1, len(lesson.validation) // (4 * trainer.args.eval_batch_size)))
    few = lesson.validation.select(rows)
    evaluated = trainer.evaluate(few)
    shutil.rmtree(folder, ignore_errors=True)
    found = _calibration(trainer, recipe, checkpoint, lesson, meter.seconds_per_step() / min(batch, len(lesson.train)))
    return replace(found, seconds_per_evaluated=evaluated["eval_runtime"] / len(few))


def _timed(
    trainer: "_Trainer", recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, meter: Speedometer
) -> Calibration:
    """What the first steps of a training say of its speed."""
    args, lengths, sampler = trainer.args, lesson.train["length"][:], trainer._get_train_sampler()
    order = list(sampler) if isinstance(sampler, _EpochSampler) else range(len(lengths))
    tokens = tokens_of_steps(lengths, order, args.train_batch_size, args.gradient_accumulation_steps)
    return _calibration(trainer, recipe, checkpoint, lesson, meter.seconds_per_epoch(tokens) / len(lengths))


def _calibration(
    trainer: "_Trainer", recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, seconds_per_example: float
) -> Calibration:
    """The seconds of an evaluated example are reckoned from those of a training example."""
    seen, judged = (np.asarray(part["length"][:]) for part in (lesson.train, lesson.validation))
    return Calibration(
        seconds_per_example=seconds_per_example,
        seconds_per_evaluated=seconds_per_example * FORWARD * judged.mean() / seen.mean(),
        megabytes=checkpoint.megabytes,
        device=str(trainer.args.device),
        threads=torch.get_num_threads(),
        gpu_megabytes=torch.cuda.max_memory_reserved() / 1e6 if trainer.args.device.type == "cuda" else 0.0,
        cut=float(np.mean(seen >= recipe.model.max_tokens)),
    )


def evaluate_untrained(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path) -> Evaluation:
    """The model as it comes, its missing head at random from the seed, on the whole validation split."""
    trainer = _trainer(recipe, checkpoint, lesson, folder)
    found = trainer.evaluate()
    shutil.rmtree(folder, ignore_errors=True)
    return Evaluation(0, 1.0, 0, plain_metrics(found), found["eval_runtime"])


def failure_reason(error: Exception) -> str:
    """Why a training failed, in one line; it begins with OUT_OF_MEMORY or DISK_FULL where that was it."""
    first = first_line(error)
    if isinstance(error, TrainingFailed):
        return first
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(said in str(error) for said in NO_MEMORY):
        return f"{OUT_OF_MEMORY}: {first}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(said in str(error) for said in NO_SPACE):
        return f"{DISK_FULL}: {first}"
    return f"{type(error).__name__}: {first}"


def micro_batch(recipe: Recipe) -> int:
    """Examples that go through the model at a time; the Trainer's own default is 8."""
    return int(recipe.trainer.get("per_device_train_batch_size", 8))


def halved(recipe: Recipe, devices: int = 1) -> Recipe | None:
    """The recipe with half the examples at a time and as many per update as before; None where that cannot be."""
    size = micro_batch(recipe)
    if size % (2 * devices):
        return None
    steps = 2 * int(recipe.trainer.get("gradient_accumulation_steps", 1))
    trainer = {**recipe.trainer, "per_device_train_batch_size": size // 2, "gradient_accumulation_steps": steps}
    return replace(recipe, trainer=trainer)


def halved_to(size: int, recipe: Recipe, devices: int = 1) -> Recipe:
    """The recipe with `size` examples at a time, where it has so many times two, four, ...; and as many per update."""
    while micro_batch(recipe) > size and (smaller := halved(recipe, devices)):
        recipe = smaller
    return recipe


def free_memory() -> None:
    """Let go of what a training that failed has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def precision(recipe: Recipe) -> str:
    """What a training of `recipe` computes in on this machine: bf16, fp16 or fp32."""
    bf16, fp16 = recipe.trainer.get("bf16"), recipe.trainer.get("fp16")
    if bf16 == "auto" and not fp16:
        return devices.fast_precision(bool(recipe.trainer.get("use_cpu")))
    return "fp16" if fp16 else "bf16" if bf16 else "fp32"


def training_arguments(recipe: Recipe, folder: Path, **more: Any) -> TrainingArguments:
    """The groups' fields as they stand, and what Trialbook decides itself."""
    values = {**recipe.optimizer, **recipe.schedule, **recipe.trainer, **more}
    values.pop("require_gpu", None)
    if values.get("bf16") == "auto":
        values |= {kind: precision(recipe) == kind for kind in ("bf16", "fp16")}
    if values.get("bf16") and not torch.accelerator.is_available():
        values["use_cpu"] = True  # the Trainer wants to be told
    values.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    if torch.distributed.is_initialized():  # a rank's batch is its part of the recipe's
        values["accelerator_config"] = {"split_batches": True}
        values.setdefault("ddp_find_unused_parameters", False)  # the architectures that we know use all of theirs
    made = TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        seed=recipe.seed,
        eval_strategy="no",  # the Judge evaluates, at shares of the schedule
        save_strategy="no",  # and says when to write a checkpoint
        logging_strategy="steps",
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        disable_tqdm=True,
        **values,
    )
    if made.n_gpu > 1:  # the Trainer would take them all, with as many times the batch
        made._n_gpu = 1
    return made


def _trainer(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path, **more: Any) -> "_Trainer":
    devices.keep_freed_memory()
    by_length = np.argsort(lesson.validation["length"][:], kind="stable")[::-1].copy()
    trainer: _Trainer = _Trainer(
        model=build(checkpoint, recipe.model, lesson.label_names, recipe.seed),
        args=training_arguments(recipe, folder, **more),
        train_dataset=lesson.train,
        eval_dataset=lesson.validation.select(by_length),  # like lengths together; the longest first
        processing_class=lesson.tokenizer,
        data_collator=DataCollatorWithPadding(lesson.tokenizer),
        compute_metrics=lambda p: trainer.heard(p.label_ids, p.predictions),
    )
    trainer.order, trainer.met = by_length, lesson.train
    if trainer.args.device.type == "cpu" and not trainer.args.torch_compile:
        processor.use(trainer.model)
    # Most classifiers take keyword arguments and leave num_items_in_batch alone. Believed to divide the loss by it,
    # they would keep the Trainer from dividing by the accumulated steps: losses and gradients that much too big.
    trainer.model_accepts_loss_kwargs = False
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

    met: Any  # the texts that a training may go through
    order: np.ndarray  # the rows of the validation split, as they are evaluated
    logits: np.ndarray  # of the last evaluation

    def heard(self, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        """Metrics of an evaluation; its answers are kept until the next one."""
        self.logits = logits
        return metrics.compute(labels, logits)

    def chances(self) -> np.ndarray:
        """What the last evaluation, one of the whole split, answered: [n_examples, n_labels], rows as in the split."""
        found = np.empty_like(self.logits)
        found[self.order] = softmax(self.logits, axis=1)
        return found

    def evaluation_loop(self, *given: Any, **named: Any) -> Any:
        found = super().evaluation_loop(*given, **named)
        # Over several devices the mean counts the texts that fill up the last batch; smoothed labels are for training.
        if self.args.world_size > 1 or self.args.label_smoothing_factor:
            logits, labels = torch.from_numpy(found.predictions), torch.from_numpy(found.label_ids)
            found.metrics["eval_loss"] = cross_entropy(logits.float(), labels).item()
        return found

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        args = self.args
        other = args.fp16 or args.torch_compile or self.is_fsdp_enabled or self.is_deepspeed_enabled  # fp16: lost steps
        exact = args.optim in embeddings.EXACT and not other
        padding = self.processing_class.pad_token_id
        made = embeddings.leave_out_unused(self.model, self.met, padding) if exact and self.optimizer is None else None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if made is not None:
            embeddings.decay_with(optimizer, made)
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        data = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(data)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _EpochSampler(self.train_dataset["length"][:], batch, self.args.seed, strategy == "group_by_length")

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)
