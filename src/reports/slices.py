"""The slices of a split that errors are looked at by: by length, and by further columns of the source."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from src.core.texts import TEXT, TEXT_PAIR, joined, texts_of

SLICE_VALUES = 20  # a column with more values is not sliced
MIN_SLICE_EXAMPLES = 5  # fewest examples of a slice: from fewer, predictions on single test examples could be inferred
MAX_NAME_LENGTH = 60  # characters of a slice's name
MISSING = "(none)"
LENGTH_PARTS = 4


def slice_columns(frame: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Slices by number of words, then by every extra column with few values of which none is rare.

    Yields the column, the value, and which rows have it, as truth values [n_examples].
    """
    words = pd.Series([len(joined(text).split()) for text in texts_of(frame)], index=frame.index)
    columns = {"words": _length_quartiles(words)}
    for name in frame.columns.difference([TEXT, TEXT_PAIR, "label", "row"], sort=False):
        if (values := _categories(frame[name])) is not None:
            columns["column words" if name == "words" else str(name)] = values
    for name, values in columns.items():
        for value in values.cat.categories:
            selected = (values == value).to_numpy()
            if selected.any():
                yield name, str(value), selected


def _categories(column: pd.Series) -> pd.Series | None:
    """A column's values as names; None if there are too many, or if one has too few examples."""
    names = column.map(lambda v: _short(v) if pd.api.types.is_scalar(v) and pd.notna(v) else None)
    if any(not pd.api.types.is_scalar(v) for v in column):
        return None
    categories = names.astype(object).where(names.notna(), MISSING).astype("category")
    counts = categories.value_counts()
    return categories if 2 <= len(counts) <= SLICE_VALUES and counts.min() >= MIN_SLICE_EXAMPLES else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_NAME_LENGTH else f"{text[: MAX_NAME_LENGTH - 3]}..."


def _length_quartiles(words: pd.Series) -> pd.Series:
    """Four parts of about equal size, named by their bounds; fewer if many texts have the same length."""
    bounds = sorted({int(words.quantile(q / LENGTH_PARTS)) for q in range(1, LENGTH_PARTS)} - {int(words.max())})
    names, low = [], int(words.min())
    for high in [*bounds, int(words.max())]:
        names.append(str(low) if low == high else f"{low} to {high}")
        low = high + 1
    return pd.cut(words, [-np.inf, *bounds, np.inf], labels=names)
