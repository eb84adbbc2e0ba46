"""Fine-tuning with the Hugging Face Trainer."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch

from src.config.settings import FOUR_BIT, AdapterSettings, Recipe
from src.core.records import Calibration, Evaluation, State, TrainingResult
from src.data import splits
from src.training import devices
from src.training.callbacks import (
    Objective,
    RefitCallback,
    RungCallback,
    TrainingCallback,
    strip_eval_prefix,
)
from src.training.checkpoints import last_checkpoint
from src.training.classifier_trainer import ClassifierTrainer, TokenizedData, build_trainer
from src.training.failures import micro_batch_size
from src.training.pretrained import PretrainedModel
from src.training.throughput import FORWARD_FRACTION, MEASURED_STEPS, StepTimer, tokens_per_step


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
    trainer = build_trainer(recipe, checkpoint, data, folder, objective.metrics)
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


def _merged_speed(trainer: ClassifierTrainer) -> float:
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
    trainer: ClassifierTrainer, objective: Objective, callback: TrainingCallback, folder: Path
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
    trainer = build_trainer(recipe, checkpoint, data, folder, max_steps=MEASURED_STEPS)
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
    trainer: ClassifierTrainer, recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, meter: StepTimer
) -> Calibration:
    """The speed of a training, from the time of its first steps."""
    args, lengths = trainer.args, data.train["length"][:]
    tokens = tokens_per_step(lengths, trainer.first_order(), args.train_batch_size, args.gradient_accumulation_steps)
    return _calibration(trainer, recipe, checkpoint, data, meter.seconds_per_epoch(tokens) / len(lengths))


def _calibration(
    trainer: ClassifierTrainer,
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


def _saved_megabytes(trainer: ClassifierTrainer, checkpoint: PretrainedModel) -> float:
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
    trainer = build_trainer(recipe, checkpoint, data, folder, extra)
    metrics_with_prefix = trainer.evaluate()
    shutil.rmtree(folder, ignore_errors=True)
    return Evaluation(0, 1.0, 0, strip_eval_prefix(metrics_with_prefix), metrics_with_prefix["eval_runtime"])
