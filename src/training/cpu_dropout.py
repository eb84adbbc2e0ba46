"""Faster dropout on processors: four mask elements per random number, and attention in the training's precision.

torch draws 64 random bits for every element of a mask, in one thread (with MKL on Intel's processors it does not), and
computes attention with dropout in float32, whatever the precision.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from src.training.architectures import DROPOUT_FIELDS, is_decoder

ATTENTION_NAME = "trialbook"  # of this attention, among those that transformers knows
PROBABILITY_STEPS = 1 << 16  # a mask's probabilities are multiples of one over this


def apply_dropout(values: torch.Tensor, share: float) -> torch.Tensor:
    """Set a `share` of `values` to zero, and scale the others so that the expected sum stays. Any shape."""
    kept = round((1 - share) * PROBABILITY_STEPS)
    if kept in (0, PROBABILITY_STEPS):
        return values * (kept // PROBABILITY_STEPS)
    random_bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    mask = random_bits[: values.numel()].view(values.shape) < kept - PROBABILITY_STEPS // 2
    return values * mask.to(values.dtype).mul_(PROBABILITY_STEPS / kept)


class FastDropout(nn.Dropout):
    """nn.Dropout with apply_dropout."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop elements in training."""
        return apply_dropout(values, self.p) if self.training and self.p else values


def attention_with_dropout(
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
    """An attn_implementation for transformers: torch's own, unless an encoder trains with dropout.

    Args:
        module: the attention layer.
        query: [n_texts, n_heads, n_tokens, width].
        key: shape of query.
        value: shape of query.
        attention_mask: bool [n_texts, 1, n_tokens, n_tokens], True where a token attends to another.
        dropout: probability.
        scaling: of the scores; None for 1 / sqrt(width).
        **more: passed on to torch's attention.

    Returns:
        [n_texts, n_tokens, n_heads, width], and None in place of the attention weights.
    """
    if not dropout or (attention_mask is None and getattr(module, "is_causal", True)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = apply_dropout(torch.softmax(scores, -1), dropout)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


def install(model: Any) -> None:
    """Replace the dropout layers of `model`, and in a listed encoder its attention."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
    kind = model.config.model_type
    if model.config._attn_implementation == "sdpa" and kind in DROPOUT_FIELDS and not is_decoder(kind):
        model.set_attn_implementation(ATTENTION_NAME)


AttentionInterface.register(ATTENTION_NAME, attention_with_dropout)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
