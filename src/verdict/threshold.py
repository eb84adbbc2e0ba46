"""The decision threshold of a classifier with two labels: from which probability on it answers label 1.

A threshold is not kept beside a model but in it: probabilities are shifted so that the threshold becomes 0.5. Whatever
answers with the more probable label, such as a pipeline of transformers, then needs to know nothing of it.
"""

import numpy as np

from src.core.metric import METRICS, PREDICTED
from src.verdict import estimates

PLAIN = 0.5
MAX_CANDIDATES = 200
LEAST, MOST = 1e-4, 1 - 1e-4  # of a threshold


def deciding_metric(metric: str) -> str:
    """The metric that a threshold is chosen by: the study's, or f1 if that does not depend on predicted labels.

    All metrics of predicted labels are maximized.
    """
    return metric if METRICS[metric].reads == PREDICTED else "f1"


def choose_threshold(labels: np.ndarray, probabilities: np.ndarray, metric: str) -> float:
    """The threshold with the best mean of a metric over seeds; of equally good ones, the nearest to 0.5.

    Args:
        labels: of the validation split, [n_examples].
        probabilities: of two labels, [n_seeds, n_examples, 2].
        metric: the study's.
    """
    decided_by = deciding_metric(metric)
    values = np.unique(probabilities[..., 1].astype(np.float64))
    between = (values[1:] + values[:-1]) / 2
    if len(between) > MAX_CANDIDATES:
        between = np.quantile(between, np.linspace(0, 1, MAX_CANDIDATES))
    candidates = np.clip([PLAIN, *sorted(between, key=lambda value: abs(value - PLAIN))], LEAST, MOST)
    scores = [
        estimates.metrics_per_seed(labels, with_threshold(probabilities, t), decided_by)[decided_by].mean()
        for t in candidates
    ]
    return float(candidates[int(np.argmax(scores))])  # the first of equals


def with_threshold(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """The probabilities of a model that has the threshold in it: above 0.5 where they were above the threshold.

    Args:
        probabilities: of two labels, [..., 2].
        threshold: of label 1; None changes nothing.
    """
    if threshold is None:
        return probabilities
    odds = probabilities.astype(np.float64) * np.array([threshold, 1 - threshold])
    shifted: np.ndarray = odds / odds.sum(axis=-1, keepdims=True)
    return shifted.astype(probabilities.dtype)
