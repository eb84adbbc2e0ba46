"""The Trainer's arguments, from a recipe."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from src.config.settings import BFLOAT16, Recipe
from src.training import devices


def resolve_precision(recipe: Recipe) -> str:
    """The precision that `recipe` is trained in on this machine: bf16, fp16 or fp32."""
    bf16, fp16 = recipe.trainer.get("bf16"), recipe.trainer.get("fp16")
    if bf16 == "auto" and not fp16:
        if recipe.model.dtype == BFLOAT16:
            return "bf16"
        return devices.fast_precision(bool(recipe.trainer.get("use_cpu")))
    return "fp16" if fp16 else "bf16" if bf16 else "fp32"


def build_training_arguments(recipe: Recipe, folder: Path, **more: Any) -> TrainingArguments:
    """TrainingArguments of the recipe, with the fields that Trialbook sets itself."""
    values = {**recipe.optimizer, **recipe.schedule, **recipe.trainer, **more}
    values.pop("require_gpu", None)
    if values.pop("gradient_checkpointing", None):  # its name in earlier versions of transformers
        values["activation_checkpointing"] = True
    if values.get("bf16") == "auto":
        values |= {kind: resolve_precision(recipe) == kind for kind in ("bf16", "fp16")}
    if values.get("bf16") and not torch.accelerator.is_available():
        values["use_cpu"] = True  # the Trainer does not detect it
    values.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    if torch.distributed.is_initialized():  # each rank trains on its part of the recipe's batch
        values["accelerator_config"] = {"split_batches": True}
        values.setdefault("ddp_find_unused_parameters", False)  # listed architectures use all of their parameters
    arguments = TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        seed=recipe.seed,
        eval_strategy="no",  # RungCallback evaluates, at fractions of the schedule
        save_strategy="no",  # RungCallback says when to save
        logging_strategy="steps",
        logging_nan_inf_filter=False,  # a loss of NaN must be visible
        disable_tqdm=True,
        **values,
    )
    if arguments.n_gpu > 1:  # the Trainer would use all GPUs, and multiply the batch size by their number
        arguments._n_gpu = 1
    return arguments
