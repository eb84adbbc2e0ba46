"""The input embedding during a training: rows of tokens that its texts never use are left out of the computation.

Such a row's gradient is zero at every step, so AdamW does nothing to it but let it decay. In a small model the rows
are half of all weights (in a multilingual one more), and a thousand sentences use a sixth of them: the optimizer, the
clipping and the gradient's memory go without the rest. What is learned, and what is saved, is the same.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import embedding

WORTH = 0.75  # of the rows; where texts use more, little would be saved
EXACT = ("adamw_torch", "adamw_torch_fused")  # optimizers whose weight decay stands apart from what they keep of a row
AT_A_TIME = 10_000  # texts whose tokens are looked at
BLOCK = 1 << 16  # elements of a processor's cache: a row decays by many steps at a time


class UsedEmbedding(nn.Embedding):
    """An embedding whose parameter `weight` [n_used, width] holds the used tokens' rows alone, in the tokens' order.

    Texts are looked up by the same token ids as before: in training, used ones; when evaluated, any, without
    gradients. It gives state dicts with the whole table, as the embedding that it stands for has it, and takes none.
    Whoever changes `weight` says so with `stepped`.
    """

    def __init__(self, whole: nn.Embedding, used: np.ndarray) -> None:
        """`used` [vocabulary]: bool, whether a token's row is trained. `whole`'s table is made use of, not copied."""
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse = None, 2.0, False, False
        self.padding_idx = whole.padding_idx
        self.n_used = int(used.sum())
        place = np.where(used, np.cumsum(used) - 1, self.n_used)  # beyond the rows there are: such is not trained
        trained = whole.padding_idx is not None and used[whole.padding_idx]
        self._padding = int(place[whole.padding_idx]) if trained else None
        self._decay: list[float] = []  # factors that the table is to be multiplied by, in this order
        self._behind = False  # whether the table lacks what was learned
        self.table = whole.weight.detach()  # [vocabulary, width]: every token's row, as it was when last asked for
        self.used = torch.from_numpy(np.flatnonzero(used)).to(self.table.device)  # [n_used]: each row's token
        self.place = torch.from_numpy(place).to(self.table.device)  # [vocabulary]: each token's row
        self.weight = nn.Parameter(self.table[self.used])
        self.train(whole.training)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[..., width] of `tokens` [...]."""
        if self.training:
            return embedding(self.place[tokens], self.weight, self._padding)
        return embedding(tokens, self._settled())

    def stepped(self, factor: float) -> None:
        """The optimizer has taken a step, and would have multiplied the unused rows by `factor`."""
        self._behind = True
        if factor != 1:
            self._decay.append(factor)

    def of_used(self, values: torch.Tensor) -> torch.Tensor:
        """`values` [vocabulary, width] as [n_used, width]; others as they are."""
        return values[self.used.to(values.device)] if len(self.place) in values.shape[:1] else values

    def _settled(self) -> torch.Tensor:
        """The table, with all that the steps have done to it.

        It decays step by step, each rounded, and so the same wherever a training was cut; block by block, for the
        cache. What that does to the used rows is written over.
        """
        every = self.table.view(-1)
        size = BLOCK if every.device.type == "cpu" else max(1, every.numel())
        for start in range(0, every.numel(), size) if self._decay else ():
            for factor in self._decay:
                every[start : start + size].mul_(factor)
        self._decay.clear()
        if self._behind:
            self.table[self.used] = self.weight.detach()
            self._behind = False
        return self.table

    def _apply(self, fn: Any, recurse: bool = True) -> "UsedEmbedding":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # No buffers: several devices would send them to each other at every step.
        self.table, self.used, self.place = fn(self.table), fn(self.used), fn(self.place)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        del keep_vars
        destination[f"{prefix}weight"] = self._settled()


def leave_out_unused(model: Any, texts: Any, padding: int | None) -> UsedEmbedding | None:
    """Train only the rows of `model`'s input embedding that `texts` (a dataset with input_ids) and `padding` use.

    None, and nothing is changed, where the model's embedding is not a plain one of its own, or most rows are used.
    """
    whole = model.get_input_embeddings()
    if type(whole) is not nn.Embedding or whole.max_norm or whole.sparse or whole.scale_grad_by_freq:
        return None
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is whole.weight]
    if len(names) != 1 or not whole.weight.requires_grad:
        return None
    used = np.zeros(whole.num_embeddings, dtype=bool)
    for part in texts.with_format("numpy", columns=["input_ids"]).iter(AT_A_TIME):
        used[np.concatenate(list(part["input_ids"]))] = True
    if padding is not None:
        used[padding] = True
    if used.mean() > WORTH:
        return None
    made = UsedEmbedding(whole, used)
    model.set_input_embeddings(made)
    return made


def decay_with(optimizer: torch.optim.Optimizer, made: UsedEmbedding) -> None:
    """Have `made`'s unused rows decay as its used ones do, at each step of `optimizer`.

    A state of the optimizer that was saved when all rows were trained fits, too.
    """
    trained = [(weight, group) for group, taken in enumerate(optimizer.param_groups) for weight in taken["params"]]
    number = next(i for i, (weight, _) in enumerate(trained) if weight is made.weight)

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[trained[number][1]]
        made.stepped(1 - group["lr"] * group["weight_decay"])

    def loaded(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        kept = {name: made.of_used(value) for name, value in state_dict["state"].get(number, {}).items()}
        return {**state_dict, "state": {**state_dict["state"], number: kept}} if kept else state_dict

    optimizer.register_step_post_hook(stepped)
    optimizer.register_load_state_dict_pre_hook(loaded)
