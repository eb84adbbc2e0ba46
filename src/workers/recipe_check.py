"""Tries recipes out in a process of its own, before a study begins: see training/dry_run."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TypeVar

from src.config.settings import Recipe
from src.core.errors import InvalidInput
from src.core.records import MemoryEstimate
from src.core.task import Task
from src.core.texts import Text
from src.training.devices import forkserver_context
from src.training.pretrained import PretrainedModel
from src.workers.launcher import PRELOAD

T = TypeVar("T")
NO_MEMORY = (  # settings on which memory does not depend
    "learning_rate", "weight_decay", "num_train_epochs", "dropout", "warmup_steps", "label_smoothing_factor", "alpha",
    "class_weights", "focal_gamma", "lr_scheduler_type", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
)  # fmt: skip
Candidate = tuple[str, Recipe, PretrainedModel]
"""What a recipe is called in a message (empty for the default recipe), the recipe, and its pretrained model."""


def check_recipes(
    candidates: Sequence[Candidate], task: Task, elsewhere: bool, has_threshold: bool = False
) -> list[str]:
    """Raise InvalidInput if one of the recipes cannot be trained, or has a setting that none of them reads.

    Args:
        candidates: the recipes.
        task: of the data.
        elsewhere: whether workers run on other machines, which may have other devices and packages. Problems are notes
            then.
        has_threshold: whether a decision threshold is to be put into the models.

    Returns:
        Notes for the plan.
    """
    try:
        problems = _in_another_process(find_problems, candidates, task, has_threshold)
    except BrokenProcessPool:
        return ["the settings could not be tried out beforehand: the process that did so was killed"]
    if elsewhere:
        return [f"on this machine, which may differ from the workers': {problem}" for problem in problems]
    InvalidInput.raise_if_any(problems)
    return []


def estimate_memory(
    candidates: Sequence[Candidate], task: Task, longest: Sequence[Text], devices: int
) -> MemoryEstimate | None:
    """The memory of that recipe which takes the most; None if it could not be found out.

    Args:
        candidates: the recipes, which can be trained.
        task: of the data.
        longest: the longest texts of the data.
        devices: that train one trial together.
    """
    try:
        return _in_another_process(largest_estimate, candidates, task, longest, devices)
    except Exception:  # a size that is not known is no reason not to train
        return None


def largest_estimate(
    candidates: Sequence[Candidate], task: Task, longest: Sequence[Text], devices: int
) -> MemoryEstimate:
    """As estimate_memory, in this process."""
    from src.training import memory

    known: dict[str, MemoryEstimate] = {}
    for name, recipe, checkpoint in candidates:
        values = {k: v for k, v in recipe.flatten().items() if k.partition(".")[2] not in NO_MEMORY}
        key = json.dumps(values, sort_keys=True, default=str)
        if key not in known:
            known[key] = replace(memory.estimate_memory(recipe, checkpoint, task, longest, devices), recipe=name)
    return max(known.values(), key=lambda estimate: estimate.total)


def _in_another_process(function: Callable[..., T], *arguments: object) -> T:
    with ProcessPoolExecutor(1, mp_context=forkserver_context(PRELOAD)) as pool:
        return pool.submit(function, *arguments).result()


def find_problems(candidates: Sequence[Candidate], task: Task, has_threshold: bool = False) -> list[str]:
    """In words, why recipes cannot be trained, and which settings no recipe reads. It trains in this process."""
    from src.training.dry_run import dry_run

    problems: dict[str, str] = {}
    effective, idle = frozenset[str](), dict[str, Recipe]()
    for name, recipe, checkpoint in candidates:
        found = dry_run(recipe, checkpoint, task, effective, has_threshold)
        for problem in found.problems:
            problems.setdefault(problem, name)
        effective |= found.effective
        idle |= dict.fromkeys(found.idle - idle.keys(), recipe)
    return [f"{name}: {problem}" if name else problem for problem, name in problems.items()] + [
        f"{key} would have no effect, because {_what_ignores(key, recipe)}; remove it."
        for key, recipe in sorted(idle.items())
        if key not in effective
    ]


def _what_ignores(key: str, recipe: Recipe) -> str:
    """What reads the key in other recipes."""
    if key.startswith("schedule."):
        return f"schedule.lr_scheduler_type is {recipe.schedule.get('lr_scheduler_type', 'linear')}"
    if "neftune" in key:
        return f"the embeddings of {recipe.model.checkpoint} take no noise"
    return f"optimizer.optim is {recipe.optimizer.get('optim', 'adamw_torch')}"
