"""The Hugging Face Trainer of a classifier: its data, loss, order of texts and evaluations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler, SequentialSampler
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices

from src.config.settings import FOUR_BIT, LossSettings, Recipe
from src.core.task import Task
from src.training import adapters, cpu_dropout, devices, metrics, old_checkpoints
from src.training.adapters import AdapterBase
from src.training.callbacks import TrainingFailed
from src.training.classifiers import build_classifier
from src.training.losses import Loss, mean_loss, training_loss
from src.training.number_scale import NumberScale
from src.training.pretrained import PretrainedModel
from src.training.trainer_arguments import build_training_arguments


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


class EpochSampler(Sampler[int]):
    """Orders the texts by (seed, epoch) alone, so that a training can be resumed in the middle of an epoch."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, group: bool) -> None:
        self.lengths, self.batch, self.seed, self.group, self.epoch = list(lengths), batch, seed, group, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.group:
            return iter(get_length_grouped_indices(self.lengths, self.batch, generator=generator))
        return iter(torch.randperm(len(self.lengths), generator=generator).tolist())


class ClassifierTrainer(Trainer):
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

    def first_order(self) -> Sequence[int]:
        """The rows of the training split in the order of the first epoch."""
        sampler = self._get_train_sampler()
        return list(sampler) if isinstance(sampler, EpochSampler) else range(len(self.train_dataset))

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
        """The loss of a batch: the recipe's in training, the mean loss in evaluations."""
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
        """The Trainer's, with the mean loss over the texts."""
        output = super().evaluation_loop(*given, **named)
        # Over several devices the Trainer's mean includes texts that fill the last batch. Smoothing is for training.
        if self.args.world_size > 1 or self.args.label_smoothing_factor:
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            output.metrics["eval_loss"] = mean_loss(self.task, self.scale)(logits, labels).item()
        return output

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's, which can also read states that earlier versions saved."""
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
        return EpochSampler(self.train_dataset["length"][:], batch, self.args.seed, strategy == "group_by_length")

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)


def build_trainer(
    recipe: Recipe,
    checkpoint: PretrainedModel,
    data: TokenizedData,
    folder: Path,
    extra: Sequence[str] = (),
    **more: Any,
) -> ClassifierTrainer:
    """A Trainer that is ready to train the recipe.

    Args:
        recipe: model, optimizer, schedule, trainer arguments and seed.
        checkpoint: the pretrained model.
        data: tokenized.
        folder: of checkpoints.
        extra: metrics that evaluations compute beside the usual ones.
        **more: TrainingArguments in place of the recipe's.

    Raises:
        TrainingFailed: weights in 4 bits without an adapter.
    """
    devices.keep_freed_memory()
    by_length = np.argsort(data.validation["length"][:], kind="stable")[::-1].copy()
    trainer: ClassifierTrainer = ClassifierTrainer(
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
