"""Fine-tuning with the Hugging Face Trainer."""

import errno
import gc
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from src.config.settings import BFLOAT16, FOUR_BIT, AdapterSettings, LossSettings, Recipe
from src.core.errors import first_line
from src.core.records import Calibration, Evaluation, State, TrainingResult
from src.core.task import Task
from src.data import splits
from src.training import adapters, cpu_dropout, devices, metrics, old_checkpoints
from src.training.adapters import AdapterBase
from src.training.callbacks import (
    Objective,
    RefitCallback,
    RungCallback,
    TrainingCallback,
    TrainingFailed,
    strip_eval_prefix,
)
from src.training.checkpoints import last_checkpoint
from src.training.classifiers import build_classifier
from src.training.losses import Loss, mean_loss, training_loss
from src.training.number_scale import NumberScale
from src.training.pretrained import PretrainedModel
from src.training.throughput import FORWARD_FRACTION, MEASURED_STEPS, StepTimer, tokens_per_step

OUT_OF_MEMORY, DISK_FULL = "out of memory", "the disk is full"  # how a failure's reason begins
NO_MEMORY = (  # messages of torch's allocators, the system, cuBLAS and cuDNN, and oneDNN
    "can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory", "STATUS_ALLOC_FAILED",
    "could not create a primitive", "could not create a memory",
)  # fmt: skip
NO_SPACE = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")


@dataclass(frozen=True)
class TokenizedData:
    """Tokenized splits (see tokenization.encode; also labels and length), their tokenizer, and the task."""

    train: Any
    validation: Any
    tokenizer: Any
    task: Task

    @property
    def label_names(self) -> tuple[str, ...]:
        """By label index."""
        return self.task.label_names


def fine_tune(
    recipe: Recipe,
    checkpoint: PretrainedModel,
    data: TokenizedData,
    objective: Objective,
    callback: TrainingCallback,
    folder: Path,
) -> TrainingResult:
    """Train a classifier; continue from the last complete checkpoint in `folder` if there is one.

    Args:
        recipe: model, optimizer, schedule, trainer arguments and seed.
        checkpoint: the pretrained model to start from.
        data: train and validation splits, tokenized.
        objective: the metric, and the rungs at which the validation split is evaluated; or that this is a refit.
        callback: follows the training, and may end it.
        folder: of checkpoints; the best weights are saved in `folder`/best.

    Returns:
        The result. Its score is that of the best evaluation on the whole validation split, whose weights are kept. A
        refit has none: it trains on validation too.

    Raises:
        TrainingFailed: if a loss is NaN or infinite.
    """
    began = time.monotonic()
    if objective.train_examples is not None:
        data = replace(data, train=stratified_subset(data.train, objective.train_examples, "screening.examples"))
    if objective.refit_share is not None:
        data = _refit_data(data, objective)
    trainer = _build_trainer(recipe, checkpoint, data, folder, objective.metrics)
    rung_callback = _callback_of(trainer, objective, callback, folder)
    start = last_checkpoint(folder)
    if start is not None:
        trainer.add_callback(rung_callback.restore(start))
    else:
        known = partial(_speed_of_first_steps, trainer, recipe, checkpoint, data)
        trainer.add_callback(StepTimer(lambda meter: callback.on_speed_measured(known(meter))))
    trainer.add_callback(rung_callback)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    result = rung_callback.result(time.monotonic() - began)
    is_measured = result.ms_per_1000_texts is not None and result.state == State.COMPLETE
    # compiled, it would be compiled once more; in 4 bits, it would not be the model that is delivered
    if recipe.has_adapter and is_measured and not trainer.args.torch_compile and recipe.model.dtype != FOUR_BIT:
        result = replace(result, ms_per_1000_texts=_merged_speed(trainer))
    return result


