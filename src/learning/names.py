"""What a study can be run for and compared with, by name. Light: no heavy import."""

from src.errors import Refusal

BASELINES = ("majority", "tfidf_logreg", "untuned", "ready_made")
AVERAGED = ("f1", "precision", "recall")


def metric_names(n_labels: int) -> tuple[str, ...]:
    """What every evaluation of a classifier with `n_labels` holds."""
    return ("loss", "accuracy", *(name if n_labels == 2 else f"{name}_macro" for name in AVERAGED))


def direction_of(metric: str, asked: str | None, n_labels: int) -> str:
    """maximize or minimize. Raises Refusal for an unknown metric or a contradicting direction."""
    known = metric_names(n_labels)
    if metric not in known:
        raise Refusal(f"study.metric is {metric!r}; with {n_labels} labels it is one of {', '.join(known)}.")
    natural = "minimize" if metric == "loss" else "maximize"
    if asked not in (None, natural):
        raise Refusal(
            f"study.direction is {asked!r}, but {metric} gets better as it gets "
            f"{'smaller' if natural == 'minimize' else 'larger'}: leave study.direction out, or write {natural}."
        )
    return natural
