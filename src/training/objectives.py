"""What a study can be run for and compared with, by name. Light: no heavy import."""

import math
from collections.abc import Sequence

from src.config.settings import BASELINES_OF_NUMBERS, Bounds, StudySettings
from src.core import own_code
from src.core.errors import InvalidInput, did_you_mean
from src.core.metric import COSTS, METRICS, MINIMIZE, direction_of, known_metrics
from src.core.own_code import OwnBaseline, OwnMetric
from src.core.task import REGRESSION, Task

IMBALANCED = 0.7  # share of the largest label above which accuracy says little
BASELINES = ("majority", "tfidf_logreg", "untuned", "ready_made")  # of labels


def check_baseline(name: str, task: str) -> None:
    """Raise InvalidInput for a baseline that there is not. `task`: the kind that it is for."""
    known = tuple(BASELINES_OF_NUMBERS.values()) if task == REGRESSION else BASELINES
    if own_code.is_own(name):
        own_code.find(name, OwnBaseline)
    elif name not in known:
        whose = " for numbers" if task == REGRESSION else ""
        raise InvalidInput(
            f"study.baselines has {name}; there are {', '.join(known)}{whose}, and those of your own code, "
            f"<module>:<name>.{did_you_mean(name, known)}"
        )


def resolve_direction(metric: str, requested: str | None, task: Task) -> str:
    """The direction of the metric. Raises InvalidInput for an unknown metric, or if another direction was requested."""
    known = known_metrics(task)
    if metric not in known and own_code.is_own(metric):
        own_code.find(metric, OwnMetric)
    if metric not in known:
        raise InvalidInput(
            f"study.metric is {metric!r}{_why_unknown(metric, task)}; {_in_words(task)} it is one of "
            f"{', '.join(known)}.{did_you_mean(metric, known)}"
        )
    natural = direction_of(metric)
    if requested not in (None, natural):
        raise InvalidInput(
            f"study.direction is {requested!r}, but {metric} gets better as it gets "
            f"{'smaller' if natural == MINIMIZE else 'larger'}: leave study.direction out, or write {natural}."
        )
    return natural


def check_measured(study: StudySettings, task: Task) -> None:
    """Raise InvalidInput for objectives and constraints that cannot be measured, or bounds that nothing can meet."""
    known, problems = [*COSTS, *known_metrics(task)], []
    for name in (*study.further_metrics, *study.constraints):
        where = "study.constraints" if name in study.constraints else "study.metric"
        if name not in known and own_code.is_own(name):
            own_code.find(name, OwnMetric)
        elif name not in known:
            problems.append(
                f"{where} has {name!r}{_why_unknown(name, task)}; {_in_words(task)} it may have "
                f"{', '.join(known)}.{did_you_mean(name, known)}"
            )
    for name, bounds in study.constraints.items():
        if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
            problems.append(f"study.constraints.{name} has a min of {bounds.min:g}, above its max of {bounds.max:g}.")
        low, high = (0.0, math.inf) if name in COSTS or name not in METRICS else (METRICS[name].low, METRICS[name].high)
        if (bounds.max is not None and bounds.max < low) or (bounds.min is not None and bounds.min > high):
            problems.append(
                f"study.constraints.{name} has {_bounds_in_words(bounds)}, and {name} lies between {low:g} and "
                f"{high:g}: nothing can be within."
            )
    InvalidInput.raise_if_any(problems)


def _bounds_in_words(bounds: Bounds) -> str:
    return " and ".join(f"a {name} of {value:g}" for name, value in bounds.given.items())


def _why_unknown(metric: str, task: Task) -> str:
    if metric not in METRICS:
        return ""
    known = METRICS[metric]
    if task.kind in known.tasks:
        return f", which is for {known.labels}"
    if REGRESSION in known.tasks:
        return ", which is for numbers (data.task=regression)"
    if task.is_regression:
        return ", which is for labels"
    return f", which is for {'one label' if task.has_several_labels else 'several labels'} a text"


def _in_words(task: Task) -> str:
    if task.is_regression:
        return "of numbers"
    return "with several labels a text" if task.has_several_labels else f"with {len(task.label_names)} labels"


def note_on_metric(metric: str, counts: Sequence[int], task: Task) -> str | None:
    """What accuracy hides: of several labels a text, or if one label has most of the texts; None if it hides nothing.

    Args:
        metric: of the study; only of accuracy there is something to say.
        counts: training texts of each label, [n_labels].
        task: of the data.
    """
    total, label_names = sum(counts), task.label_names
    if metric == "accuracy" and task.has_several_labels:
        return (
            "accuracy counts a text as right only if it gets exactly its labels; study.metric=f1_micro or f1_macro "
            "says more of texts with several labels"
        )
    if metric != "accuracy" or task.is_regression or not total or max(counts) <= IMBALANCED * total:
        return None
    share, largest = max(counts) / total, label_names[list(counts).index(max(counts))]
    of_one = f"f1 and average_precision (of {label_names[1]}), " if len(label_names) == 2 else ""
    return (
        f"{share:.0%} of the training texts have the label {largest}: a model that always says {largest} has an "
        f"accuracy of {share:.2f}. What it does with the others is seen by study.metric=f1_macro, "
        f"{of_one}balanced_accuracy or matthews. loss.class_weights=balanced lets every label count alike"
    )
