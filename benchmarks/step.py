"""An optimizer step on a processor with Trialbook's dropout and attention, by the length of the texts.

    python -m benchmarks.step --data <folder of SST-2's parquet files>

Twice the same MiniLM, side by side: as transformers builds it, and with Trialbook's dropout and attention. Every batch
is given to both in a random order, so that whatever else slows the machine slows them alike. Texts: 1,000 sentences as
they are, and strung together.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks import bare, common
from src.training import cpu_dropout, devices

BATCH, RATE, DECAY, PAD = 16, 1e-4, 0.01, 0
LONG = {256: 6, 512: 4}  # tokens of a text -> batches of such
WARM_UP = 1  # batches that are not counted
KINDS = {"plain": False, "dropout": True}  # whether dropout and attention are Trialbook's own


def batches(texts: bare.Rows, labels: list[int], tokens: int | None) -> list[dict[str, Any]]:
    """Full ones of the texts grouped by length, or strung together to so many `tokens`."""
    if tokens is not None:
        all_tokens = np.concatenate([text[1:-1] for text in texts])
        body = np.resize(all_tokens, (LONG[tokens] * BATCH, tokens - 2))  # [CLS] and [SEP] stand around it
        texts = [[texts[0][0], *row, texts[0][-1]] for row in body.tolist()]
    generator = torch.Generator().manual_seed(1)
    order = get_length_grouped_indices([len(text) for text in texts], BATCH, generator=generator)
    answers = np.resize(labels, len(texts)).tolist()
    return bare.batches(texts, answers, order[: len(order) // BATCH * BATCH], BATCH, PAD)


def built(weights: Path, own_dropout: bool) -> tuple[Any, Any]:
    """A classifier in training and its optimizer."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=2)
    if own_dropout:
        cpu_dropout.install(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    return model.train(), optimizer


def step(model: Any, optimizer: Any, batch: dict[str, torch.Tensor], bf16: bool) -> float:
    """Seconds of one step."""
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.parquet and validation.parquet; without it, the Hub's")
    arguments = parser.parse_args()
    devices.keep_freed_memory()
    bf16 = devices.fast_precision(use_cpu=True) == "bf16"
    weights = common.minilm()
    texts, labels = common.tokenised(common.sentences(arguments.data), weights)["train"]
    contenders = {kind: built(weights, own) for kind, own in KINDS.items()}
    turns, result = random.Random(1), []
    for tokens in (None, *LONG):
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number, batch in enumerate(batches(texts, labels, tokens)):
            for kind in turns.sample(list(KINDS), len(KINDS)):
                duration = step(*contenders[kind], batch, bf16)
                if number >= WARM_UP:
                    seconds[kind].append(duration)
        means = {kind: float(np.mean(each)) for kind, each in seconds.items()}
        result.append({
            "tokens": tokens,
            "steps": len(seconds["plain"]),
            "seconds": means,
            "of_plain": {kind: mean / means["plain"] for kind, mean in means.items()},
        })  # fmt: skip
    file = common.write(
        "step",
        {
            "precision": "bf16" if bf16 else "fp32",
            "mean_tokens": float(np.mean([len(text) for text in texts])),
            "lengths": result,
        },
    )
    print(file.read_text())


if __name__ == "__main__":
    main()
