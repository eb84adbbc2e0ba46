"""Classification metrics as local evaluate.Metric modules over scikit-learn: no Hub, no scripts.

Importing this imports evaluate, and with it torch and transformers (seconds): do so inside functions.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import datasets
import evaluate
import numpy as np

from src.core import own_code, own_metrics
from src.core.metric import metric_names
from src.core.task import MULTI_LABEL, REGRESSION, are_numbers, decided, has_several

DESCRIPTION = "scikit-learn's {name}, average={average}, zero_division=0."
Scorer = Callable[[np.ndarray, np.ndarray], float]  # of labels [n_examples], probabilities [n_examples, n_labels]


class SklearnMetric(evaluate.Metric):
    """accuracy, f1, precision or recall of scikit-learn as an evaluate.Metric; `config_name` is '<name>-<average>'."""

    def _info(self) -> evaluate.MetricInfo:
        name, _, average = self.config_name.partition("-")
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(
            description=DESCRIPTION.format(name=name, average=average or None), citation="", features=features
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        from sklearn import metrics

        name, _, average = self.config_name.partition("-")
        if name == "accuracy":
            return {"accuracy": float(metrics.accuracy_score(references, predictions))}
        function = getattr(metrics, f"{name}_score")
        value = function(references, predictions, average=average, zero_division=0)
        return {name if average == "binary" else f"{name}_{average}": float(value)}


@lru_cache
def _combined_metrics(n_labels: int) -> evaluate.CombinedEvaluations:
    average = "binary" if n_labels == 2 else "macro"
    names = ["accuracy", *(f"{name}-{average}" for name in ("f1", "precision", "recall"))]
    return evaluate.combine([SklearnMetric(config_name=name) for name in names])


def compute_metrics(labels: np.ndarray, probabilities: np.ndarray, *more: str) -> dict[str, float]:
    """Metrics of every evaluation, and `more`, but for the loss, which the Trainer computes.

    Two labels: f1, precision and recall of label 1. More: their macro averages, named f1_macro and so on. See
    core.metric.metric_names for texts with several labels.

    Args:
        labels: [n_examples] or [n_examples, n_labels]; floats of a regression.
        probabilities: [n_examples, n_labels]; of a regression the predicted numbers, [n_examples, 1].
        more: metrics, such as that of the study.
    """
    if are_numbers(labels) or has_several(labels):
        kind = REGRESSION if are_numbers(labels) else MULTI_LABEL
        names = dict.fromkeys([*metric_names(probabilities.shape[1], kind=kind), *filter(None, more)])
        return {name: score_of(name, labels, probabilities) for name in names if name != "loss"}
    computed: dict[str, Any] = _combined_metrics(probabilities.shape[1]).compute(
        predictions=probabilities.argmax(axis=1), references=labels
    )
    values = {name: float(value) for name, value in computed.items()}
    for metric in more:
        if metric and metric != "loss" and metric not in values:
            values[metric] = score_of(metric, labels, probabilities)
    return values


def score_of(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The metric as scikit-learn computes it, or by your own function.

    Where it is undefined, because a label has no example, the average is over the others; a ranking without examples to
    rank is worth 0.5 (roc_auc) or 0 (average_precision, spearman).

    Args:
        metric: one of core.metric.
        labels: [n_examples] or [n_examples, n_labels]; floats of a regression.
        probabilities: [n_examples, n_labels]; of a regression the predicted numbers, [n_examples, 1].
    """
    if own_code.is_own(metric):
        return own_metrics.score(metric, labels, probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels without examples, and of numbers that are all the same
        if are_numbers(labels):
            return _score_of_numbers(metric, labels, probabilities[:, 0])
        score = _scorer_of_several(metric) if has_several(labels) else _scorer(metric)
        return float(score(labels, probabilities))


def _score_of_numbers(metric: str, numbers: np.ndarray, predicted: np.ndarray) -> float:
    from scipy.stats import spearmanr
    from sklearn import metrics

    if metric == "spearman":  # has no value where all numbers are the same
        return float(np.nan_to_num(spearmanr(numbers, predicted).statistic))
    functions = {
        "mse": metrics.mean_squared_error,
        "mae": metrics.mean_absolute_error,
        "r2": metrics.r2_score,
    }
    return float(functions[metric](numbers, predicted))


def _scorer(metric: str) -> Scorer:
    from sklearn import metrics

    predicted: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "accuracy": metrics.accuracy_score,
        "balanced_accuracy": metrics.balanced_accuracy_score,
        "matthews_corrcoef": metrics.matthews_corrcoef,
        **{
            name if average == "binary" else f"{name}_{average}": partial(
                getattr(metrics, f"{name}_score"), average=average, zero_division=0
            )
            for name in ("f1", "precision", "recall", "jaccard")
            for average in ("binary", "macro", "micro", "weighted")
        },
    }
    if function := predicted.get(metric):
        return lambda labels, probabilities: function(labels, probabilities.argmax(axis=1))
    others: dict[str, Scorer] = {
        "loss": _with_all_labels(metrics.log_loss),
        "brier_score": _with_all_labels(metrics.brier_score_loss),
        "d2_log_loss_score": _with_all_labels(metrics.d2_log_loss_score),
        "d2_brier_score": _with_all_labels(metrics.d2_brier_score),
        "top_k_accuracy": _with_all_labels(metrics.top_k_accuracy_score),
        "average_precision": _average_precision,
        "roc_auc": lambda labels, probabilities: _binary_roc_auc(labels == 1, probabilities[:, 1]),
        "roc_auc_ovr": _roc_auc_ovr,
        "roc_auc_ovr_weighted": partial(_roc_auc_ovr, weighted=True),
        "roc_auc_ovo": _roc_auc_ovo,
        "roc_auc_ovo_weighted": partial(_roc_auc_ovo, weighted=True),
    }
    return others[metric]


