"""Why a training failed, and smaller micro-batches for one whose memory ran out."""

import errno
import gc
from dataclasses import replace

import torch

from src.config.settings import Recipe
from src.core.errors import first_line
from src.training.callbacks import TrainingFailed

OUT_OF_MEMORY, DISK_FULL = "out of memory", "the disk is full"  # how a failure's reason begins
NO_MEMORY = (  # messages of torch's allocators, the system, cuBLAS and cuDNN, and oneDNN
    "can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory", "STATUS_ALLOC_FAILED",
    "could not create a primitive", "could not create a memory",
)  # fmt: skip
NO_SPACE = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")


def failure_reason(error: Exception) -> str:
    """Why a training failed, in one line. It begins with OUT_OF_MEMORY or DISK_FULL if that was the cause."""
    first = first_line(error)
    if isinstance(error, TrainingFailed):
        return first
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in NO_MEMORY):
        return f"{OUT_OF_MEMORY}: {first}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in NO_SPACE):
        return f"{DISK_FULL}: {first}"
    return f"{type(error).__name__}: {first}"


def micro_batch_size(recipe: Recipe) -> int:
    """Examples that go through the model at a time. The Trainer's default is 8."""
    return int(recipe.trainer.get("per_device_train_batch_size", 8))


def halve_micro_batch(recipe: Recipe, devices: int = 1) -> Recipe | None:
    """The recipe with half the micro-batch and twice the accumulation steps; None if the micro-batch is odd."""
    size = micro_batch_size(recipe)
    if size % (2 * devices):
        return None
    steps = 2 * int(recipe.trainer.get("gradient_accumulation_steps", 1))
    trainer = {**recipe.trainer, "per_device_train_batch_size": size // 2, "gradient_accumulation_steps": steps}
    return replace(recipe, trainer=trainer)


def reduce_micro_batch_to(size: int, recipe: Recipe, devices: int = 1) -> Recipe:
    """The recipe with its micro-batch halved until it is at most `size`, and as many examples per update as before."""
    while micro_batch_size(recipe) > size and (smaller := halve_micro_batch(recipe, devices)):
        recipe = smaller
    return recipe


def free_memory() -> None:
    """Free what a failed training has left in memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
