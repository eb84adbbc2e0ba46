"""Logistic regressions for texts that can have several labels."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from src.core.task import decided


class OneVsRest(ClassifierMixin, BaseEstimator):
    """A logistic regression for each label, with a weight of its own for the texts that have the label.

    scikit-learn's OneVsRestClassifier has the same weights for every label.

    Args:
        regression: an unfitted LogisticRegression.
        weights: how much more texts with the label count, [n_labels]; None: they count alike.
    """

    def __init__(self, regression: LogisticRegression, weights: np.ndarray | None = None) -> None:
        self.regression, self.weights = regression, weights

    def fit(self, features: Any, labels: np.ndarray) -> "OneVsRest":
        """Fit to features [n_texts, n_features] and labels of 0 and 1, [n_texts, n_labels]."""
        weights = np.ones(labels.shape[1]) if self.weights is None else self.weights
        self.fitted_ = [
            clone(self.regression).set_params(class_weight={0: 1.0, 1: weight}).fit(features, column)
            if len(np.unique(column)) > 1
            else DummyClassifier(strategy="prior").fit(features, column)
            for column, weight in zip(labels.T, weights, strict=True)
        ]
        self.classes_ = np.arange(labels.shape[1])
        return self

    def predict_proba(self, features: Any) -> np.ndarray:
        """The probability of each label, [n_texts, n_labels]."""
        return np.stack([_of_having(fitted, features) for fitted in self.fitted_], axis=1)

    def predict(self, features: Any) -> np.ndarray:
        """The labels as 0 and 1, [n_texts, n_labels]."""
        return decided(self.predict_proba(features), several=True).astype(np.int64)


def _of_having(fitted: Any, features: Any) -> np.ndarray:
    """The probability of having the label, [n_texts]; of one that no or every text of train has, 0 or 1."""
    if len(fitted.classes_) == 1:
        return np.full(features.shape[0], float(fitted.classes_[0]))
    return np.asarray(fitted.predict_proba(features)[:, 1])
