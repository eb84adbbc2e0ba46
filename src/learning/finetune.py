"""Fine-tuning through the Hugging Face Trainer: its one home."""

import errno
import gc
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from src.errors import first_line
from src.learning import devices, metrics
from src.learning.checkpoints import Checkpoint, build
from src.learning.judge import Goal, Judge, TrainingFailed, Watcher, plain_metrics
from src.learning.resume import last_checkpoint
from src.records import Calibration, Evaluation, Outcome
from src.settings import Recipe

OUT_OF_MEMORY, DISK_FULL = "out of memory", "the disk is full"  # how reasons of a failure begin
NO_MEMORY = (  # as torch's allocators, the system, cuBLAS and cuDNN, and oneDNN say it
    "can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory", "STATUS_ALLOC_FAILED",
    "could not create a primitive", "could not create a memory",
)  # fmt: skip
MEASURED_STEPS = 12  # in a calibration; get_length_grouped_indices sorts so many batches' texts by quarters:
WARM_UP_STEPS = 3  # any number of whole quarters gives long and short texts their share
MEASURED_SECONDS = 3.0  # enough, if a quarter is done
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
    trainer.add_callback(judge)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    return judge.outcome(time.monotonic() - began)


def _part(validation: Any, size: int | None) -> Any:
    """A stratified part of `validation`, always the same; all of it where `size` asks for no less."""
    if size is None or size >= len(validation):
        return validation
    from sklearn.model_selection import train_test_split

    rows, _ = train_test_split(
        np.arange(len(validation)), train_size=size, stratify=validation["labels"][:], random_state=0
    )
    return validation.select(np.sort(rows))


def calibrate(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path) -> Calibration:
    """Measure up to twelve optimizer steps, some seconds, and four evaluation batches of `recipe`; nothing is kept.

    The steps go over twelve batches of texts drawn at random. The first ones of a whole epoch would not do: where like
    lengths share a batch, an epoch goes through fifty batches' texts at a time, the longest first.
    """
    timer = _Timer()
    batch = micro_batch(recipe) * int(recipe.trainer.get("gradient_accumulation_steps", 1))
    drawn = np.random.default_rng(recipe.seed).permutation(len(lesson.train))[: MEASURED_STEPS * batch]
    part = replace(lesson, train=lesson.train.select(drawn))
    trainer = _trainer(recipe, checkpoint, part, folder, max_steps=MEASURED_STEPS)
    trainer.add_callback(timer)
    trainer.train()
    rows = range(0, len(lesson.validation), max(1, len(lesson.validation) // (4 * trainer.args.eval_batch_size)))
    few = lesson.validation.select(rows)
    evaluated = trainer.evaluate(few)
    shutil.rmtree(folder, ignore_errors=True)
    return Calibration(
        seconds_per_example=timer.seconds_per_step() / min(batch, len(lesson.train)),
        seconds_per_evaluated=evaluated["eval_runtime"] / len(few),
        megabytes=checkpoint.megabytes,
        device=str(trainer.args.device),
        threads=torch.get_num_threads(),
        gpu_megabytes=torch.cuda.max_memory_reserved() / 1e6 if trainer.args.device.type == "cuda" else 0.0,
        cut=float(np.mean(np.array(lesson.train["length"][:]) >= recipe.model.max_tokens)),
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
    return TrainingArguments(
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


def _trainer(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path, **more: Any) -> "_Trainer":
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
    trainer.order = by_length
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
        if self.args.world_size > 1:  # the mean over batches counts the texts that fill up the last one
            logits, labels = torch.from_numpy(found.predictions), torch.from_numpy(found.label_ids)
            smoothing = self.args.label_smoothing_factor
            found.metrics["eval_loss"] = cross_entropy(logits, labels, label_smoothing=smoothing).item()
        return found

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        data = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(data)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _EpochSampler(self.train_dataset["length"][:], batch, self.args.seed, strategy == "group_by_length")

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)


class _Timer(TrainerCallback):
    """The time of each optimizer step, until it is known."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        self.ends.append(time.monotonic())
        if args.world_size > 1:
            return  # ranks that disagree about the end would wait for each other for ever
        quarters, within = divmod(len(self.ends), WARM_UP_STEPS)
        if quarters > 1 and not within and self.ends[-1] - self.ends[WARM_UP_STEPS - 1] >= MEASURED_SECONDS:
            control.should_training_stop = True

    def seconds_per_step(self) -> float:
        """Mean over all but the first steps, which also warm up."""
        if len(self.ends) <= WARM_UP_STEPS:
            raise TrainingFailed(f"the training data make no more than {WARM_UP_STEPS} optimizer steps")
        return (self.ends[-1] - self.ends[WARM_UP_STEPS - 1]) / (len(self.ends) - WARM_UP_STEPS)
