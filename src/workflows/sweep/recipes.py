"""The models and recipes that a study may use, for checks before it begins."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hydra.errors import HydraException

from src.config import compose
from src.config.settings import ModelSettings, Recipe, Settings
from src.core.errors import InvalidInput, first_line
from src.core.records import Params
from src.search.space import Space
from src.training import arguments

RATE_KEY = "optimizer.learning_rate"


def searched_models(settings: Settings, space: Space) -> Iterator[ModelSettings]:
    """Every model that a trial may use: each choice of the model group or checkpoint.

    `max_tokens` is the largest that is searched; dropout is set if it is searched.
    """
    values = {p.key: p.bounds() for p in space.parameters}
    tokens = max(values.get("model.max_tokens", [0]))
    dropout = next(iter(values.get("model.dropout", ())), None)
    without_model = [o for o in settings.overrides if not o.startswith("model=")]
    models = [
        compose.compose_settings([*without_model, f"model={choice}"]).recipe.model for choice in values.get("model", [])
    ]
    for model in [*models, settings.recipe.model]:
        for checkpoint in values.get("model.checkpoint", [model.checkpoint]):
            dropout_used = model.dropout if model.dropout is not None else dropout
            yield replace(model, checkpoint=checkpoint, max_tokens=max(tokens, model.max_tokens), dropout=dropout_used)


def check_searched_groups(settings: Settings, space: Space) -> list[str]:
    """Returns warnings. Raises InvalidInput if an option of a searched config group cannot take the overrides."""
    problems, warnings = [], list[str]()
    rates = next((p for p in space.parameters if p.key == RATE_KEY), None)
    for parameter in space.parameters:
        group = parameter.key
        for option in (parameter.values() or ()) if "." not in group else ():
            others = [o for o in settings.overrides if not o.startswith(f"{group}=")]
            try:
                rate = compose.compose_settings([*others, f"{group}={option}"]).recipe.optimizer.get("learning_rate")
                if rates is not None and rate is not None and not rates.contains(rate):
                    warnings.append(
                        f"The default learning rate of {group}={option}, {rate:g}, is outside the searched range, "
                        f"{rates}: widen space.{RATE_KEY}."
                    )
            except HydraException as error:
                typed = [o for o in others if o.lstrip("+~").startswith(f"{group}.")]
                problems.append(
                    f"space.{group}: the option {option} does not go with {', '.join(typed) or 'the overrides'} "
                    f"({first_line(error)}). Write ++ in front of what only some options know, or take {option} out."
                )
    InvalidInput.raise_if_any(problems)
    return warnings


def recipes_to_try(settings: Settings, space: Space) -> Iterator[tuple[str, Recipe]]:
    """The default recipe, one recipe for each value of a searched list, and those of study.enqueue.

    Lists of numbers that have limits (see arguments.LIMITS) are left out.

    Yields what the recipe is called in a message (empty for the default recipe), and the recipe.
    """
    yield "", settings.recipe
    for parameter in space.parameters:
        for value in parameter.values() or () if parameter.key not in arguments.LIMITS else ():
            if value != space.base.get(parameter.key) or isinstance(value, bool):
                params = _point_with(space, {parameter.key: value})
                yield f"space.{parameter.key} with {value}", recipe_of(settings, params)
    for number, params in enumerate(settings.study.enqueue):
        yield f"study.enqueue[{number}]", recipe_of(settings, params)


def _point_with(space: Space, wanted: Params) -> Params:
    """The default recipe as a point of the space, with `wanted` in it, and what its conditions ask for."""
    by_key = {p.key: p for p in space.parameters}
    for key in list(wanted):
        for parent, allowed in by_key[key].when.items():
            if parent in by_key and space.base.get(parent) not in allowed:
                wanted = {**_point_with(space, {parent: allowed[0]}), **wanted}
    params: Params = {}
    for parameter in space.parameters:
        if parameter in space.active_parameters(params):
            params[parameter.key] = wanted.get(parameter.key, space.base.get(parameter.key, parameter.bounds()[0]))
    return params


def recipe_of(settings: Settings, params: Params) -> Recipe:
    """The recipe of a trial with these params. Only an option of a config group has to be composed by Hydra."""
    if any("." not in key for key in params):
        overrides = [o for o in settings.overrides if not o.startswith(("worker.", "study.join="))]
        return compose.compose_trial(overrides, params).recipe
    recipe = settings.recipe
    for key, value in params.items():
        group, _, name = key.partition(".")
        held = getattr(recipe, group)
        changed: dict[str, Any] = {
            group: {**held, name: value} if isinstance(held, dict) else replace(held, **{name: value}),
        }
        recipe = replace(recipe, **changed)
    return recipe
