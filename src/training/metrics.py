"""Classification metrics as local evaluate.Metric modules over scikit-learn: no Hub, no scripts.

Importing this imports evaluate, and with it torch and transformers (seconds): do so inside functions.
"""

from functools import lru_cache
from typing import Any

import datasets
import evaluate
import numpy as np

DESCRIPTION = "scikit-learn's {name}, average={average}, zero_division=0."


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


def compute_metrics(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Metrics of `logits` [n_examples, n_labels] (or scores that order the labels) against `labels` [n_examples].

    Two labels: f1, precision and recall of label 1. More: their macro averages, named f1_macro and so on.
    """
    computed: dict[str, Any] = _combined_metrics(logits.shape[1]).compute(
        predictions=logits.argmax(axis=1), references=labels
    )
    return {name: float(value) for name, value in computed.items()}
