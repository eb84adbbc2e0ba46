"""Averages the weights of several trainings that started from one pretrained model.

Such an average is about as accurate as the mean answer of its members, at the size and speed of one of them. Source:
Wortsman and others 2022, arXiv:2203.05482 ("model soups"), whose uniform average this is.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from src.core.errors import CommandFailed
from src.core.paths import replacing
from src.training import adapters, classifiers
from src.training.pretrained import PROBABILITIES_FILE, WEIGHTS_FILE


def average_weights(members: Mapping[Path, int], folder: Path) -> None:
    """Write the average of saved classifiers into `folder`, with the other files of the first of them.

    One tensor of each member is in memory at a time; of adapters, which are merged into their bases before, two whole
    classifiers and their sum. Sums are in float64, of 16-bit weights in float32; every tensor keeps its type.

    Args:
        members: at least one folder, with weights in one safetensors file each, or adapters; and how much each counts.
        folder: what is there is replaced when the new one is complete.

    Raises:
        CommandFailed: the members have other tensors than the first one has, or of another shape.
    """
    first, *_ = members
    with replacing(folder) as scratch, ExitStack() as opened:
        if any(adapters.is_adapter(member) for member in members):
            classifiers.write_plain(first, scratch, classifier=_mean_of_merged(members))
            (scratch / PROBABILITIES_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            return
        scratch.mkdir(parents=True)
        for file in first.iterdir():
            if file.name not in (WEIGHTS_FILE, PROBABILITIES_FILE):
                shutil.copy(file, scratch)
        files = [opened.enter_context(safe_open(member / WEIGHTS_FILE, framework="pt")) for member in members]
        names = set(files[0].keys())
        for member, file in zip(members, files, strict=True):
            if set(file.keys()) != names:
                raise _differ(member, first)
        tensors = {
            name: _mean([f.get_tensor(name) for f in files], list(members.values()), name) for name in sorted(names)
        }
        save_file(tensors, scratch / WEIGHTS_FILE, metadata=files[0].metadata())
        shutil.rmtree(folder, ignore_errors=True)


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of the weights in `folder`, in hexadecimal: the same weights are the same file."""
    with (folder / WEIGHTS_FILE).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _mean_of_merged(members: Mapping[Path, int]) -> Any:
    """The average of classifiers, some of which are adapters: as a classifier."""
    (first, count), *others = members.items()
    classifier = classifiers.load_finetuned(first, exact=True)
    state = classifier.state_dict()
    total = {k: v.to(_sum_type(v)) * count for k, v in state.items() if v.is_floating_point()}
    for member, weight in others:
        other = classifiers.load_finetuned(member, exact=True).state_dict()
        if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in state.items()}:
            raise _differ(member, first)
        for name, so_far in total.items():
            total[name] = so_far + other[name].to(so_far.dtype) * weight
    n = sum(members.values())
    classifier.load_state_dict({k: (total[k] / n).to(v.dtype) if k in total else v for k, v in state.items()})
    return classifier.to(classifier.config.dtype)


def _differ(member: Path, first: Path) -> CommandFailed:
    return CommandFailed(f"The weights in {member} cannot be averaged with those in {first}: they differ.")


def _sum_type(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float32 else torch.float32


def _mean(tensors: Sequence[torch.Tensor], counts: Sequence[int], name: str) -> torch.Tensor:
    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        raise CommandFailed(
            f"The weights cannot be averaged: {name} has the shapes {[list(t.shape) for t in tensors]}."
        )
    if not first.is_floating_point():
        return first
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor, count in zip(tensors, counts, strict=True):
        total += tensor.to(torch.float64) * count
    return (total / sum(counts)).to(first.dtype)