def _merged_speed(trainer: "_ClassifierTrainer") -> float:
    """Processor or GPU milliseconds for 1,000 texts without the adapter: as fast as a model with it merged in."""
    validation = trainer.eval_dataset
    rows = range(0, len(validation), max(1, len(validation) // (4 * trainer.args.eval_batch_size)))
    few, trainer.compute_metrics = validation.select(rows), None
    with trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
        seconds = trainer.predict(few).metrics["test_runtime"]
    return float(seconds / len(few) * 1e6 * devices.compute_units(trainer.args.use_cpu))


def _refit_data(data: TokenizedData, objective: Objective) -> TokenizedData:
    """The texts that a refit trains on: with those of validation, and with further ones that have soft labels."""
    from src.training import soft_labels

    if objective.trains_on_validation:
        data = replace(data, train=datasets.concatenate_datasets([data.train, data.validation]))
    return data if objective.soft_labels is None else soft_labels.add_soft_labels(data, objective.soft_labels)


def _callback_of(
    trainer: "_ClassifierTrainer", objective: Objective, callback: TrainingCallback, folder: Path
) -> RungCallback:
    if objective.refit_share is not None:
        return RefitCallback(trainer, objective, callback, folder)
    validation = trainer.eval_dataset
    parts = (stratified_subset(validation, objective.rung_examples, "study.rung_examples"), validation)
    return RungCallback(trainer, objective, callback, folder, parts)


def stratified_subset(split: Any, size: int | None, key: str) -> Any:
    """A stratified subset of a tokenized split, always the same; all of it if `size` is None or not smaller.

    `key`: the setting that `size` is from, for messages.
    """
    if size is None or size >= len(split):
        return split
    labels = pd.DataFrame({"label": list(split["labels"][:])})
    return split.select(splits.stratified_sample(labels, size, 0, False, key).index)


def measure_speed(recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, folder: Path) -> Calibration:
    """Time up to twelve optimizer steps and four evaluation batches of `recipe`; no weights are kept.

    The texts of the steps are drawn at random. The first steps of a real epoch would not be typical: with texts grouped
    by length, an epoch goes through the texts of fifty batches at a time, the longest first.

    Args:
        recipe: to measure.
        checkpoint: the pretrained model.
        data: tokenized.
        folder: for the Trainer's files; it is deleted.

    Returns:
        Seconds per training example and per evaluated example, and the size of the weights.
    """
    meter = StepTimer()
    batch = micro_batch_size(recipe) * int(recipe.trainer.get("gradient_accumulation_steps", 1))
    rows_drawn = np.random.default_rng(recipe.seed).permutation(len(data.train))[: MEASURED_STEPS * batch]
    trainer = _build_trainer(recipe, checkpoint, data, folder, max_steps=MEASURED_STEPS)
    trainer.train_dataset = data.train.select(rows_drawn)
    trainer.add_callback(meter)
    trainer.train()
    rows = range(0, len(data.validation), max(1, len(data.validation) // (4 * trainer.args.eval_batch_size)))
    few = data.validation.select(rows)
    evaluated = trainer.evaluate(few)
    shutil.rmtree(folder, ignore_errors=True)
    calibration = _calibration(
        trainer, recipe, checkpoint, data, meter.seconds_per_step() / min(batch, len(data.train))
    )
    return replace(calibration, seconds_per_evaluated=evaluated["eval_runtime"] / len(few))


def _speed_of_first_steps(
    trainer: "_ClassifierTrainer", recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, meter: StepTimer
) -> Calibration:
    """The speed of a training, from the time of its first steps."""
    args, lengths, sampler = trainer.args, data.train["length"][:], trainer._get_train_sampler()
    order = list(sampler) if isinstance(sampler, _EpochSampler) else range(len(lengths))
    tokens = tokens_per_step(lengths, order, args.train_batch_size, args.gradient_accumulation_steps)
    return _calibration(trainer, recipe, checkpoint, data, meter.seconds_per_epoch(tokens) / len(lengths))


def _calibration(
    trainer: "_ClassifierTrainer",
    recipe: Recipe,
    checkpoint: PretrainedModel,
    data: TokenizedData,
    seconds_per_example: float,
) -> Calibration:
    """The seconds of an evaluated example are estimated from those of a training example (FORWARD_FRACTION)."""
    seen, judged = (np.asarray(part["length"][:]) for part in (data.train, data.validation))
    return Calibration(
        seconds_per_example=seconds_per_example,
        seconds_per_evaluated=seconds_per_example * FORWARD_FRACTION * judged.mean() / seen.mean(),
        megabytes=_saved_megabytes(trainer, checkpoint),
        whole_megabytes=checkpoint.megabytes,
        device=str(trainer.args.device),
        threads=torch.get_num_threads(),
        gpu_megabytes=torch.cuda.max_memory_reserved() / 1e6 if trainer.args.device.type == "cuda" else 0.0,
        cut=float(np.mean(seen >= recipe.model.max_tokens)),
    )


def _saved_megabytes(trainer: "_ClassifierTrainer", checkpoint: PretrainedModel) -> float:
    """Size of a checkpoint's weights in MB (10**6 bytes): of an adapter, what is trained."""
    if trainer.adapter_base is None:
        return checkpoint.megabytes
    return sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad) / 1e6


def evaluate_untrained(
    recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, folder: Path, extra: Sequence[str] = ()
) -> Evaluation:
    """Evaluate the model without fine-tuning on the whole validation split, by the usual metrics and `extra`.

    A head that it lacks is random, from the seed.
    """
    plain = {key: value for key, value in recipe.trainer.items() if key != "torch_compile"}  # it would not pay
    recipe = replace(recipe, trainer=plain, adapter=AdapterSettings())
    trainer = _build_trainer(recipe, checkpoint, data, folder, extra)
    metrics_with_prefix = trainer.evaluate()
    shutil.rmtree(folder, ignore_errors=True)
    return Evaluation(0, 1.0, 0, strip_eval_prefix(metrics_with_prefix), metrics_with_prefix["eval_runtime"])


def failure_reason(error: Exception) -> str:
    """Why a training failed, in one line. It begins with OUT_OF_MEMORY or DISK_FULL if that was the cause."""
    first = first_line(error)
    if isinstance(error, TrainingFailed):
        return first
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in NO_MEMORY):
        return f"{OUT_OF_MEMORY}: {first}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in NO_SPACE):
        return f"{DISK_FULL}: {first}"
    return f"{type(error).__name__}: {first}"


def micro_batch_size(recipe: Recipe) -> int:
    """Examples that go through the model at a time. The Trainer's default is 8."""
    return int(recipe.trainer.get("per_device_train_batch_size", 8))


def halve_micro_batch(recipe: Recipe, devices: int = 1) -> Recipe | None:
    """The recipe with half the micro-batch and twice the accumulation steps; None if the micro-batch is odd."""
    size = micro_batch_size(recipe)
    if size % (2 * devices):
        return None
    steps = 2 * int(recipe.trainer.get("gradient_accumulation_steps", 1))
    trainer = {**recipe.trainer, "per_device_train_batch_size": size // 2, "gradient_accumulation_steps": steps}
    return replace(recipe, trainer=trainer)


def reduce_micro_batch_to(size: int, recipe: Recipe, devices: int = 1) -> Recipe:
    """The recipe with its micro-batch halved until it is at most `size`, and as many examples per update as before."""
    while micro_batch_size(recipe) > size and (smaller := halve_micro_batch(recipe, devices)):
        recipe = smaller
    return recipe


def free_memory() -> None:
    """Free what a failed training has left in memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_precision(recipe: Recipe) -> str:
    """The precision that `recipe` is trained in on this machine: bf16, fp16 or fp32."""
    bf16, fp16 = recipe.trainer.get("bf16"), recipe.trainer.get("fp16")
    if bf16 == "auto" and not fp16:
        if recipe.model.dtype == BFLOAT16:
            return "bf16"
        return devices.fast_precision(bool(recipe.trainer.get("use_cpu")))
    return "fp16" if fp16 else "bf16" if bf16 else "fp32"


def build_training_arguments(recipe: Recipe, folder: Path, **more: Any) -> TrainingArguments:
    """TrainingArguments of the recipe, with the fields that Trialbook sets itself."""
    values = {**recipe.optimizer, **recipe.schedule, **recipe.trainer, **more}
    values.pop("require_gpu", None)
    if values.pop("gradient_checkpointing", None):  # its name in earlier versions of transformers
        values["activation_checkpointing"] = True
    if values.get("bf16") == "auto":
        values |= {kind: resolve_precision(recipe) == kind for kind in ("bf16", "fp16")}
    if values.get("bf16") and not torch.accelerator.is_available():
        values["use_cpu"] = True  # the Trainer does not detect it
    values.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    if torch.distributed.is_initialized():  # each rank trains on its part of the recipe's batch
        values["accelerator_config"] = {"split_batches": True}
        values.setdefault("ddp_find_unused_parameters", False)  # listed architectures use all of their parameters
    arguments = TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        seed=recipe.seed,
        eval_strategy="no",  # RungCallback evaluates, at fractions of the schedule
        save_strategy="no",  # RungCallback says when to save
        logging_strategy="steps",
        logging_nan_inf_filter=False,  # a loss of NaN must be visible
        disable_tqdm=True,
        **values,
    )
    if arguments.n_gpu > 1:  # the Trainer would use all GPUs, and multiply the batch size by their number
        arguments._n_gpu = 1
    return arguments


def _build_trainer(
    recipe: Recipe,
    checkpoint: PretrainedModel,
    data: TokenizedData,
    folder: Path,
    extra: Sequence[str] = (),
    **more: Any,
) -> "_ClassifierTrainer":
    devices.keep_freed_memory()
    by_length = np.argsort(data.validation["length"][:], kind="stable")[::-1].copy()
    trainer: _ClassifierTrainer = _ClassifierTrainer(
        model=_build_model(recipe, checkpoint, data.task),
        args=build_training_arguments(recipe, folder, **more),
        train_dataset=data.train,
        eval_dataset=data.validation.select(by_length),  # texts of similar length together, the longest first
        processing_class=data.tokenizer,
        data_collator=DataCollatorWithPadding(data.tokenizer),
        compute_metrics=lambda p: trainer.compute_and_keep(p.label_ids, p.predictions),
    )
    trainer.eval_order, trainer.extra_metrics = by_length, extra
    precision = devices.fast_precision(bool(recipe.trainer.get("use_cpu")))
    trainer.adapter_base = AdapterBase.of(checkpoint, recipe.model, precision) if recipe.has_adapter else None
    trainer.task, trainer.training_loss = data.task, _training_loss(recipe, data)
    trainer.scale = NumberScale.of(np.asarray(data.train["labels"][:])) if data.task.is_regression else None
    if trainer.args.device.type == "cpu" and not trainer.args.torch_compile:
        cpu_dropout.install(trainer.model)
    # Most classifiers accept keyword arguments but ignore num_items_in_batch. The Trainer would assume that they divide
    # the loss by it, and not divide by the accumulated steps: losses and gradients would be too large.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    return trainer


def _build_model(recipe: Recipe, checkpoint: PretrainedModel, task: Task) -> Any:
    """The model that is trained: the classifier, or its adapter."""
    if recipe.model.dtype == FOUR_BIT and not recipe.has_adapter:
        raise TrainingFailed("weights in 4 bits (model.dtype=4bit) are trained through an adapter only")
    use_cpu = bool(recipe.trainer.get("use_cpu"))
    classifier = build_classifier(checkpoint, recipe.model, task, recipe.seed, recipe.has_adapter, use_cpu)
    return adapters.add_adapter(classifier, recipe.adapter, recipe.seed) if recipe.has_adapter else classifier


def _training_loss(recipe: Recipe, data: TokenizedData) -> Loss | None:
    """The loss that the recipe asks for; None for the mean cross-entropy, and for a regression's."""
    if data.task.is_regression or (recipe.loss == LossSettings() and not data.task.has_several_labels):
        return None
    smoothing = float(recipe.trainer.get("label_smoothing_factor", 0.0))
    return training_loss(recipe.loss, smoothing, np.asarray(data.train["labels"][:]), data.task)


class _EpochSampler(Sampler[int]):
    """Orders the texts by (seed, epoch) alone, so that a training can be resumed in the middle of an epoch."""

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


class _ClassifierTrainer(Trainer):
    """The Trainer with samplers that can be resumed, and with the recipe's loss.

    It keeps the logits of its last evaluation.
    """

    extra_metrics: Sequence[str]  # beside the usual ones
    task: Task
    adapter_base: AdapterBase | None  # None: all weights are trained
    training_loss: Loss | None  # None: the mean cross-entropy, or a regression's squared error
    scale: NumberScale | None  # of a regression
    eval_order: np.ndarray  # rows of the validation split, in the order of evaluation
    logits: np.ndarray  # of the last evaluation

    def compute_and_keep(self, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        """Metrics of an evaluation. Its logits are kept until the next one."""
        self.logits = logits
        return metrics.compute_metrics(labels, self._answers(logits.astype(np.float64)), *self.extra_metrics)

    def validation_probabilities(self) -> np.ndarray:
        """Probabilities of the last evaluation, [n_examples, n_labels], in the order of the validation split."""
        probabilities = np.empty_like(self.logits)
        probabilities[self.eval_order] = self._answers(self.logits)
        return probabilities

    def _answers(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities, or numbers in their own unit."""
        return self.task.probabilities(logits) if self.scale is None else self.scale.in_own_unit(logits)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"]
        special = self.training_loss if model.training else None  # evaluations are by the mean loss
        if labels.dim() == 1 and special is None and self.scale is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # soft and several labels, [batch, n_labels], class weights, and the scale of numbers are what the models' own
        # loss does not know
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        if special is not None:
            loss = special(outputs.logits, labels)
        elif self.task.has_several_labels or self.scale is not None:
            loss = mean_loss(self.task, self.scale)(outputs.logits, labels)
        else:
            smoothing = self.args.label_smoothing_factor
            loss = cross_entropy(outputs.logits.float(), labels.float(), label_smoothing=smoothing)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *given: Any, **named: Any) -> Any:
        output = super().evaluation_loop(*given, **named)
        # Over several devices the Trainer's mean includes texts that fill the last batch. Smoothing is for training.
        if self.args.world_size > 1 or self.args.label_smoothing_factor:
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            output.metrics["eval_loss"] = mean_loss(self.task, self.scale)(logits, labels).item()
        return output

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        optimizer.register_load_state_dict_pre_hook(self._complete_old_state)
        return optimizer

    def _complete_old_state(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        if old_checkpoints.fits(state_dict, optimizer):
            return state_dict
        padding, vocabulary = self.processing_class.pad_token_id, self.model.get_input_embeddings().num_embeddings
        tokens = old_checkpoints.used_tokens(self.train_dataset, padding, vocabulary)
        return old_checkpoints.with_all_rows(state_dict, optimizer, tokens)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        data = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(data)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _EpochSampler(self.train_dataset["length"][:], batch, self.args.seed, strategy == "group_by_length")

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)
