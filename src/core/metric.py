"""The metrics of a classifier by name, and which of two scores is better.

The names are those of scikit-learn's scorers, except for the losses, which are minimized here instead of negated.
"""

import math
from dataclasses import dataclass

MAXIMIZE, MINIMIZE = "maximize", "minimize"
TWO, MORE, ANY = "two labels", "three labels or more", "any number of labels"
EXAMPLES, POSITIVE, EACH_LABEL = "all examples", "the examples of label 1", "the examples of each label"
PREDICTED, RANKING, PROBABILITIES = "predicted labels", "ranking", "probabilities"
AVERAGED = ("f1", "precision", "recall")
ALIASES = {
    "matthews": "matthews_corrcoef",
    "neg_log_loss": "loss",
    "log_loss": "loss",
    "neg_brier_score": "brier_score",
}  # other common names of a metric


@dataclass(frozen=True)
class Metric:
    """What is known of a metric without computing it."""

    name: str
    labels: str = ANY  # for data with how many labels it is defined
    rests_on: str = EXAMPLES  # on which examples its error rests
    reads: str = PREDICTED  # what of a model's answers it depends on
    direction: str = MAXIMIZE
    low: float = 0.0
    high: float = 1.0

    @property
    def is_bounded(self) -> bool:
        """Whether its values lie between two ends."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def suits(self, n_labels: int) -> bool:
        """Whether it is defined for data with `n_labels` labels."""
        return self.labels == ANY or (self.labels == TWO) == (n_labels == 2)


def _all_metrics() -> tuple[Metric, ...]:
    counted = ("f1", "precision", "recall", "jaccard")
    return (
        Metric("loss", reads=PROBABILITIES, direction=MINIMIZE, high=math.inf),
        Metric("accuracy"),
        Metric("balanced_accuracy", rests_on=EACH_LABEL),
        Metric("matthews_corrcoef", rests_on=EACH_LABEL, low=-1.0),
        Metric("top_k_accuracy", MORE),
        *(Metric(name, TWO, POSITIVE) for name in counted),
        *(Metric(f"{name}_macro", rests_on=EACH_LABEL) for name in counted),
        *(Metric(f"{name}_{average}") for name in counted for average in ("micro", "weighted")),
        Metric("average_precision", rests_on=POSITIVE, reads=RANKING),
        Metric("roc_auc", TWO, EACH_LABEL, RANKING),
        *(
            Metric(f"roc_auc_{pairing}{weighted}", MORE, EACH_LABEL, RANKING)
            for pairing in ("ovr", "ovo")
            for weighted in ("", "_weighted")
        ),
        Metric("brier_score", reads=PROBABILITIES, direction=MINIMIZE, high=math.inf),
        Metric("d2_log_loss_score", reads=PROBABILITIES, low=-math.inf),
        Metric("d2_brier_score", reads=PROBABILITIES, low=-math.inf),
    )


METRICS = {metric.name: metric for metric in _all_metrics()}


def known_metrics(n_labels: int) -> tuple[str, ...]:
    """The metrics that a study of data with `n_labels` labels can be run for."""
    return tuple(name for name, metric in METRICS.items() if metric.suits(n_labels))


def metric_names(n_labels: int, metric: str = "accuracy") -> tuple[str, ...]:
    """The metrics of every evaluation: loss, accuracy, f1, precision, recall, and the study's `metric`.

    With two labels f1, precision and recall are of label 1; with more they are macro averages, such as f1_macro.
    """
    standard = ("loss", "accuracy", *(name if n_labels == 2 else f"{name}_macro" for name in AVERAGED))
    return standard if metric in standard else (*standard, metric)


def direction_of(metric: str) -> str:
    """Maximize or minimize: the direction in which the metric gets better."""
    return METRICS[metric].direction


def gain(score: float, direction: str) -> float:
    """The score, negated if less is better, so that a larger number is better."""
    return score if direction == MAXIMIZE else -score
