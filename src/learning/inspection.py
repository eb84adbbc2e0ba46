"""What fine-tuning changed: how far every layer moved, and what the model is made of."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from src.learning.checkpoints import WEIGHTS, Checkpoint, build
from src.records import Change
from src.settings import ModelSettings

COLUMNS = ("input_size", "output_size", "num_params", "trainable")


def changes(before: Any, folder: Path) -> list[Change]:
    """The change of every tensor from the model `before` to the weights in `folder`, in the order of the layers."""
    after = load_file(folder / WEIGHTS)
    return [
        Change(name, weights.numel(), float(weights.double().norm()), float((after[name] - weights).double().norm()))
        for name, weights in before.state_dict().items()
        if name in after
    ]


def by_layer(tensors: list[Change], prefix: str) -> list[Change]:
    """Tensors put together into layers: embeddings, layer 0, ..., pooler, classifier. Norms add up as squares do."""
    groups: dict[str, list[Change]] = {}
    for tensor in tensors:
        groups.setdefault(layer_of(tensor.part, prefix), []).append(tensor)
    return [
        Change(
            name,
            sum(t.parameters for t in group),
            sum(t.before**2 for t in group) ** 0.5,
            sum(t.moved**2 for t in group) ** 0.5,
        )
        for name, group in groups.items()
    ]


def layer_of(name: str, prefix: str) -> str:
    """The layer that the tensor `name` belongs to; `prefix`: the model's base_model_prefix."""
    if number := re.search(r"\.(\d+)\.", name):
        return f"layer {number[1]}"
    parts = [part for part in name.split(".") if part not in (prefix, "encoder", "transformer")]
    return parts[0]


def start_of(checkpoint: Checkpoint, model: ModelSettings, label_names: tuple[str, ...], seed: int) -> Any:
    """The model as a training from `seed` began with it, its random head included."""
    return build(checkpoint, model, label_names, seed).eval()


def summary(model: Any, n_tokens: int) -> str:
    """Modules, shapes and parameters for one text of `n_tokens` tokens."""
    import torchinfo

    text = {name: torch.ones(1, n_tokens, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    return f"{torchinfo.summary(model, input_data=text, depth=5, col_names=COLUMNS, verbose=0, device='cpu')}\n"
