"""The decision threshold of a classifier: from which probability on it answers a label.

It is for label 1 of two, or for each label of texts that can have several: one for all labels, or one per label.

A threshold is not kept beside a model but in it: probabilities are shifted so that the threshold becomes 0.5. Whatever
answers with the more probable label, or with the labels above 0.5, such as a pipeline of transformers, then needs to
know nothing of it.
"""

import numpy as np

from src.core.metric import METRICS, PREDICTED, direction_of, gain
from src.core.task import Threshold, has_several
from src.verdict import estimates

PLAIN = 0.5
MAX_CANDIDATES = 200
LEAST, MOST = 1e-4, 1 - 1e-4  # of a threshold


def deciding_metric(metric: str, several: bool = False) -> str:
    """The metric that a threshold is chosen by: the study's, or F1 if that does not depend on predicted labels."""
    return metric if METRICS[metric].reads == PREDICTED else "f1_micro" if several else "f1"


def choose_threshold(labels: np.ndarray, probabilities: np.ndarray, metric: str, per_label: bool = False) -> Threshold:
    """The threshold with the best mean of a metric over seeds; of equally good ones, the nearest to 0.5.

    Args:
        labels: of the validation split, [n_examples] of two labels, or [n_examples, n_labels].
        probabilities: [n_seeds, n_examples, n_labels].
        metric: the study's.
        per_label: choose one for each label, by the F1 of that label alone.
    """
    if per_label:
        each = (np.stack([1 - p, p], axis=-1) for p in np.moveaxis(probabilities, -1, 0))
        return tuple(_best(labels[:, i], p, p[..., 1], "f1") for i, p in enumerate(each))
    several = has_several(labels)
    of_labels = probabilities if several else probabilities[..., 1]
    return _best(labels, probabilities, of_labels, deciding_metric(metric, several))


def with_threshold(probabilities: np.ndarray, threshold: Threshold | None, several: bool = False) -> np.ndarray:
    """The probabilities of a model that has the threshold in it: above 0.5 where they were above the threshold.

    Args:
        probabilities: of two labels, [..., 2]; of several [..., n_labels].
        threshold: of label 1, or of every label; None changes nothing.
        several: whether a text can have several labels.
    """
    if threshold is None:
        return probabilities
    t = np.asarray(threshold, dtype=np.float64)
    if several:
        with_label = probabilities.astype(np.float64) * (1 - t)
        return np.asarray(with_label / (with_label + (1 - probabilities) * t)).astype(probabilities.dtype)
    odds = probabilities.astype(np.float64) * np.array([t, 1 - t])
    shifted: np.ndarray = odds / odds.sum(axis=-1, keepdims=True)
    return shifted.astype(probabilities.dtype)


def _best(labels: np.ndarray, probabilities: np.ndarray, of_labels: np.ndarray, metric: str) -> float:
    """The best threshold between two of the probabilities `of_labels`, in any shape."""
    values = np.unique(of_labels.astype(np.float64))
    between = (values[1:] + values[:-1]) / 2
    if len(between) > MAX_CANDIDATES:
        between = np.quantile(between, np.linspace(0, 1, MAX_CANDIDATES))
    candidates = np.clip([PLAIN, *sorted(between, key=lambda value: abs(value - PLAIN))], LEAST, MOST)
    several, gains = has_several(labels), list[float]()
    for t in candidates:
        scores = estimates.metrics_per_seed(labels, with_threshold(probabilities, t, several), metric)[metric]
        gains.append(gain(float(scores.mean()), direction_of(metric)))
    return float(candidates[int(np.argmax(gains))])  # the first of equals
