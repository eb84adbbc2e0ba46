"""Baselines of your own code: what they predict, checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from src.core import own_code
from src.core.errors import InvalidInput
from src.core.own_code import OwnBaseline
from src.core.task import REGRESSION, SINGLE_LABEL, are_numbers, kind_of, labels_of, present
from src.core.texts import Text, texts_of

FEW_OF_EACH = 50  # training texts of each label in a trial


class OwnClassifier:
    """A fitted baseline of your own, with the predict_proba of a classifier of scikit-learn, or predict of numbers."""

    def __init__(self, name: str, texts: Sequence[Text], labels: np.ndarray, n_labels: int) -> None:
        """Fit it.

        Args:
            name: in settings.
            texts: to learn from.
            labels: of the texts, [n_texts] or, of several labels, [n_texts, n_labels].
            n_labels: of the data.

        Raises:
            InvalidInput: it is not loaded, raises an error, or returns no function.
        """
        self.name, self.classes_ = name, np.arange(n_labels)
        self.kind = kind_of(labels)
        self.predicts_numbers = self.kind == REGRESSION
        self.predictor: Any = own_code.call(name, own_code.find(name, OwnBaseline).function, list(texts), labels)
        if not callable(self.predictor):
            raise InvalidInput(
                f"{name} returned {own_code.shown(self.predictor)}; a baseline returns a function from a list of texts "
                "to probabilities (of a regression, to numbers), such as the predict_proba of a fitted model."
            )

    def predict(self, texts: Sequence[Text]) -> np.ndarray:
        """Numbers, [n_texts]. Raises InvalidInput if it predicts anything else."""
        predicted = own_code.call(self.name, self.predictor, list(texts))
        try:
            numbers = np.asarray(predicted, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.zeros(())
        if numbers.shape != (len(texts),) or not np.isfinite(numbers).all():
            raise InvalidInput(
                f"{self.name} predicted {own_code.shown(predicted)} for {len(texts)} texts; it predicts an array of "
                "numbers, one per text."
            )
        return numbers

    def predict_proba(self, texts: Sequence[Text]) -> np.ndarray:
        """Probabilities, [n_texts, n_labels]. Raises InvalidInput if it predicts anything else."""
        predicted, n_labels = own_code.call(self.name, self.predictor, list(texts)), len(self.classes_)
        try:
            probabilities = np.asarray(predicted, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidInput(
                f"{self.name} predicted {own_code.shown(predicted)}; it predicts an array of probabilities."
            ) from None
        if probabilities.shape != (len(texts), n_labels):
            shape = " by ".join(map(str, probabilities.shape)) or "one number"
            raise InvalidInput(
                f"{self.name} predicted an array of {shape} for {len(texts)} texts; it predicts a probability per text "
                f"and label, {len(texts)} by {n_labels}, in the order of the data's labels."
            )
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise InvalidInput(
                f"{self.name} predicted numbers from {probabilities.min():g} to {probabilities.max():g}; probabilities "
                "are from 0 to 1."
            )
        if self.kind == SINGLE_LABEL and not np.allclose(probabilities.sum(axis=1), 1, atol=0.01):
            sums = probabilities.sum(axis=1)
            raise InvalidInput(
                f"{self.name} predicted probabilities that add up to {sums.min():g} to {sums.max():g} for a text; "
                "where each text has one label they add up to 1."
            )
        return probabilities


def try_baseline(name: str, train: pd.DataFrame, n_labels: int) -> None:
    """Fit a baseline of your own on some training texts of each label, and let it predict a few.

    Args:
        name: in settings.
        train: columns text, text_pair (of pairs), label.
        n_labels: of the data.

    Raises:
        InvalidInput: see OwnClassifier.
    """
    labels = labels_of(train)
    if are_numbers(labels):
        some = train[:FEW_OF_EACH]
    else:
        of_each = [np.flatnonzero(of_label)[:FEW_OF_EACH] for of_label in present(labels, n_labels).T]
        some = train.iloc[np.unique(np.concatenate(of_each))]
    fitted = OwnClassifier(name, texts_of(some), labels_of(some), n_labels)
    predict = fitted.predict if fitted.predicts_numbers else fitted.predict_proba
    predict(texts_of(some)[:FEW_OF_EACH])
    predict(texts_of(some)[:1])
