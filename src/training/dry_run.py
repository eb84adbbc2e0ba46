"""Builds what a recipe names and trains a small model with it for a few steps, before anything is spent on it.

What only the built objects show is found here: a package that an optimizer needs, an argument that a scheduler needs,
a tokenizer that cannot pad, a precision that the device does not compute in, a setting that nothing reads.
"""

import gc
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer

from src.config.settings import BFLOAT16, FLOAT32, FOUR_BIT, Recipe
from src.core.errors import InvalidInput, first_line, with_full_stop
from src.core.task import Task
from src.training import adapters, classification_head, devices, pretrained
from src.training.callbacks import computed_precision
from src.training.pretrained import PretrainedModel
from src.training.small_model import STEPS, build_small_model, small_data, train_small, with_small_batches
from src.training.trainer_arguments import resolve_precision

PROBES: Mapping[str, tuple[float, float]] = {
    "weight_decay": (0.5, 0.0), "adam_beta1": (0.5, 0.1), "adam_beta2": (0.5, 0.1), "adam_epsilon": (1.0, 0.1),
}  # fmt: skip
"""Fields of TrainingArguments that an optimizer may not read, and two values far from the usual ones."""
REMOVED = ("optim_args", "optim_target_modules", "neftune_noise_alpha")  # compared with a training without them
WARMUP = "warmup_steps"


@dataclass(frozen=True)
class DryRunResult:
    """What a dry run found: why the recipe cannot be trained, and which of its keys the training read."""

    problems: tuple[str, ...]
    effective: frozenset[str]  # dotted keys that change the trained weights
    idle: frozenset[str]  # dotted keys that do not


def dry_run(
    recipe: Recipe,
    checkpoint: PretrainedModel,
    task: Task,
    known: frozenset[str],
    has_threshold: bool = False,
) -> DryRunResult:
    """Train a small model of the checkpoint's architecture with `recipe` for two steps, and again with other values.

    Args:
        recipe: to check.
        checkpoint: the pretrained model that the recipe names; its weights are not read.
        task: of the data.
        known: dotted keys that are known to have an effect, which are not checked again.
        has_threshold: whether a decision threshold is to be put into the model.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order, so that equal weights mean equal arithmetic
    gc.freeze()  # each training ends with a garbage collection, which would go through all that was imported
    try:
        with _quiet():
            return _dry_run(with_small_batches(recipe), checkpoint, task, known, has_threshold)
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)


def _dry_run(
    recipe: Recipe,
    checkpoint: PretrainedModel,
    task: Task,
    known: frozenset[str],
    has_threshold: bool,
) -> DryRunResult:
    tokenizer = pretrained.load_tokenizer(checkpoint)
    if problem := _dtype_problem(recipe) or _tokenizer_problem(tokenizer, checkpoint, task):
        return _failed(problem)
    try:
        model = build_small_model(recipe, checkpoint, task)
        data = small_data(tokenizer, model.config, task, recipe.model.max_tokens)
    except InvalidInput as error:
        return _failed(str(error))
    except Exception as error:  # of transformers' and the tokenizer's many types
        return _failed(f"The model {checkpoint.id} cannot be built: {first_line(error)}")
    if problem := _head_problem(model, checkpoint, task, has_threshold):
        return _failed(problem)
    try:
        trainer, _ = train_small(recipe, model, tokenizer, data)
        trainer.evaluate(data)
    except Exception as error:  # of the Trainer, the optimizer, the scheduler, a missing package
        return _failed(_why_it_fails(error))
    problems = tuple(_settings_without_effect(recipe, trainer))
    effective, idle = set[str](), set[str]()
    if recipe.model.dtype != FLOAT32:  # it is probed on a processor, in 32 bits
        recipe = replace(recipe, model=replace(recipe.model, dtype=FLOAT32))
        model = build_small_model(recipe, checkpoint, task)
    for key, alternatives in _probes(recipe):
        if key in known:
            continue
        try:
            changed = _changes_weights(alternatives, model, tokenizer, data)
        except Exception:  # what cannot be probed on a processor counts as effective
            continue
        (effective if changed else idle).add(key)
    return DryRunResult(problems, frozenset(effective), frozenset(idle))


def _failed(problem: str) -> DryRunResult:
    return DryRunResult((problem,), frozenset(), frozenset())


def _dtype_problem(recipe: Recipe) -> str:
    """What does not go with the dtype of the weights, in words; empty if everything does."""
    if recipe.model.dtype == FOUR_BIT and not recipe.has_adapter:
        return "model.dtype is 4bit: such weights cannot be trained themselves. Train an adapter on them: adapter=lora."
    if recipe.model.dtype == FOUR_BIT and importlib.util.find_spec("bitsandbytes") is None:
        return f"model.dtype is 4bit, for which bitsandbytes is needed: {adapters.INSTALL}."
    precision = resolve_precision(recipe)
    fitting = {BFLOAT16: "bf16", FOUR_BIT: devices.fast_precision(bool(recipe.trainer.get("use_cpu")))}
    if precision != fitting.get(recipe.model.dtype, precision):
        other = "trainer.bf16 or trainer.fp16 asks for another precision"
        return f"model.dtype is {recipe.model.dtype}, and {other}. Leave it out."
    return ""


def _head_problem(model: Any, checkpoint: PretrainedModel, task: Task, has_threshold: bool) -> str:
    """What is asked of the model's last layer and it cannot have, in words; empty if nothing is."""
    if classification_head.output_bias(model) is not None:
        return ""
    if has_threshold:
        return (
            f"study.threshold is tuned, and the last layer of {checkpoint.id} has no bias, in which a threshold is "
            "kept. Leave it out."
        )
    if task.is_regression:
        return (
            f"data.task is regression, and the last layer of {checkpoint.id} has no bias, in which the mean of the "
            "numbers is kept. Take a checkpoint of another architecture."
        )
    return ""


