"""The metrics of a classifier by name, and which of two scores is better."""

AVERAGED = ("f1", "precision", "recall")
MAXIMIZE, MINIMIZE = "maximize", "minimize"


def metric_names(n_labels: int) -> tuple[str, ...]:
    """The metrics of every evaluation of a classifier with `n_labels`: loss, accuracy, f1, precision, recall.

    With two labels these are of label 1; with more they are macro averages, named f1_macro and so on.
    """
    return ("loss", "accuracy", *(name if n_labels == 2 else f"{name}_macro" for name in AVERAGED))


def direction_of(metric: str) -> str:
    """Maximize or minimize: the direction in which the metric gets better."""
    return MINIMIZE if metric == "loss" else MAXIMIZE


def gain(score: float, direction: str) -> float:
    """The score, negated if less is better, so that a larger number is better."""
    return score if direction == MAXIMIZE else -score
