"""Which TrainingArguments fields a config may set, and what consumes them. Light: one transformers import."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from src.errors import Refusal, first_line, near
from src.settings import Recipe

OURS = {
    "output_dir", "report_to", "seed", "data_seed", "eval_strategy", "eval_steps", "eval_delay", "save_strategy",
    "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "logging_strategy", "logging_nan_inf_filter", "disable_tqdm", "run_name", "push_to_hub", "do_train", "do_eval",
    "do_predict", "resume_from_checkpoint", "remove_unused_columns", "label_names", "length_column_name",
    "auto_find_batch_size", "eval_on_start", "batch_eval_metrics", "prediction_loss_only", "eval_do_concat_batches",
    "dataloader_persistent_workers", "dataloader_drop_last",
}  # fmt: skip
"""Fields that Trialbook sets itself: where it evaluates, saves and logs is the study's business."""
EXTRA = {"trainer": {"require_gpu"}}
ADAM = {"adam_beta1", "adam_beta2", "adam_epsilon"}
NOT_WARMED = {"constant"}


@dataclass(frozen=True)
class Limit:
    """Numbers that a setting may have: from `low` (or above it) to `high` (or below it)."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False

    def __str__(self) -> str:
        start = f"a{' whole' * self.whole} number {'above' if self.open_low else 'from'} {self.low:g}"
        return start if self.high == math.inf else f"{start} to {'below ' * self.open_high}{self.high:g}"

    def holds(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (not self.whole or value == int(value))


POSITIVE, COUNT, SHARE = Limit(0, open_low=True), Limit(1, whole=True), Limit(0, 1, open_high=True)
LIMITS = {
    "model.dropout": SHARE,
    "model.max_tokens": Limit(3, whole=True),  # a token between the two special ones
    "model.learning_rate": POSITIVE,
    "optimizer.learning_rate": POSITIVE,
    "optimizer.weight_decay": Limit(0),
    "optimizer.adam_beta1": SHARE,
    "optimizer.adam_beta2": SHARE,
    "optimizer.adam_epsilon": POSITIVE,
    "schedule.warmup_steps": Limit(0),
    "trainer.num_train_epochs": POSITIVE,
    "trainer.per_device_train_batch_size": COUNT,
    "trainer.per_device_eval_batch_size": COUNT,
    "trainer.gradient_accumulation_steps": COUNT,
    "trainer.label_smoothing_factor": SHARE,
    "trainer.logging_steps": POSITIVE,
    "trainer.max_grad_norm": Limit(0),
}
"""What numbers make sense, by dotted key; for values in a config and for ranges to search."""


BATCHES = ("trainer.per_device_train_batch_size", "trainer.per_device_eval_batch_size")


def indivisible(key: str, values: Sequence[object], devices: int) -> str | None:
    """What is wrong with sizes of batches that so many devices are to share, in words, or None."""
    bad = [v for v in values if key in BATCHES and isinstance(v, int) and v % devices]
    return f"{bad[0]}, which {devices} devices cannot share evenly (worker.devices_per_trial)" if bad else None


def out_of_limits(key: str, values: Sequence[object]) -> str | None:
    """What is wrong with `values` of the setting `key`, in words, or None."""
    limit = LIMITS.get(key)
    bad = [value for value in values if limit and not limit.holds(value)]
    return f"{bad[0]!r}; it is {limit}" if bad else None


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


def check(recipe: Recipe, devices: int = 1) -> None:
    """Raises Refusal for keys that are no TrainingArguments fields, that are ours to set, or that nothing reads.

    `devices`: how many train it together.
    """
    groups: Mapping[str, Mapping[str, Any]] = {
        "optimizer": recipe.optimizer, "schedule": recipe.schedule, "trainer": recipe.trainer,
    }  # fmt: skip
    problems = []
    idle = unconsumed(recipe)
    for group, values in groups.items():
        for key in values:
            if key.startswith("hub_"):
                problems.append(
                    f"{group}.{key} has no place here: publishing is python -m src.publish, and its token comes from "
                    "`hf auth login` or HF_TOKEN."
                )
            elif key in OURS:
                problems.append(f"{group}.{key} is set by Trialbook itself; take it out (see study.rungs and study.*).")
            elif key not in fields() and key not in EXTRA.get(group, ()):
                problems.append(
                    f"{group}.{key} is no field of transformers.TrainingArguments.{near(key, fields() - OURS)}"
                )
            elif (why := idle.get(f"{group}.{key}")) and group != "trainer":
                problems.append(f"{group}.{key} would be read by nothing, because {why}; take it out.")
    every = {**recipe.flat(), "model.learning_rate": recipe.model.learning_rate}
    given = {key: value for key, value in every.items() if key != "model.dropout" or value is not None}
    problems += [f"{key} is {wrong}." for key, value in given.items() if (wrong := out_of_limits(key, [value]))]
    every = dict.fromkeys(BATCHES, 8) | every  # the Trainer's own default
    problems += [f"{key} is {wrong}." for key, value in every.items() if (wrong := indivisible(key, [value], devices))]
    Refusal.when_any(problems or _refused_by_transformers(recipe))


def _refused_by_transformers(recipe: Recipe) -> list[str]:
    """What TrainingArguments itself says of the fields, once they are known to be its own."""
    from transformers import TrainingArguments

    given = {**recipe.optimizer, **recipe.schedule, **recipe.trainer, "use_cpu": True}
    values = {k: v for k, v in given.items() if k in fields() and v != "auto"}
    try:
        TrainingArguments(output_dir="unused", report_to="none", **values)
    except Exception as error:  # dataclass, enums and checks of many kinds
        return [f"transformers does not take these settings of optimizer, schedule and trainer: {first_line(error)}"]
    return []
