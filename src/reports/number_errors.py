"""Analyses the errors of predicted numbers: where they lie, in which slices they are large, and the largest ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.core.task import labels_of
from src.core.texts import shown, texts_of
from src.reports.slices import MIN_SLICE_EXAMPLES, slice_columns

CELLS = 12  # of a scatter, in each direction
SHOWN_ERRORS = 100


@dataclass(frozen=True)
class NumberSlice:
    """The examples with one value of one column."""

    column: str
    value: str
    examples: int
    mae: float
    low: float  # 95 % interval (Student's t)
    high: float
    baseline: float | None  # mae of the best baseline on the same examples


@dataclass(frozen=True)
class Cell:
    """The examples whose true and predicted numbers are near these, which are their means."""

    true: float
    predicted: float
    examples: int


@dataclass(frozen=True)
class LargeError:
    """An example with a large error. Never one of the test split, since people read these."""

    row: int  # in the source
    text: str  # of a pair both, with a bar between them
    true: float
    predicted: float


@dataclass(frozen=True)
class NumberErrors:
    """The errors of one set of weights on one split."""

    mae: float
    bias: float  # the mean of predicted less true numbers
    cells: tuple[Cell, ...]  # on test without those of few examples, so that no single prediction is seen
    slices: tuple[NumberSlice, ...]
    largest: tuple[LargeError, ...]  # the largest first; empty for the test split


def analyze_numbers(
    split: str, frame: pd.DataFrame, predicted: np.ndarray, baseline: np.ndarray | None
) -> NumberErrors:
    """Analyse predicted numbers.

    Args:
        split: of the examples.
        frame: columns text, text_pair (of pairs), label, row and extra ones.
        predicted: [n_examples].
        baseline: what the best baseline predicts, [n_examples], to compare slices with.
    """
    true = labels_of(frame)
    off = np.abs(predicted - true)
    others = None if baseline is None else np.abs(baseline - true)
    return NumberErrors(
        mae=float(off.mean()),
        bias=float((predicted - true).mean()),
        cells=tuple(_cells(true, predicted, MIN_SLICE_EXAMPLES if split == "test" else 1)),
        slices=tuple(_slices(frame, off, others)),
        largest=() if split == "test" else tuple(_largest(frame, predicted, off)),
    )


def _cells(true: np.ndarray, predicted: np.ndarray, least: int) -> Iterator[Cell]:
    """The cells of a grid with at least so many examples."""
    row, column = (
        np.digitize(each, np.linspace(each.min(), each.max(), CELLS + 1)[1:-1]) for each in (true, predicted)
    )
    for _, found in pd.DataFrame({"true": true, "predicted": predicted}).groupby([row, column]):
        if len(found) >= least:
            yield Cell(float(found["true"].mean()), float(found["predicted"].mean()), len(found))


def _slices(frame: pd.DataFrame, off: np.ndarray, others: np.ndarray | None) -> Iterator[NumberSlice]:
    from scipy.stats import t

    for name, value, selected in slice_columns(frame):
        errors, n = off[selected], int(selected.sum())
        reach = float(t.ppf(0.975, n - 1)) * float(errors.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
        mae, baseline = float(errors.mean()), None if others is None else float(others[selected].mean())
        yield NumberSlice(name, value, n, mae, max(0.0, mae - reach), mae + reach, baseline)


def _largest(frame: pd.DataFrame, predicted: np.ndarray, off: np.ndarray) -> Iterator[LargeError]:
    true, texts = labels_of(frame), texts_of(frame)
    for i in np.argsort(-off, kind="stable")[:SHOWN_ERRORS]:
        yield LargeError(int(frame["row"].iloc[i]), shown(texts[i]), float(true[i]), float(predicted[i]))
