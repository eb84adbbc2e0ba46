"""Reads optimizer states that earlier versions of Trialbook saved for a part of the embedding's rows only."""

from typing import Any

import numpy as np
import torch

TEXTS_AT_A_TIME = 10_000


def fits(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer) -> bool:
    """Whether every saved tensor has the shape of its weight, or is a number."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return all(
        value.shape == weights[number].shape
        for number, state in state_dict["state"].items()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim == weights[number].ndim
    )


def used_tokens(texts: Any, padding: int | None, vocabulary: int) -> np.ndarray:
    """The tokens of a dataset's `input_ids`, and the padding token, in rising order: [n_used]."""
    used = np.zeros(vocabulary, dtype=bool)
    for batch in texts.with_format("numpy", columns=["input_ids"]).iter(TEXTS_AT_A_TIME):
        used[np.concatenate(list(batch["input_ids"]))] = True
    if padding is not None:
        used[padding] = True
    return np.flatnonzero(used)


def with_all_rows(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer, tokens: np.ndarray) -> dict[str, Any]:
    """The state with a row for every token where it has one for each of `tokens` only.

    The rows that are missing belong to tokens of no training text. Their gradients were zero, so their moments are.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    states = {}
    for number, state in state_dict["state"].items():
        shape = weights[number].shape
        states[number] = {name: _expanded(value, shape, tokens) for name, value in state.items()}
    return {**state_dict, "state": states}


def _expanded(value: Any, shape: torch.Size, tokens: np.ndarray) -> Any:
    """`value` [n_used, width] as a tensor of `shape` [vocabulary, width]; anything else as it is."""
    if not isinstance(value, torch.Tensor) or value.shape != (len(tokens), *shape[1:]) or value.shape == shape:
        return value
    expanded = torch.zeros(shape, dtype=value.dtype, device=value.device)
    expanded[torch.from_numpy(tokens).to(value.device)] = value
    return expanded
