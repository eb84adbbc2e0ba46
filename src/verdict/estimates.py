"""Metrics as weighted sums over examples, so that thousands of resamples are a few matrix products."""

from collections.abc import Sequence

import numpy as np

from src.core import metric as metrics
from src.core.metric import EXAMPLES, METRICS, POSITIVE, PROBABILITIES, RANKING
from src.verdict.formulas import FORMULAS, Draws

Counts = np.ndarray  # [n_draws, n_examples]: how often each draw holds each example
HITS = ("accuracy", "top_k_accuracy", "recall_weighted")  # and micro averages: right or wrong is all that counts


def metric_names(n_labels: int, metric: str = "accuracy") -> tuple[str, ...]:
    """The metrics of every evaluation and the study's `metric`, the loss last."""
    loss, *others = metrics.metric_names(n_labels, metric)
    return (*others, loss)


def weighted_metrics(
    labels: np.ndarray, probabilities: np.ndarray, counts: Counts, names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Each metric of each draw and seed.

    With two labels f1, precision, recall and jaccard are of label 1; macro averages are over the labels that occur. A
    ratio with denominator 0 is 0, as in scikit-learn with zero_division=0. The loss is the mean negative log
    probability of the true label. A ranking of examples that all have one label is worth 0.5 (roc_auc).

    Args:
        labels: [n_examples].
        probabilities: [n_seeds, n_examples, n_labels].
        counts: how often each draw holds each example, [n_draws, n_examples].
        names: of metrics; by default those of every evaluation.

    Returns:
        Metric -> [n_draws, n_seeds].
    """
    draws = Draws(labels, probabilities, counts)
    shape = (len(counts), len(probabilities))
    names = names or metric_names(probabilities.shape[2])
    return {name: np.broadcast_to(FORMULAS[name](draws), shape) for name in names}


def metrics_per_seed(labels: np.ndarray, probabilities: np.ndarray, metric: str = "accuracy") -> dict[str, np.ndarray]:
    """The metrics of every evaluation and `metric`, of each seed on all examples, [n_seeds]."""
    all_examples, names = np.ones((1, len(labels))), metric_names(probabilities.shape[2], metric)
    return {name: values[0] for name, values in weighted_metrics(labels, probabilities, all_examples, names).items()}


def support(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str] = ()) -> dict[str, int]:
    """The number of examples that each metric rests on, the minimum over seeds. Shapes as in weighted_metrics.

    Recall rests on examples of the label, precision on those predicted as it, f1 and jaccard on either; a macro average
    on as many as its rarest label.
    """
    n_labels, predicted = probabilities.shape[2], probabilities.argmax(axis=2)
    each = [
        {
            "recall": int((labels == c).sum()),
            "precision": int((predicted == c).sum(axis=1).min()),
            "f1": int(((predicted == c) | (labels == c)).sum(axis=1).min()),
        }
        for c in range(n_labels)
    ]
    numbers = {}
    for name in names or metric_names(n_labels):
        stem = name.split("_", maxsplit=1)[0]
        kind = {"precision": "precision", "f1": "f1", "jaccard": "f1"}.get(stem, "recall")
        if METRICS[name].rests_on == EXAMPLES:
            numbers[name] = len(labels)
        elif METRICS[name].rests_on == POSITIVE and n_labels == 2:
            numbers[name] = each[1][kind]
        else:
            numbers[name] = min((e[kind] for e in each if e["f1"]), default=0)
    return {name: max(1, n) for name, n in numbers.items()}


def n_differing_examples(metric: str, labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The number of examples on which two contenders differ, as far as the metric depends on them.

    With several seeds, an example counts by the difference between the fractions of seeds that predict each label. For
    a metric of the ranking it counts if its mean rank differs, and the number is that of the rarest label.

    Args:
        metric: says which examples count.
        labels: [n_examples].
        first: probabilities, [n_seeds, n_examples, n_labels].
        second: as `first`.
    """
    if METRICS[metric].reads == PROBABILITIES:
        return float(len(labels))
    if METRICS[metric].reads == RANKING:
        moved = (_mean_ranks(first) != _mean_ranks(second)).any(axis=1)
        counted = (1,) if METRICS[metric].rests_on == POSITIVE and first.shape[2] == 2 else np.unique(labels)
        return float(min(moved[labels == c].sum() for c in counted))
    # [n_examples, n_labels]: fraction of seeds that predict the label
    one, two = (np.eye(c.shape[2])[c.argmax(axis=2)].mean(axis=0) for c in (first, second))
    differ = np.abs(one - two).sum(axis=1) / 2
    if metric in HITS or metric.endswith("_micro"):
        rows = np.arange(len(labels))
        differ = np.abs(one[rows, labels] - two[rows, labels])
    return float(differ[labels == 1].sum() if metric == "recall" else differ.sum())


def _mean_ranks(probabilities: np.ndarray) -> np.ndarray:
    """The rank of each example by each label's probability, the mean over seeds, [n_examples, n_labels]."""
    from scipy.stats import rankdata  # takes a second to import

    ranks: np.ndarray = rankdata(probabilities, axis=1).mean(axis=0)
    return ranks
