"""Metrics as weighted sums over examples, so that thousands of resamples are a few matrix products."""

import numpy as np

from src.core import metric

Counts = np.ndarray  # [n_draws, n_examples]: how often each draw holds each example


def metric_names(n_labels: int) -> tuple[str, ...]:
    """The metrics of every evaluation, the loss last."""
    loss, *others = metric.metric_names(n_labels)
    return (*others, loss)


def weighted_metrics(labels: np.ndarray, probabilities: np.ndarray, counts: Counts) -> dict[str, np.ndarray]:
    """Each metric of each draw and seed.

    With two labels f1, precision and recall are of label 1; with more they are macro averages over the labels that
    occur. A ratio with denominator 0 is 0, as in scikit-learn with zero_division=0. The loss is the mean negative log
    probability of the true label.

    Args:
        labels: [n_examples].
        probabilities: [n_seeds, n_examples, n_labels].
        counts: how often each draw holds each example, [n_draws, n_examples].

    Returns:
        Metric -> [n_draws, n_seeds].
    """
    n_labels = probabilities.shape[2]
    predicted = probabilities.argmax(axis=2)
    total = counts.sum(axis=1, keepdims=True)
    true = np.take_along_axis(probabilities, np.broadcast_to(labels[None, :, None], (*predicted.shape, 1)), axis=2)[
        ..., 0
    ]
    metrics = {
        "accuracy": _weighted_sums(counts, predicted == labels) / total,
        "loss": _weighted_sums(counts, -np.log(np.clip(true, 1e-12, None))) / total,
    }
    if n_labels == 2:
        metrics |= _class_metrics(labels == 1, predicted == 1, counts)[0]
    else:
        metrics |= _macro_averages([_class_metrics(labels == c, predicted == c, counts) for c in range(n_labels)])
    return {name: metrics[name] for name in metric_names(n_labels)}


def metrics_per_seed(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of each seed on all examples, [n_seeds]."""
    all_examples = np.ones((1, len(labels)))
    return {name: values[0] for name, values in weighted_metrics(labels, probabilities, all_examples).items()}


def support(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, int]:
    """The number of examples that each metric rests on, the minimum over seeds. Shapes as in weighted_metrics.

    Recall rests on examples of the label, precision on those predicted as it, f1 on either; a macro average on as many
    as its rarest label.
    """
    n_labels, predicted = probabilities.shape[2], probabilities.argmax(axis=2)
    each = [
        {
            "recall": int((labels == c).sum()),
            "precision": int((predicted == c).sum(axis=1).min()),
            "f1": int(((predicted == c) | (labels == c)).sum(axis=1).min()),
        }
        for c in ((1,) if n_labels == 2 else range(n_labels))
    ]
    least = {name: min((e[name] for e in each if e["f1"]), default=0) for name in ("f1", "precision", "recall")}
    average = "" if n_labels == 2 else "_macro"
    metrics = {"accuracy": len(labels), "loss": len(labels), **{f"{name}{average}": n for name, n in least.items()}}
    return {name: max(1, n) for name, n in metrics.items()}


def n_differing_examples(metric: str, labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The number of examples on which two contenders differ, as far as the metric depends on them.

    With several seeds, an example counts by the difference between the fractions of seeds that predict each label.

    Args:
        metric: says which examples count.
        labels: [n_examples].
        first: probabilities, [n_seeds, n_examples, n_labels].
        second: as `first`.
    """
    # [n_examples, n_labels]: fraction of seeds that predict the label
    one, two = (np.eye(c.shape[2])[c.argmax(axis=2)].mean(axis=0) for c in (first, second))
    differ = np.abs(one - two).sum(axis=1) / 2
    if metric == "accuracy":
        rows = np.arange(len(labels))
        differ = np.abs(one[rows, labels] - two[rows, labels])
    return float(differ[labels == 1].sum() if metric == "recall" else differ.sum())


def _class_metrics(true: np.ndarray, predicted: np.ndarray, counts: Counts) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """f1, precision and recall of one label, and whether it occurs in each draw and seed."""
    hits, chosen = _weighted_sums(counts, predicted & true), _weighted_sums(counts, predicted)
    occurrences = _weighted_sums(counts, np.broadcast_to(true, predicted.shape))
    metrics = {
        "f1": _ratio(2 * hits, chosen + occurrences),
        "precision": _ratio(hits, chosen),
        "recall": _ratio(hits, occurrences),
    }
    return metrics, chosen + occurrences > 0


def _macro_averages(classes: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over the labels that occur among true or predicted labels."""
    occurrences = np.sum([present for _, present in classes], axis=0)
    return {
        f"{name}_macro": np.sum([values[name] * present for values, present in classes], axis=0) / occurrences
        for name in ("f1", "precision", "recall")
    }


def _weighted_sums(counts: Counts, values: np.ndarray) -> np.ndarray:
    """[n_draws, n_seeds] from values [n_seeds, n_examples]."""
    return counts @ values.T.astype(counts.dtype)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
