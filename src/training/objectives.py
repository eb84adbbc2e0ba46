"""What a study can be run for and compared with, by name. Light: no heavy import."""

from src.core.errors import InvalidInput
from src.core.metric import MINIMIZE, direction_of, metric_names

BASELINES = ("majority", "tfidf_logreg", "untuned", "ready_made")


def resolve_direction(metric: str, requested: str | None, n_labels: int) -> str:
    """The direction of the metric. Raises InvalidInput for an unknown metric, or if another direction was requested."""
    known = metric_names(n_labels)
    if metric not in known:
        raise InvalidInput(f"study.metric is {metric!r}; with {n_labels} labels it is one of {', '.join(known)}.")
    natural = direction_of(metric)
    if requested not in (None, natural):
        raise InvalidInput(
            f"study.direction is {requested!r}, but {metric} gets better as it gets "
            f"{'smaller' if natural == MINIMIZE else 'larger'}: leave study.direction out, or write {natural}."
        )
    return natural
