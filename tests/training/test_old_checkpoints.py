"""Optimizer states that hold a part of the embedding's rows are completed."""

import numpy as np
import torch
from datasets import Dataset

from src.training import old_checkpoints

TOKENS = np.array([0, 2, 3])


def trained(rows: int) -> tuple[torch.optim.Optimizer, torch.nn.Embedding, torch.nn.Linear]:
    torch.manual_seed(0)
    embedding, head = torch.nn.Embedding(rows, 4), torch.nn.Linear(4, 2)
    return torch.optim.AdamW([*embedding.parameters(), *head.parameters()], lr=0.1), embedding, head


def step(
    optimizer: torch.optim.Optimizer, embedding: torch.nn.Embedding, head: torch.nn.Linear, ids: list[int]
) -> None:
    head(embedding(torch.tensor(ids))).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_missing_rows_are_those_of_unused_tokens() -> None:
    complete = trained(6)
    step(*complete, ids=[0, 2, 3])
    saved = complete[0].state_dict()
    of_used = {name: value[TOKENS] if value.ndim == 2 else value for name, value in saved["state"][0].items()}
    old = {**saved, "state": {**saved["state"], 0: of_used}}
    assert not old_checkpoints.fits(old, complete[0])
    completed = old_checkpoints.with_all_rows(old, complete[0], TOKENS)
    for name, value in saved["state"][0].items():
        assert torch.equal(completed["state"][0][name], value)
    assert completed["state"][1] == saved["state"][1]


def test_a_whole_state_fits_and_stays() -> None:
    complete = trained(6)
    step(*complete, ids=[0, 2, 3])
    saved = complete[0].state_dict()
    assert old_checkpoints.fits(saved, complete[0])
    completed = old_checkpoints.with_all_rows(saved, complete[0], TOKENS)
    assert all(torch.equal(completed["state"][0][name], value) for name, value in saved["state"][0].items())


def test_used_tokens_are_those_of_the_texts_and_the_padding() -> None:
    texts = Dataset.from_dict({"input_ids": [[2, 3], [3]]})
    assert old_checkpoints.used_tokens(texts, 0, 6).tolist() == [0, 2, 3]
    assert old_checkpoints.used_tokens(texts, None, 6).tolist() == [2, 3]