def _scorer_of_several(metric: str) -> Scorer:
    from sklearn import metrics

    if metric == "accuracy":
        return lambda labels, probabilities: metrics.accuracy_score(labels, decided(probabilities, several=True))
    if metric == "loss":
        return lambda labels, probabilities: np.mean(
            [metrics.log_loss(true, p, labels=[0, 1]) for true, p in zip(labels.T, probabilities.T, strict=True)]
        )
    if metric in ("average_precision", "roc_auc"):
        of_one = metrics.average_precision_score if metric == "average_precision" else _binary_roc_auc
        return partial(_mean_over_labels, of_one, metric == "roc_auc")
    name, _, average = metric.rpartition("_")
    function = partial(getattr(metrics, f"{name}_score"), average=average, zero_division=0)
    return lambda labels, probabilities: function(labels, decided(probabilities, several=True).astype(int))


def _mean_over_labels(
    score: Callable[[np.ndarray, np.ndarray], float], needs_both: bool, labels: np.ndarray, probabilities: np.ndarray
) -> float:
    """The mean of a ranking's score over labels that a text has; with `needs_both`, also that a text has not."""
    positive = labels.sum(axis=0)
    counted = np.flatnonzero((positive > 0) & ((positive < len(labels)) | (not needs_both)))
    return float(np.mean([score(labels[:, c], probabilities[:, c]) for c in counted])) if len(counted) else 0.0


def _with_all_labels(function: Callable[..., float]) -> Scorer:
    """The function of scikit-learn, told of labels that no example may have."""

    def score(labels: np.ndarray, probabilities: np.ndarray) -> float:
        n_labels = probabilities.shape[1]
        given = probabilities[:, 1] if n_labels == 2 and "brier" in function.__name__ else probabilities
        return function(labels, given, labels=np.arange(n_labels))

    return score


def _average_precision(labels: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    counted = (1,) if probabilities.shape[1] == 2 else np.unique(labels)
    return float(np.mean([average_precision_score(labels == c, probabilities[:, c]) for c in counted]))


def _binary_roc_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else 0.5


def _roc_auc_ovr(labels: np.ndarray, probabilities: np.ndarray, weighted: bool = False) -> float:
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) < 2:
        return 0.0
    values = [_binary_roc_auc(labels == c, probabilities[:, c]) for c in names]
    return float(np.average(values, weights=sizes if weighted else None))


def _roc_auc_ovo(labels: np.ndarray, probabilities: np.ndarray, weighted: bool = False) -> float:
    names, values, sizes = np.unique(labels), list[float](), list[int]()
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            rows = np.isin(labels, (one, two))
            pair = [_binary_roc_auc(labels[rows] == c, probabilities[rows, c]) for c in (one, two)]
            values.append(float(np.mean(pair)))
            sizes.append(int(rows.sum()))
    return float(np.average(values, weights=sizes if weighted else None)) if values else 0.0
