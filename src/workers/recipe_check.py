"""Tries recipes out in a process of its own, before a study begins: see training/dry_run."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from src.config.settings import Recipe
from src.core.errors import InvalidInput
from src.core.task import Task
from src.training.devices import forkserver_context
from src.training.pretrained import PretrainedModel
from src.workers.launcher import PRELOAD

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
        with ProcessPoolExecutor(1, mp_context=forkserver_context(PRELOAD)) as pool:
            problems = pool.submit(find_problems, candidates, task, has_threshold).result()
    except BrokenProcessPool:
        return ["the settings could not be tried out beforehand: the process that did so was killed"]
    if elsewhere:
        return [f"on this machine, which may differ from the workers': {problem}" for problem in problems]
    InvalidInput.raise_if_any(problems)
    return []


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
