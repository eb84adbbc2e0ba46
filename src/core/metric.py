"""The metrics of a classifier by name, and which of two scores is better.

The names are those of scikit-learn's scorers, except for the losses, which are minimized here instead of negated.
"""

import math
from dataclasses import dataclass

from src.core.task import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS, WITH_LABELS, Task

MAXIMIZE, MINIMIZE = "maximize", "minimize"
TWO, MORE, ANY = "two labels", "three labels or more", "any number of labels"
EXAMPLES, POSITIVE, EACH_LABEL = "all examples", "the examples of label 1", "the examples of each label"
PREDICTED, RANKING, PROBABILITIES = "predicted labels", "ranking", "probabilities"
RESPONSES = {"predict": PREDICTED, "predict_proba": PROBABILITIES}  # names of scikit-learn's make_scorer
AVERAGED = ("f1", "precision", "recall")
OF_SEVERAL = ("f1_micro", "f1_macro", "precision_micro", "recall_micro")
OF_NUMBERS = ("mse", "mae", "r2", "spearman")
ALIASES = {
    "matthews": "matthews_corrcoef",
    "neg_log_loss": "loss",
    "log_loss": "loss",
    "neg_brier_score": "brier_score",
    "neg_mean_squared_error": "mse",
    "neg_mean_absolute_error": "mae",
}  # other common names of a metric
# what a model costs: objectives and constraints of a study beside its metric
COSTS = (
    "ms_per_1000_texts",  # milliseconds for 1,000 texts, on one processor thread or one GPU
    "megabytes",  # of the weights on disk, 10**6 bytes
    "seconds",  # of training and evaluation, without waiting
)


@dataclass(frozen=True)
class Metric:
    """What is known of a metric without computing it."""

    name: str
    labels: str = ANY  # for data with how many labels it is defined, if each text has one
    tasks: tuple[str, ...] = (SINGLE_LABEL,)
    rests_on: str = EXAMPLES  # on which examples its error rests
    reads: str = PREDICTED  # what of a model's answers it depends on
    direction: str = MAXIMIZE
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def own(cls, name: str, direction: str, low: float, high: float, response_method: str) -> "Metric":
        """A metric of the user's own code. Its error may rest on all examples; `response_method`: see RESPONSES."""
        return cls(name, tasks=TASKS, reads=RESPONSES[response_method], direction=direction, low=low, high=high)

    @property
    def is_bounded(self) -> bool:
        """Whether its values lie between two ends."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def suits(self, task: Task) -> bool:
        """Whether it is defined for data of this task."""
        if task.kind not in self.tasks:
            return False
        return task.kind != SINGLE_LABEL or self.labels == ANY or (self.labels == TWO) == (len(task.label_names) == 2)


def _all_metrics() -> tuple[Metric, ...]:
    counted = ("f1", "precision", "recall", "jaccard")
    return (
        Metric("loss", tasks=WITH_LABELS, reads=PROBABILITIES, direction=MINIMIZE, high=math.inf),
        Metric("accuracy", tasks=WITH_LABELS),
        Metric("balanced_accuracy", rests_on=EACH_LABEL),
        Metric("matthews_corrcoef", rests_on=EACH_LABEL, low=-1.0),
        Metric("top_k_accuracy", MORE),
        *(Metric(name, TWO, rests_on=POSITIVE) for name in counted),
        *(Metric(f"{name}_macro", tasks=WITH_LABELS, rests_on=EACH_LABEL) for name in counted),
        *(Metric(f"{name}_{average}", tasks=WITH_LABELS) for name in counted for average in ("micro", "weighted")),
        *(Metric(f"{name}_samples", tasks=(MULTI_LABEL,)) for name in counted),
        Metric("average_precision", tasks=WITH_LABELS, rests_on=POSITIVE, reads=RANKING),
        Metric("roc_auc", TWO, WITH_LABELS, EACH_LABEL, RANKING),
        *(
            Metric(f"roc_auc_{pairing}{weighted}", MORE, rests_on=EACH_LABEL, reads=RANKING)
            for pairing in ("ovr", "ovo")
            for weighted in ("", "_weighted")
        ),
        Metric("brier_score", reads=PROBABILITIES, direction=MINIMIZE, high=math.inf),
        Metric("d2_log_loss_score", reads=PROBABILITIES, low=-math.inf),
        Metric("d2_brier_score", reads=PROBABILITIES, low=-math.inf),
        *(
            Metric(name, tasks=(REGRESSION,), reads=PROBABILITIES, direction=MINIMIZE, high=math.inf)
            for name in ("mse", "mae")
        ),
        Metric("r2", tasks=(REGRESSION,), reads=PROBABILITIES, low=-math.inf),
        Metric("spearman", tasks=(REGRESSION,), reads=PROBABILITIES, low=-1.0),
    )


METRICS = {metric.name: metric for metric in _all_metrics()}


def register(metric: Metric) -> None:
    """Make a metric known by its name."""
    METRICS[metric.name] = metric


def known_metrics(task: Task) -> tuple[str, ...]:
    """The metrics that a study of data of this task can be run for."""
    return tuple(name for name, metric in METRICS.items() if metric.suits(task))


def metric_names(n_labels: int, metric: str = "", kind: str = SINGLE_LABEL) -> tuple[str, ...]:
    """The metrics of every evaluation: loss, accuracy, f1, precision, recall, and the study's `metric`.

    With two labels f1, precision and recall are of label 1; with more they are macro averages, such as f1_macro. Where
    a text can have several labels, f1 is there as micro and macro average, precision and recall as micro averages. Of a
    regression they are loss, mse, mae, r2 and spearman.

    Args:
        n_labels: of the data.
        metric: of the study; empty for none beside the usual ones.
        kind: of the task.
    """
    averaged = tuple(name if n_labels == 2 else f"{name}_macro" for name in AVERAGED)
    of_labels = ("accuracy", *(OF_SEVERAL if kind == MULTI_LABEL else averaged))
    standard = ("loss", *(OF_NUMBERS if kind == REGRESSION else of_labels))
    return standard if not metric or metric in standard else (*standard, metric)


def direction_of(metric: str) -> str:
    """Maximize or minimize: the direction in which the metric, or one of COSTS, gets better."""
    return MINIMIZE if metric in COSTS else METRICS[metric].direction


def gain(score: float, direction: str) -> float:
    """The score, negated if less is better, so that a larger number is better."""
    return score if direction == MAXIMIZE else -score
