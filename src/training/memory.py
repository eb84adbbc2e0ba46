"""How much memory a training takes: computed from the model's shape, and measured on two layers of it."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from src.config.settings import BFLOAT16, FLOAT32, FOUR_BIT, Recipe
from src.core.records import MemoryEstimate
from src.core.task import Task
from src.core.texts import Text
from src.data.tokenization import encode
from src.training import adapters, classifiers, cpu_dropout, pretrained
from src.training.failures import micro_batch_size
from src.training.pretrained import PretrainedModel
from src.training.small_model import build_small_model, small_data, train_small, with_small_batches
from src.training.trainer_arguments import resolve_precision

LIBRARIES, CUDA = 1.1, 0.5  # GB of a process with all that it imports, and of what CUDA itself takes of a GPU
FOUR_BIT_BYTES = 0.52  # of a weight in 4 bits, with its share of the scales of its block
BYTES = {"float32": 4, "bfloat16": 2}


def estimate_memory(
    recipe: Recipe, checkpoint: PretrainedModel, task: Task, longest: Sequence[Text], devices: int = 1
) -> MemoryEstimate:
    """The memory of a training with `recipe`. Its weights are not read.

    The optimizer's share is measured on one layer of the model, and activations on one and on two layers.

    Args:
        recipe: of the training.
        checkpoint: its pretrained model.
        task: of the data.
        longest: the longest texts of the data, which take the most.
        devices: that the recipe's batches are divided among.
    """
    tokenizer, use_gpu = pretrained.load_tokenizer(checkpoint), _uses_gpu(recipe)
    encoded = encode(tokenizer, longest, recipe.model.max_tokens)
    n_tokens = max((len(ids) for ids in encoded["input_ids"]), default=1)
    config = classifiers.classifier_config(checkpoint, recipe.model, task)
    whole = classifiers.without_weights(config)
    if recipe.has_adapter:
        whole = adapters.add_adapter(whole, recipe.adapter, recipe.seed)
    weights, trained = _weight_bytes(recipe, whole), _n_trained(whole)
    small = [build_small_model(recipe, checkpoint, task, layers) for layers in (1, 2)]
    one, two = (_kept_for_backward(recipe, model, n_tokens) for model in small)
    kept, per_text = (a + (b - a) * (config.num_hidden_layers - 1) for a, b in zip(one, two, strict=True))
    if recipe.trainer.get("activation_checkpointing") or recipe.trainer.get("gradient_checkpointing"):
        size = 4 if resolve_precision(recipe) == "fp32" else 2
        # of each layer its input, from which the layer is computed again
        kept, per_text = one[0], one[1] + n_tokens * config.hidden_size * size * config.num_hidden_layers
    data = small_data(tokenizer, small[0].config, task, recipe.model.max_tokens)
    plain = {key: value for key, value in recipe.trainer.items() if key != "torch_compile"}
    trainer, _ = train_small(with_small_batches(replace(recipe, trainer=plain)), small[0], tokenizer, data)
    return MemoryEstimate(
        weights=(weights + kept) / 1e9,
        gradients=sum(trained) * _trained_size(recipe) / 1e9,
        optimizer=sum(n * each for n, each in zip(trained, _optimizer_bytes(trainer), strict=True)) / 1e9,
        per_text=per_text / 1e9,
        texts=max(1, micro_batch_size(recipe) // devices),
        tokens=n_tokens,
        libraries=CUDA if use_gpu else LIBRARIES,
        gpu_gigabytes=_smallest_gpu() if use_gpu else 0.0,
    )


def _smallest_gpu() -> float:
    """The memory of the smallest GPU in GB."""
    every = range(torch.cuda.device_count())
    return min(torch.cuda.get_device_properties(i).total_memory for i in every) / 1e9


def _uses_gpu(recipe: Recipe) -> bool:
    return torch.cuda.is_available() and not recipe.trainer.get("use_cpu")


def _trained_size(recipe: Recipe) -> int:
    """Bytes of a weight that is trained: adapters are in 32 bits whatever the pretrained weights are."""
    return BYTES[FLOAT32] if recipe.has_adapter else BYTES[recipe.model.dtype]


def _weight_bytes(recipe: Recipe, whole: Any) -> float:
    """Bytes of all weights. `whole`: the model, which may have no values."""
    plain = {id(p) for m in whole.modules() if not isinstance(m, torch.nn.Linear) for p in m.parameters(recurse=False)}
    half = BYTES[FLOAT32 if resolve_precision(recipe) == "fp32" else BFLOAT16]  # what is not quantized beside 4 bits
    n_bytes = 0.0
    for parameter in whole.parameters():
        if parameter.requires_grad:
            n_bytes += parameter.numel() * _trained_size(recipe)
        elif recipe.model.dtype == FOUR_BIT:
            n_bytes += parameter.numel() * (half if id(parameter) in plain else FOUR_BIT_BYTES)
        else:
            n_bytes += parameter.numel() * BYTES[recipe.model.dtype]
    return n_bytes


def _n_trained(model: Any) -> tuple[int, int]:
    """The numbers of weights that are trained, of embeddings and of all else."""
    embeddings = _embeddings(model)
    counts = [0, 0]
    for parameter in model.parameters():
        if parameter.requires_grad:
            counts[id(parameter) not in embeddings] += parameter.numel()
    return counts[0], counts[1]


def _embeddings(model: Any) -> set[int]:
    return {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}


def _kept_for_backward(recipe: Recipe, model: Any, n_tokens: int) -> tuple[int, int]:
    """Bytes that a forward pass keeps for the backward pass: whatever the texts are, and for each text."""
    use_gpu = _uses_gpu(recipe)
    on_device = copy.deepcopy(model).to("cuda" if use_gpu else "cpu").train()
    if not use_gpu:
        cpu_dropout.install(on_device)
    one, two = (_saved_bytes(on_device, resolve_precision(recipe), n_tokens, n_texts) for n_texts in (1, 2))
    return 2 * one - two, two - one


def _saved_bytes(model: Any, precision: str, n_tokens: int, n_texts: int) -> int:
    ids = torch.zeros(n_texts, n_tokens, dtype=torch.long, device=model.device)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast(ids.device.type, dtype, enabled=bool(dtype)):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    del output
    return sum(sizes.values())


def _optimizer_bytes(trainer: Any) -> tuple[float, float]:
    """Bytes that the optimizer keeps for each trained weight of embeddings, and of all else.

    Optimizers in 8 bits keep 32 for embeddings.
    """
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate wraps it
    embeddings, kept = _embeddings(trainer.model), [0, 0]
    for parameter, state in optimizer.state.items():
        tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
        kept[id(parameter) not in embeddings] += sum(value.numel() * value.element_size() for value in tensors)
    n_embedding, n_other = _n_trained(trainer.model)
    return kept[0] / max(1, n_embedding), kept[1] / max(1, n_other)
