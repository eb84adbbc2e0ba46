"""Measures how far fine-tuning moved the weights of each layer, and lists a model's modules."""

import re
from pathlib import Path
from typing import Any

import torch

from src.config.settings import ModelSettings
from src.core.records import WeightChange
from src.core.task import Task
from src.training.classifiers import build_classifier, load_finetuned
from src.training.pretrained import PretrainedModel

COLUMNS = ("input_size", "output_size", "num_params", "trainable")


def tensor_changes(before: Any, folder: Path) -> list[WeightChange]:
    """The change of every tensor from the model `before` to the weights in `folder`, in the order of the layers.

    Of an adapter, it is the change that merging makes.
    """
    after = load_finetuned(folder).state_dict()
    return [
        WeightChange(
            name,
            weights.numel(),
            float(weights.double().norm()),
            float((after[name].float() - weights.float()).double().norm()),
        )
        for name, weights in before.state_dict().items()
        if name in after
    ]


def group_by_layer(tensors: list[WeightChange], prefix: str) -> list[WeightChange]:
    """Tensors grouped into embeddings, layer 0, ..., pooler, classifier. Norms add up as squares."""
    groups: dict[str, list[WeightChange]] = {}
    for tensor in tensors:
        groups.setdefault(layer_of(tensor.part, prefix), []).append(tensor)
    return [
        WeightChange(
            name,
            sum(t.parameters for t in group),
            sum(t.before**2 for t in group) ** 0.5,
            sum(t.moved**2 for t in group) ** 0.5,
        )
        for name, group in groups.items()
    ]


def layer_of(name: str, prefix: str) -> str:
    """The layer of the tensor `name`; `prefix`: the model's base_model_prefix."""
    if number := re.search(r"\.(\d+)\.", name):
        return f"layer {number[1]}"
    parts = [part for part in name.split(".") if part not in (prefix, "encoder", "transformer")]
    return parts[0]


def initial_model(checkpoint: PretrainedModel, model: ModelSettings, task: Task, seed: int) -> Any:
    """The model that a training with `seed` starts from, with its random head.

    Args:
        checkpoint: the pretrained model.
        model: its settings.
        task: of the data.
        seed: of the training.
    """
    return build_classifier(checkpoint, model, task, seed).eval()


def model_summary(model: Any, n_tokens: int) -> str:
    """Modules, shapes and numbers of parameters for one text of `n_tokens` tokens."""
    import torchinfo

    text = {name: torch.ones(1, n_tokens, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    return f"{torchinfo.summary(model, input_data=text, depth=5, col_names=COLUMNS, verbose=0, device='cpu')}\n"
