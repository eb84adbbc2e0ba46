"""Fine-tuning with PyTorch and nothing around it: the yardstick of a trial's overhead. Needs torch and transformers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, get_scheduler
from transformers.trainer_pt_utils import get_length_grouped_indices

Rows = list[list[int]]  # token ids of each text
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",  # of BERT and its like
            "dropout", "attention_dropout", "seq_classif_dropout")  # of DistilBERT  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One training's settings; fields as in transformers.TrainingArguments."""

    learning_rate: float
    num_train_epochs: int
    weight_decay: float
    dropout: float
    batch: int = 16
    eval_batch: int = 64
    warmup: float = 0.1  # share of the steps
    seed: int = 42
    shares: Sequence[float] = (0.25, 0.5, 1.0)  # of the schedule, at which validation is judged


@dataclass
class Clock:
    """Seconds spent on each part of the steps."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, part: str, since: float) -> float:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - since
        return now


@dataclass(frozen=True)
class Trained:
    """A training's answers: correct[share] is True per validation text where it was right; tokens it was fed."""

    correct: dict[float, np.ndarray]
    loss: dict[float, float]
    tokens: int
    clock: Clock


def load(folder: Path, dropout: float, seed: int) -> Any:
    """A two-way classifier with `dropout` everywhere and a random head."""
    config = AutoConfig.from_pretrained(folder, num_labels=2, problem_type="single_label_classification")
    for name in DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, dropout)
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype="float32")


def batches(rows: Rows, labels: Sequence[int], order: Sequence[int], size: int, pad: int) -> list[dict[str, Any]]:
    """`order` cut into batches, each padded to its longest text."""
    batches = []
    for start in range(0, len(order), size):
        part = [rows[i] for i in order[start : start + size]]
        longest = max(map(len, part))
        ids = torch.tensor([r + [pad] * (longest - len(r)) for r in part])
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in part])
        answers = torch.tensor([labels[i] for i in order[start : start + size]])
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": answers})
    return batches


def train(  # noqa: PLR0917
    model: Any,
    setting: Setting,
    train_rows: Rows,
    train_labels: Sequence[int],
    judged: Sequence[tuple[Rows, Sequence[int]]],
    pad: int = 0,
    device: str = "cpu",
    bf16: bool = False,
    keep: Path | None = None,
) -> Trained:
    """Train with fused AdamW, clipping at 1, a linear schedule and batches grouped by length.

    `judged`: what is judged at early shares, and at the last. `keep`: a folder for the best weights and, at early
    shares, for all that the training could be continued from.
    """
    clock = Clock()
    model = model.to(device)
    decayed = [p for n, p in model.named_parameters() if "bias" not in n and "LayerNorm" not in n]
    others = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    groups = [{"params": decayed, "weight_decay": setting.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=setting.learning_rate, fused=True)
    per_epoch = -(-len(train_rows) // setting.batch)
    total = per_epoch * setting.num_train_epochs
    schedule = get_scheduler("linear", optimizer, int(np.ceil(setting.warmup * total)), total)
    stops = {max(1, int(np.ceil(share * total))): share for share in sorted(setting.shares)}
    lengths = [len(r) for r in train_rows]
    correct, losses, step, tokens = {}, {}, 0, 0
    judged_batches = [_by_length(rows, labels, setting.eval_batch, pad) for rows, labels in judged]
    autocast = torch.autocast(device, torch.bfloat16, enabled=bf16)
    model.train()
    for epoch in range(setting.num_train_epochs):
        generator = torch.Generator().manual_seed(setting.seed * 1_000_003 + epoch)
        order = get_length_grouped_indices(lengths, setting.batch, generator=generator)
        for batch in batches(train_rows, train_labels, order, setting.batch, pad):
            now = time.perf_counter()
            sent = {k: v.to(device) for k, v in batch.items()}
            tokens += batch["input_ids"].numel()
            now = clock.add("data", now)
            with autocast:
                loss = model(**sent).loss
            now = clock.add("forward", now)
            loss.backward()
            now = clock.add("backward", now)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            now = clock.add("clip", now)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            clock.add("optimizer", now)
            step += 1
            if step in stops:
                now = time.perf_counter()
                share = stops[step]
                correct[share], losses[share] = _judge(model, *judged_batches[share == 1], device, autocast)
                now = clock.add("judging", now)
                if keep is not None:
                    best = max(correct, key=lambda s: correct[s].mean()) == share
                    _save(model, optimizer if share < 1 else None, best, keep)
                    clock.add("saving", now)
    return Trained(correct, losses, tokens, clock)


def _save(model: Any, optimizer: Any, best: bool, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if best:
        save_file(model.state_dict(), folder / "best.safetensors")
    if optimizer is not None:
        save_file(model.state_dict(), folder / "model.safetensors")
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")


def _by_length(rows: Rows, labels: Sequence[int], size: int, pad: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    order = np.argsort([len(r) for r in rows], kind="stable")[::-1]
    return batches(rows, labels, order.tolist(), size, pad), order


def _judge(model: Any, parts: Sequence[dict[str, Any]], order: np.ndarray, device: str, autocast: Any) -> Any:
    """Which texts it is right on, in the rows' own order, and the mean loss."""
    model.eval()
    right, loss = [], 0.0
    with torch.inference_mode(), autocast:
        for batch in parts:
            sent = {k: v.to(device) for k, v in batch.items()}
            out = model(**sent)
            right.append((out.logits.argmax(1) == sent["labels"]).cpu().numpy())
            loss += float(out.loss) * len(batch["labels"])
    model.train()
    correct = np.empty(len(order), dtype=bool)
    correct[order] = np.concatenate(right)
    return correct, loss / len(order)
