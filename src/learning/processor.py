"""Dropout on a processor: masks drawn four to a random number, and attention in the training's precision.

Two things that torch does slowly there. It spends 64 random bits on every element of a mask, one after another (but by
MKL on Intel's processors). And attention with dropout is computed in float32, whatever the precision.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from src.learning.checkpoints import DROPOUT_FIELDS

NAME = "trialbook"  # of this attention, among those that transformers knows
CHANCES = 1 << 16  # a mask's probabilities are multiples of one over this


def dropped(values: torch.Tensor, share: float) -> torch.Tensor:
    """`values` with a `share` of them zero and the others larger, so that the expected sum stays. Any shape."""
    kept = round((1 - share) * CHANCES)
    if kept in (0, CHANCES):
        return values * (kept // CHANCES)
    drawn = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    mask = drawn[: values.numel()].view(values.shape) < kept - CHANCES // 2
    return values * mask.to(values.dtype).mul_(CHANCES / kept)


class Dropout(nn.Dropout):
    """nn.Dropout by `dropped`."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return dropped(values, self.p) if self.training and self.p else values


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As an `attn_implementation` of transformers: torch's own, but where an encoder trains with dropout.

    query, key, value: [n_texts, heads, tokens, width]; `attention_mask`: [n_texts, 1, tokens, tokens], True where a
    token sees another. Returns [n_texts, tokens, heads, width].
    """
    if not dropout or (attention_mask is None and getattr(module, "is_causal", True)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = dropped(torch.softmax(scores, -1), dropout)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


def use(model: Any) -> None:
    """Have `model` train with this dropout; a listed architecture also with this attention, instead of torch's."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
    if model.config._attn_implementation == "sdpa" and model.config.model_type in DROPOUT_FIELDS:
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
