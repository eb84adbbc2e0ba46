"""Which TrainingArguments fields a config may set, and what consumes them. Light: one transformers import."""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from src.errors import Refusal
from src.settings import Recipe

OURS = {
    "output_dir", "report_to", "seed", "data_seed", "eval_strategy", "eval_steps", "eval_delay", "save_strategy",
    "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "logging_strategy", "logging_nan_inf_filter", "disable_tqdm", "run_name", "push_to_hub", "do_train", "do_eval",
    "do_predict", "resume_from_checkpoint", "remove_unused_columns", "label_names", "length_column_name",
}  # fmt: skip
"""Fields that Trialbook sets itself: where it evaluates, saves and logs is the study's business."""
EXTRA = {"trainer": {"require_gpu"}}
ADAM = {"adam_beta1", "adam_beta2", "adam_epsilon"}
NOT_WARMED = {"constant"}


@lru_cache
def fields() -> frozenset[str]:
    from transformers import TrainingArguments

    return frozenset(f.name for f in dataclasses.fields(TrainingArguments) if f.init)


def unconsumed(recipe: Recipe) -> dict[str, str]:
    """Dotted keys of `recipe` that nothing would read, and why; searching one of them would search nothing."""
    optim = str(recipe.optimizer.get("optim", ""))
    schedule = str(recipe.schedule.get("lr_scheduler_type", ""))
    idle: dict[str, str] = {}
    if not optim.startswith("adam"):
        idle |= {f"optimizer.{key}": f"optimizer.optim is {optim}" for key in ADAM}
    if schedule in NOT_WARMED:
        idle["schedule.warmup_steps"] = f"schedule.lr_scheduler_type is {schedule}"
    if int(recipe.trainer.get("max_steps") or -1) > 0:
        idle["trainer.num_train_epochs"] = "trainer.max_steps decides the length"
    return idle


def check(recipe: Recipe) -> None:
    """Raises Refusal for keys that are no TrainingArguments fields, that are ours to set, or that nothing reads."""
    groups: Mapping[str, Mapping[str, Any]] = {
        "optimizer": recipe.optimizer, "schedule": recipe.schedule, "trainer": recipe.trainer,
    }  # fmt: skip
    problems = []
    idle = unconsumed(recipe)
    for group, values in groups.items():
        for key in values:
            if key in OURS:
                problems.append(f"{group}.{key} is set by Trialbook itself; take it out (see study.rungs and study.*).")
            elif key not in fields() and key not in EXTRA.get(group, ()):
                problems.append(f"{group}.{key} is no field of transformers.TrainingArguments.{_nearest(key)}")
            elif (why := idle.get(f"{group}.{key}")) and group != "trainer":
                problems.append(f"{group}.{key} would be read by nothing, because {why}; take it out.")
    Refusal.when_any(problems)


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, fields() - OURS, 1)
    return f" Did you mean {close[0]}?" if close else ""
