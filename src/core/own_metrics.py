"""Scores by metrics of your own code, and their trial before a study begins."""

import math

import numpy as np

from src.core import own_code
from src.core.errors import InvalidInput
from src.core.formatting import plural
from src.core.metric import PREDICTED, RESPONSES
from src.core.own_code import OwnMetric
from src.core.task import are_numbers, decided, has_several, present

FEW = 200  # examples of a trial
RARE = (0, 1, 2, 3)  # of them that have a label, in further trials: draws of a rare label have as few


def score(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The value of a metric of your own.

    Args:
        name: in settings.
        labels: [n_examples] or, of several labels, [n_examples, n_labels]; floats of a regression.
        probabilities: [n_examples, n_labels]; of a regression the predicted numbers, [n_examples, 1].

    Raises:
        InvalidInput: it is not loaded, raises an error, or returns something else than a number in its range.
    """
    own, several = own_code.find(name, OwnMetric), has_several(labels)
    if are_numbers(labels):
        answers = probabilities[:, 0]
    else:
        labels = labels.astype(np.int64)  # several labels are floats in a training
        answers = probabilities
        if RESPONSES[own.response_method] == PREDICTED:
            answers = decided(probabilities, several).astype(np.int64) if several else probabilities.argmax(axis=1)
    value = own_code.call(name, own.function, labels, answers)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} returned {own_code.shown(value)}; a metric returns one number.") from None
    if not math.isfinite(number) or not own.low <= number <= own.high:
        raise InvalidInput(
            f"{name} returned {number:g} for {plural(len(labels), 'text')}, and it declares values from {own.low:g} to "
            f"{own.high:g}. Let it return such a number for any texts, also where none of them has some label, or "
            "declare another range."
        )
    return number


def score_draws(name: str, labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The value for every draw and seed, [n_draws, n_seeds]. Raises InvalidInput as `score` does.

    Args:
        name: in settings.
        labels: [n_examples] or [n_examples, n_labels].
        probabilities: [n_seeds, n_examples, n_labels].
        counts: how often each draw holds each example, [n_draws, n_examples].
    """
    rows = [np.repeat(np.arange(len(labels)), row.astype(np.int64)) for row in counts]
    return np.array([[score(name, labels[each], of_seed[each]) for of_seed in probabilities] for each in rows])


def try_metric(name: str, labels: np.ndarray, n_labels: int) -> None:
    """Compute a metric of your own for made-up answers: right, wrong and random ones, and for few texts of some label.

    Args:
        name: in settings.
        labels: of texts, [n_examples] or [n_examples, n_labels], of which some are taken.
        n_labels: of the data.

    Raises:
        InvalidInput: see `score`.
    """
    labels = labels[np.random.default_rng(0).permutation(len(labels))[:FEW]]
    if are_numbers(labels):
        for predicted in (labels, labels[::-1], np.full_like(labels, labels.mean())):
            score(name, labels, predicted[:, None])
        score(name, labels[:1], labels[1:2, None])
        return
    true = present(labels, n_labels)
    random = np.random.default_rng(0).random(true.shape)
    if not has_several(labels):
        random /= random.sum(axis=1, keepdims=True)
    wrong = 1 - true if has_several(labels) else np.roll(true, 1, axis=1)
    for probabilities in (true.astype(float), wrong.astype(float), random):
        score(name, labels, probabilities)
    split = [(np.flatnonzero(of_label), np.flatnonzero(~of_label)) for of_label in true.T]
    few = [np.concatenate([others, has[:n]]) for has, others in split for n in RARE]
    for rows in (*few, *(each[:1] for pair in split for each in pair)):
        if len(rows):
            score(name, labels[rows], random[rows])
