"""Which TrainingArguments fields a config may set, and which of them have an effect."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from src.config.settings import Recipe
from src.core.errors import InvalidInput, did_you_mean, first_line

RESERVED_FIELDS = {
    "output_dir", "report_to", "seed", "data_seed", "eval_strategy", "eval_steps", "eval_delay", "save_strategy",
    "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "logging_strategy", "logging_nan_inf_filter", "disable_tqdm", "run_name", "push_to_hub", "do_train", "do_eval",
    "do_predict", "resume_from_checkpoint", "remove_unused_columns", "label_names", "length_column_name",
    "auto_find_batch_size", "eval_on_start", "batch_eval_metrics", "prediction_loss_only", "eval_do_concat_batches",
    "dataloader_persistent_workers", "dataloader_drop_last",
}  # fmt: skip
"""Fields that Trialbook sets itself: the study decides when to evaluate, save and log."""
OPEN_GROUPS = ("optimizer", "schedule", "trainer")  # hold fields of TrainingArguments, also ones not in conf/
EXTRA_FIELDS = {"trainer": {"require_gpu"}}


@dataclass(frozen=True)
class Limit:
    """The numbers that a setting may have: from `low` (or above it) to `high` (or below it)."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole_number: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole_number else "a number"
        start = f"{kind} {'above' if self.open_low else 'from'} {self.low:g}"
        return start if self.high == math.inf else f"{start} to {'below ' * self.open_high}{self.high:g}"

    def contains(self, value: object) -> bool:
        """Whether `value` is a number within the limit."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (not self.whole_number or value == int(value))


POSITIVE, COUNT, FRACTION = Limit(0, open_low=True), Limit(1, whole_number=True), Limit(0, 1, open_high=True)
LIMITS = {
    "model.dropout": FRACTION,
    "model.max_tokens": Limit(3, whole_number=True),  # one token between the two special ones
    "model.learning_rate": POSITIVE,
    "adapter.learning_rate": POSITIVE,
    "adapter.rank": COUNT,
    "adapter.alpha": POSITIVE,
    "adapter.dropout": FRACTION,
    "optimizer.learning_rate": POSITIVE,
    "optimizer.weight_decay": Limit(0),
    "optimizer.adam_beta1": FRACTION,
    "optimizer.adam_beta2": FRACTION,
    "optimizer.adam_epsilon": POSITIVE,
    "schedule.warmup_steps": Limit(0),
    "trainer.num_train_epochs": POSITIVE,
    "trainer.per_device_train_batch_size": COUNT,
    "trainer.per_device_eval_batch_size": COUNT,
    "trainer.gradient_accumulation_steps": COUNT,
    "trainer.label_smoothing_factor": FRACTION,
    "trainer.logging_steps": POSITIVE,
    "trainer.max_grad_norm": Limit(0),
    "loss.focal_gamma": Limit(0),
}
"""The valid numbers by dotted key, for values in a config and for ranges to search."""


BATCH_KEYS = ("trainer.per_device_train_batch_size", "trainer.per_device_eval_batch_size")


def not_divisible(key: str, values: Sequence[object], devices: int) -> str | None:
    """In words, which batch size `devices` devices cannot share evenly; None if all can be shared."""
    bad = [v for v in values if key in BATCH_KEYS and isinstance(v, int) and v % devices]
    return f"{bad[0]}, which {devices} devices cannot share evenly (worker.devices_per_trial)" if bad else None


def out_of_limits(key: str, values: Sequence[object]) -> str | None:
    """In words, which value is outside the limits of `key`; None if all are inside."""
    limit = LIMITS.get(key)
    bad = [value for value in values if limit and not limit.contains(value)]
    return f"{bad[0]!r}; it is {limit}" if bad else None


@lru_cache
def training_argument_fields() -> frozenset[str]:
    """The fields of TrainingArguments that can be set."""
    from transformers import TrainingArguments

    return frozenset(f.name for f in dataclasses.fields(TrainingArguments) if f.init)


def unused_arguments(recipe: Recipe) -> dict[str, str]:
    """Dotted keys of `recipe` that have no effect whatever is built from it, and why; dry_run finds the others."""
    if int(recipe.trainer.get("max_steps") or -1) > 0:
        return {"trainer.num_train_epochs": "trainer.max_steps decides the length"}
    return {}


def check_arguments(recipe: Recipe, devices: int = 1) -> None:
    """Raises InvalidInput for fields that TrainingArguments does not have, or Trialbook sets, and for wrong numbers."""
    groups: Mapping[str, Mapping[str, Any]] = {
        "optimizer": recipe.optimizer, "schedule": recipe.schedule, "trainer": recipe.trainer,
    }  # fmt: skip
    problems = []
    for group, values in groups.items():
        for key in values:
            if key.startswith("hub_"):
                problems.append(
                    f"{group}.{key} is not allowed: models are published by python -m src.publish, whose token comes "
                    "from `hf auth login` or HF_TOKEN."
                )
            elif key in RESERVED_FIELDS:
                problems.append(f"{group}.{key} is set by Trialbook itself; take it out (see study.rungs and study.*).")
            elif key not in training_argument_fields() and key not in EXTRA_FIELDS.get(group, ()):
                question = did_you_mean(key, training_argument_fields() - RESERVED_FIELDS)
                problems.append(f"{group}.{key} is no field of transformers.TrainingArguments.{question}")
    every = {**recipe.flatten(), "model.learning_rate": recipe.model.learning_rate}
    if recipe.adapter.learning_rate is not None:
        every["adapter.learning_rate"] = recipe.adapter.learning_rate
    set_values = {key: value for key, value in every.items() if key != "model.dropout" or value is not None}
    problems += [f"{key} is {wrong}." for key, value in set_values.items() if (wrong := out_of_limits(key, [value]))]
    every = dict.fromkeys(BATCH_KEYS, 8) | every  # the Trainer's own default
    problems += [
        f"{key} is {wrong}." for key, value in every.items() if (wrong := not_divisible(key, [value], devices))
    ]
    InvalidInput.raise_if_any(problems or _refused_by_transformers(recipe))


def _refused_by_transformers(recipe: Recipe) -> list[str]:
    """What TrainingArguments itself raises for these fields."""
    from transformers import TrainingArguments

    all_fields = {**recipe.optimizer, **recipe.schedule, **recipe.trainer, "use_cpu": True}
    values = {k: v for k, v in all_fields.items() if k in training_argument_fields() and v != "auto"}
    try:
        TrainingArguments(output_dir="unused", report_to="none", **values)
    except Exception as error:  # errors of dataclasses, enums and checks, of many types
        return [f"transformers does not take these settings of optimizer, schedule and trainer: {first_line(error)}"]
    return []
