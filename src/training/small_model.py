"""A small random model of a checkpoint's architecture, trained for two steps on four texts."""

import copy
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PrinterCallback, Trainer, set_seed

from src.config.settings import FLOAT32, Recipe
from src.core.task import Task
from src.core.texts import Text
from src.data.tokenization import encode
from src.training import adapters, classifiers
from src.training.pretrained import PretrainedModel
from src.training.trainer_arguments import build_training_arguments

TEXTS = ("a warm and funny film", "dull", "it is far too long , and nobody in it is worth a second look", "good")
STEPS = 2
VOCABULARY = 256  # rows of the small model's embedding; token ids are taken modulo it


def with_small_batches(recipe: Recipe) -> Recipe:
    """The recipe with batches of two texts."""
    trainer = {k: v for k, v in recipe.trainer.items() if k not in ("num_train_epochs", "max_steps")}
    small = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "gradient_accumulation_steps": 1}
    return replace(recipe, trainer={**trainer, **small, "logging_steps": 1})


def build_small_model(recipe: Recipe, checkpoint: PretrainedModel, task: Task, layers: int = 1) -> Any:
    """So many random layers of the checkpoint's architecture, with few rows of embeddings, and the recipe's adapter."""
    config = classifiers.classifier_config(checkpoint, recipe.model, task)
    small = copy.deepcopy(config)
    small.num_hidden_layers, small.vocab_size = layers, min(int(config.vocab_size), VOCABULARY)
    if types := getattr(small, "layer_types", None):
        small.layer_types = types[:layers]
    for key, value in config.to_dict().items():
        if key.endswith("token_id") and isinstance(value, int):
            setattr(small, key, value % small.vocab_size)
    set_seed(recipe.seed)
    try:
        model = AutoModelForSequenceClassification.from_config(small)
    except Exception:  # an architecture whose parts must fit each other
        model = AutoModelForSequenceClassification.from_config(config)
    if recipe.model.dtype != FLOAT32:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            use_cpu = bool(recipe.trainer.get("use_cpu"))
            model = classifiers.load_weights(Path(folder), model.config, recipe.model.dtype, use_cpu)
    return adapters.add_adapter(model, recipe.adapter, recipe.seed) if recipe.has_adapter else model


def small_data(tokenizer: Any, config: Any, task: Task, max_tokens: int) -> Dataset:
    """Four texts with labels of the task, as a small model of this config can read them."""
    n_labels = len(task.label_names)
    texts: list[Text] = list(zip(TEXTS, reversed(TEXTS), strict=True)) if task.has_pairs else list(TEXTS)
    encoded = encode(tokenizer, texts, max_tokens)
    ids = [[i % int(config.vocab_size) for i in text] for text in encoded["input_ids"]]
    labels: list[Any] = [i % n_labels for i in range(len(TEXTS))]
    if task.is_regression:
        labels = [i / len(TEXTS) for i in range(len(TEXTS))]
    if task.has_several_labels:
        labels = [[float(i == label) for i in range(n_labels)] for label in labels]
    return Dataset.from_dict({**encoded, "input_ids": ids, "labels": labels})


def train_small(recipe: Recipe, model: Any, tokenizer: Any, data: Dataset) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """A Trainer that has trained a copy of `model` for STEPS steps, and the weights that it ended with."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=copy.deepcopy(model),
            args=build_training_arguments(recipe, Path(folder), max_steps=STEPS),
            train_dataset=data,
            processing_class=tokenizer,
            data_collator=partial(_padded, tokenizer, int(model.config.vocab_size)),
        )
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    assert trainer.model is not None
    return trainer, {name: value.detach().float().cpu() for name, value in trainer.model.state_dict().items()}


def _padded(tokenizer: Any, rows: int, texts: list[dict[str, Any]]) -> Any:
    """A batch whose tokens, padding too, are among the rows of a small embedding."""
    batch = DataCollatorWithPadding(tokenizer)(texts)
    batch["input_ids"] %= rows
    return batch
