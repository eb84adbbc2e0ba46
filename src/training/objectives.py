"""What a study can be run for and compared with, by name. Light: no heavy import."""

from collections.abc import Sequence

from src.core.errors import InvalidInput, did_you_mean
from src.core.metric import METRICS, MINIMIZE, direction_of, known_metrics

IMBALANCED = 0.7  # share of the largest label above which accuracy says little
BASELINES = ("majority", "tfidf_logreg", "untuned", "ready_made")


def resolve_direction(metric: str, requested: str | None, n_labels: int) -> str:
    """The direction of the metric. Raises InvalidInput for an unknown metric, or if another direction was requested."""
    known = known_metrics(n_labels)
    if metric not in known:
        why = f", which is for {METRICS[metric].labels}" if metric in METRICS else ""
        raise InvalidInput(
            f"study.metric is {metric!r}{why}; with {n_labels} labels it is one of {', '.join(known)}."
            f"{did_you_mean(metric, known)}"
        )
    natural = direction_of(metric)
    if requested not in (None, natural):
        raise InvalidInput(
            f"study.direction is {requested!r}, but {metric} gets better as it gets "
            f"{'smaller' if natural == MINIMIZE else 'larger'}: leave study.direction out, or write {natural}."
        )
    return natural


def note_on_imbalance(metric: str, counts: Sequence[int], label_names: Sequence[str]) -> str | None:
    """What accuracy hides if one label has most of the texts; None if it has not, or another metric is the study's.

    Args:
        metric: of the study.
        counts: training texts of each label, [n_labels].
        label_names: by label index.
    """
    total = sum(counts)
    if metric != "accuracy" or not total or max(counts) <= IMBALANCED * total:
        return None
    share, largest = max(counts) / total, label_names[list(counts).index(max(counts))]
    of_one = f"f1 and average_precision (of {label_names[1]}), " if len(label_names) == 2 else ""
    return (
        f"{share:.0%} of the training texts have the label {largest}: a model that always says {largest} has an "
        f"accuracy of {share:.2f}. What it does with the others is seen by study.metric=f1_macro, "
        f"{of_one}balanced_accuracy or matthews. loss.class_weights=balanced lets every label count alike"
    )