def _tokenizer_problem(tokenizer: Any, checkpoint: PretrainedModel, task: Task) -> str:
    """Why the tokenizer cannot be used, in words; empty if it can."""
    if tokenizer.pad_token is None:
        return (
            f"model.checkpoint is {checkpoint.id}, whose tokenizer has no padding token: texts of different lengths "
            "could not share a batch. Save the tokenizer with one (tokenizer.pad_token)."
        )
    if task.has_pairs and tokenizer.num_special_tokens_to_add(pair=True) <= tokenizer.num_special_tokens_to_add():
        return (
            f"Each row of the data is a pair of texts, and the tokenizer of {checkpoint.id} puts nothing between them. "
            "Take another model, or join the texts into one column with words in between."
        )
    return ""


def _why_it_fails(error: Exception) -> str:
    text = str(error)
    advice = ""
    if "min_lr or min_lr_rate" in text:
        advice = " Type +schedule.lr_scheduler_kwargs={min_lr_rate:0.1}, for example."
    elif "num_decay_steps" in text:
        advice = " Type +schedule.lr_scheduler_kwargs={num_decay_steps:100}, for example."
    elif "BFloat16" in text or "Half" in text:
        advice = " This architecture does not compute in that precision: trainer.bf16=false."
    elif "schedule" in text:
        advice = " Arguments of a schedule are typed +schedule.lr_scheduler_kwargs={<name>:<value>}."
    elif "C++ compiler" in text or "CxxCompiler" in type(error).__name__:
        advice = " Install one (g++), or leave trainer.torch_compile out."
    elif isinstance(error, ImportError) and "bitsandbytes" in text:
        advice = f" Type {adapters.INSTALL}, or take another optimizer (optimizer.optim)."
    elif isinstance(error, ImportError):
        advice = " Or take another optimizer (optimizer.optim)."
    return f"A training with these settings ends at its first step: {with_full_stop(first_line(error))}{advice}"


# --- what was built ---


def _settings_without_effect(recipe: Recipe, trainer: Trainer) -> Iterator[str]:
    computed = computed_precision(trainer)
    for kind in ("fp16", "bf16"):
        if recipe.trainer.get(kind) is True and computed != kind:
            yield (
                f"trainer.{kind}=true would have no effect: this machine's {trainer.args.device.type} computes in "
                f"{computed} with it. Remove it; trainer.bf16=auto takes the fastest precision that each machine has."
            )
    for key in ("activation_checkpointing", "gradient_checkpointing"):  # its older name
        if recipe.trainer.get(key) and not _has_checkpointing(trainer.model):
            yield f"trainer.{key}=true would have no effect: this architecture does not have it. Remove it."


def _has_checkpointing(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _probes(recipe: Recipe) -> Iterator[tuple[str, tuple[Recipe, Recipe]]]:
    """Dotted keys of the recipe, and for each two recipes that differ in nothing else."""
    base = _on_processor(recipe)
    for group in ("optimizer", "schedule", "trainer"):
        for field, value in getattr(recipe, group).items():
            if field in PROBES:
                yield (
                    f"{group}.{field}",
                    (_with(base, group, field, PROBES[field][0]), _with(base, group, field, PROBES[field][1])),
                )
            elif field in REMOVED and value is not None:
                yield f"{group}.{field}", (base, _without(base, group, field))
            elif field == WARMUP:
                scheduled = _on_processor(recipe, keep_schedule=True)
                yield f"{group}.{field}", (_with(scheduled, group, field, 0), _with(scheduled, group, field, STEPS))


def _on_processor(recipe: Recipe, keep_schedule: bool = False) -> Recipe:
    """The recipe in fp32 on a processor, with a learning rate that shows; by default with a constant schedule."""
    trainer = {k: v for k, v in recipe.trainer.items() if k not in ("bf16", "fp16", "tf32", "torch_compile")}
    optimizer = {**recipe.optimizer, "learning_rate": 1e-2}
    schedule = dict(recipe.schedule) if keep_schedule else {"lr_scheduler_type": "constant"}
    return replace(recipe, optimizer=optimizer, schedule=schedule, trainer={**trainer, "use_cpu": True, "bf16": False})


def _with(recipe: Recipe, group: str, field: str, value: Any) -> Recipe:
    changed: dict[str, Any] = {group: {**getattr(recipe, group), field: value}}
    return replace(recipe, **changed)


def _without(recipe: Recipe, group: str, field: str) -> Recipe:
    changed: dict[str, Any] = {group: {k: v for k, v in getattr(recipe, group).items() if k != field}}
    return replace(recipe, **changed)


def _changes_weights(recipes: Sequence[Recipe], model: Any, tokenizer: Any, data: Dataset) -> bool:
    first, second = (train_small(recipe, model, tokenizer, data)[1] for recipe in recipes)
    return not all(torch.equal(first[name], second[name]) for name in first)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings: what matters is in the result."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
