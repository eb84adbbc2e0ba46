"""Metrics as weighted sums over examples, so that thousands of resamples are a few matrix products."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from src.core import metric as metrics
from src.core import own_code, own_metrics
from src.core.metric import EXAMPLES, METRICS, POSITIVE, PROBABILITIES, RANKING
from src.core.task import (
    REGRESSION,
    SINGLE_LABEL,
    are_numbers,
    decided,
    has_several,
    is_right,
    kind_of,
    present,
)
from src.verdict.formulas import FORMULAS, Draws
from src.verdict.number_formulas import NUMBER_FORMULAS, NumberDraws

Counts = np.ndarray  # [n_draws, n_examples]: how often each draw holds each example
HITS = ("accuracy", "top_k_accuracy", "recall_weighted")  # and micro averages: right or wrong is all that counts


def metric_names(n_labels: int, metric: str = "", kind: str = SINGLE_LABEL) -> tuple[str, ...]:
    """The metrics of every evaluation and the study's `metric`, the loss last; of a regression without the loss."""
    loss, *others = metrics.metric_names(n_labels, metric, kind)
    return tuple(others) if kind == REGRESSION else (*others, loss)


def weighted_metrics(
    labels: np.ndarray, probabilities: np.ndarray, counts: Counts, names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Each metric of each draw and seed.

    With two labels f1, precision, recall and jaccard are of label 1; macro averages are over the labels that occur. A
    ratio with denominator 0 is 0, as in scikit-learn with zero_division=0. The loss is the mean negative log
    probability of the true label. A ranking of examples that all have one label is worth 0.5 (roc_auc).

    Args:
        labels: [n_examples] or, where texts can have several, [n_examples, n_labels]; floats of a regression.
        probabilities: [n_seeds, n_examples, n_labels]; of a regression the predicted numbers, [n_seeds, n_examples, 1].
        counts: how often each draw holds each example, [n_draws, n_examples].
        names: of metrics; by default those of every evaluation.

    Returns:
        Metric -> [n_draws, n_seeds].
    """
    shape = (len(counts), len(probabilities))
    names = names or metric_names(probabilities.shape[2], kind=kind_of(labels))
    formulas: Mapping[str, Callable[[], np.ndarray]]
    if are_numbers(labels):
        numbers = NumberDraws(labels, probabilities[..., 0], counts)
        formulas = {name: partial(formula, numbers) for name, formula in NUMBER_FORMULAS.items()}
    else:
        draws = Draws(labels, probabilities, counts)
        formulas = {name: partial(formula, draws) for name, formula in FORMULAS.items()}
    return {
        name: own_metrics.score_draws(name, labels, probabilities, counts)
        if own_code.is_own(name)
        else np.broadcast_to(formulas[name](), shape)
        for name in names
    }


def metrics_per_seed(labels: np.ndarray, probabilities: np.ndarray, metric: str = "") -> dict[str, np.ndarray]:
    """The metrics of every evaluation and `metric`, of each seed on all examples, [n_seeds]."""
    all_examples = np.ones((1, len(labels)))
    names = metric_names(probabilities.shape[2], metric, kind_of(labels))
    return {name: values[0] for name, values in weighted_metrics(labels, probabilities, all_examples, names).items()}


def support(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str] = ()) -> dict[str, int]:
    """The number of examples that each metric rests on, the minimum over seeds. Shapes as in weighted_metrics.

    Recall rests on examples of the label, precision on those predicted as it, f1 and jaccard on either; a macro average
    on as many as its rarest label.
    """
    n_labels, several = probabilities.shape[2], has_several(labels)
    if are_numbers(labels):
        return dict.fromkeys(names or metric_names(n_labels, kind=REGRESSION), len(labels))
    true, given = present(labels, n_labels), decided(probabilities, several)
    each = [
        {
            "recall": int(true[:, c].sum()),
            "precision": int(given[..., c].sum(axis=1).min()),
            "f1": int((given[..., c] | true[:, c]).sum(axis=1).min()),
        }
        for c in range(n_labels)
    ]
    numbers = {}
    for name in names or metric_names(n_labels, kind=kind_of(labels)):
        stem = name.split("_", maxsplit=1)[0]
        kind = {"precision": "precision", "f1": "f1", "jaccard": "f1"}.get(stem, "recall")
        if METRICS[name].rests_on == EXAMPLES:
            numbers[name] = len(labels)
        elif METRICS[name].rests_on == POSITIVE and n_labels == 2 and not several:
            numbers[name] = each[1][kind]
        else:
            numbers[name] = min((e[kind] for e in each if e["f1"]), default=0)
    return {name: max(1, n) for name, n in numbers.items()}


def n_differing_examples(metric: str, labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The number of examples on which two contenders differ, as far as the metric depends on them.

    With several seeds, an example counts by the difference between the fractions of seeds that predict each label; of
    several labels by the largest such difference. For a metric of the ranking it counts if its mean rank differs, and
    the number is that of the rarest label.

    Args:
        metric: says which examples count.
        labels: [n_examples] or [n_examples, n_labels].
        first: probabilities, [n_seeds, n_examples, n_labels].
        second: as `first`.
    """
    several = has_several(labels)
    if METRICS[metric].reads == PROBABILITIES or are_numbers(labels):
        return float(len(labels))
    if METRICS[metric].reads == RANKING:
        moved = (_mean_ranks(first) != _mean_ranks(second)).any(axis=1)
        true = present(labels, first.shape[2])
        if METRICS[metric].rests_on == POSITIVE and first.shape[2] == 2 and not several:
            true = true[:, 1:]
        each = (moved & true[:, c] for c in np.flatnonzero(true.any(axis=0)))
        return float(min((rows.sum() for rows in each), default=0))
    if metric == "accuracy" or (not several and (metric in HITS or metric.endswith("_micro"))):
        one, two = (is_right(labels, each).mean(axis=0) for each in (first, second))
        return float(np.abs(one - two).sum())
    # [n_examples, n_labels]: fraction of seeds that predict the label
    one, two = (decided(each, several).mean(axis=0) for each in (first, second))
    differ = np.abs(one - two).max(axis=1) if several else np.abs(one - two).sum(axis=1) / 2
    return float(differ[labels == 1].sum() if metric == "recall" else differ.sum())


def _mean_ranks(probabilities: np.ndarray) -> np.ndarray:
    """The rank of each example by each label's probability, the mean over seeds, [n_examples, n_labels]."""
    from scipy.stats import rankdata  # takes a second to import

    ranks: np.ndarray = rankdata(probabilities, axis=1).mean(axis=0)
    return ranks
