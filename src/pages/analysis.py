"""Where a classifier errs: confusion, slices, calibration, and the errors it was surest of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

BINS = 10  # of the reliability figure
SLICE_VALUES = 20  # a column with more values than this is no slice
FEWEST = 5  # examples of a slice; of fewer, single answers on the test split could be read off
LONGEST = 60  # characters of a slice's name
MISSING = "(none)"
LENGTH_PARTS = 4
SHOWN_ERRORS = 100


@dataclass(frozen=True)
class Slice:
    """The examples with one value of one column."""

    column: str
    value: str
    examples: int
    accuracy: float
    low: float  # 95 % interval, Wilson's
    high: float
    baseline: float | None  # accuracy of the best baseline on the same examples


@dataclass(frozen=True)
class Bin:
    """The examples whose likeliest label had a chance in (low, high]."""

    low: float
    high: float
    examples: int
    confidence: float  # mean chance of the likeliest label
    accuracy: float


@dataclass(frozen=True)
class Wrong:
    """An example that was classified wrongly. Never one of the test split: people read these."""

    row: int  # in the source
    text: str
    label: str
    predicted: str
    chance: float


@dataclass(frozen=True)
class Analysis:
    """All of it, for one set of weights on one split."""

    split: str
    examples: int
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][predicted]
    calibration_error: float
    bins: tuple[Bin, ...]
    slices: tuple[Slice, ...]
    wrong: tuple[Wrong, ...]  # the surest first; empty for the test split

    @property
    def errors(self) -> int:
        return sum(n for i, row in enumerate(self.confusion) for j, n in enumerate(row) if i != j)

    @property
    def accuracy(self) -> float:
        return 1 - self.errors / self.examples


def analyse(
    split: str, frame: pd.DataFrame, chances: np.ndarray, names: tuple[str, ...], baseline: np.ndarray | None = None
) -> Analysis:
    """`frame`: text, label, row and extra columns; `chances` and the best baseline's: [n_examples, n_labels]."""
    from sklearn.metrics import confusion_matrix

    labels, picked = frame["label"].to_numpy(), chances.argmax(axis=1)
    right = picked == labels
    others = None if baseline is None else baseline.argmax(axis=1) == labels
    confusion = confusion_matrix(labels, picked, labels=range(len(names)))
    bins = tuple(_bins(chances.max(axis=1), right))
    return Analysis(
        split=split,
        examples=len(frame),
        labels=names,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        calibration_error=sum(b.examples * abs(b.accuracy - b.confidence) for b in bins) / len(frame),
        bins=bins,
        slices=tuple(_slices(frame, right, others)),
        wrong=() if split == "test" else tuple(_wrong(frame, chances, names)),
    )


def _bins(sure: np.ndarray, right: np.ndarray) -> Iterator[Bin]:
    """Ten bins of equal width; Guo et al. 2017, On Calibration of Modern Neural Networks, for the error over them."""
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.digitize(sure, edges, right=True) - 1, 0, BINS - 1)
    for i in range(BINS):
        mine = place == i
        if mine.any():
            yield Bin(float(edges[i]), float(edges[i + 1]), int(mine.sum()), float(sure[mine].mean()),
                      float(right[mine].mean()))  # fmt: skip


def _slices(frame: pd.DataFrame, right: np.ndarray, others: np.ndarray | None) -> Iterator[Slice]:
    """By number of words, then by every extra column with few values, none of them rare."""
    words = frame["text"].map(lambda text: len(text.split()))
    columns = {"words": _parts(words)}
    for name in frame.columns.difference(["text", "label", "row"], sort=False):
        if (values := _values(frame[name])) is not None:
            columns["column words" if name == "words" else str(name)] = values
    for name, values in columns.items():
        for value in values.cat.categories:
            mine = (values == value).to_numpy()
            if mine.any():
                yield _slice(name, str(value), right[mine], None if others is None else others[mine])


def _values(column: pd.Series) -> pd.Series | None:
    """A column as a few names; None where it has too many, or one that would show single examples."""
    names = column.map(lambda v: _short(v) if pd.api.types.is_scalar(v) and pd.notna(v) else None)
    if any(not pd.api.types.is_scalar(v) for v in column):
        return None
    found = names.astype(object).where(names.notna(), MISSING).astype("category")
    counts = found.value_counts()
    return found if 2 <= len(counts) <= SLICE_VALUES and counts.min() >= FEWEST else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _slice(column: str, value: str, right: np.ndarray, others: np.ndarray | None) -> Slice:
    from scipy.stats import binomtest

    found = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    baseline = None if others is None else float(others.mean())
    return Slice(column, value, len(right), float(right.mean()), float(found.low), float(found.high), baseline)


def _parts(words: pd.Series) -> pd.Series:
    """Four parts of about the same size, named by their bounds; fewer where many texts are equally long."""
    bounds = sorted({int(words.quantile(q / LENGTH_PARTS)) for q in range(1, LENGTH_PARTS)} - {int(words.max())})
    names, low = [], int(words.min())
    for high in [*bounds, int(words.max())]:
        names.append(str(low) if low == high else f"{low} to {high}")
        low = high + 1
    return pd.cut(words, [-np.inf, *bounds, np.inf], labels=names)


def _wrong(frame: pd.DataFrame, chances: np.ndarray, names: tuple[str, ...]) -> Iterator[Wrong]:
    picked, sure = chances.argmax(axis=1), chances.max(axis=1)
    labels = frame["label"].to_numpy()
    errors = np.flatnonzero(picked != labels)
    for i in errors[np.argsort(-sure[errors], kind="stable")][:SHOWN_ERRORS]:
        row = frame.iloc[i]
        yield Wrong(int(row["row"]), str(row["text"]), names[labels[i]], names[picked[i]], float(sure[i]))
