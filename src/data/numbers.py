"""The numbers that texts have in a regression."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from src.config.settings import DataSettings
from src.core.errors import InvalidInput

STRATA = 10  # of equal size, by which samples are stratified
SHOWN = 5  # rows in a message


def read_numbers(frames: Mapping[str, pd.DataFrame], data: DataSettings, where: str) -> dict[str, np.ndarray]:
    """The number of each row, [n_rows], by split.

    Args:
        frames: split -> rows, whose cells are text.
        data: names the column.
        where: the source, in words.

    Raises:
        InvalidInput: a cell has no finite number.
    """
    (column,) = data.label_columns
    numbers = {split: np.array([_number(cell) for cell in frame[column]]) for split, frame in frames.items()}
    for split, of_split in numbers.items():
        wrong = np.flatnonzero(~np.isfinite(of_split))
        if len(wrong):
            cells = frames[split][column]
            rows = ", ".join(f"{cells.iloc[i][:40]!r} in row {i + 1}" for i in wrong[:SHOWN])
            raise InvalidInput(
                f"data.task is regression, and the {split} split of {where} has {len(wrong)} rows whose {column!r} is "
                f"no number: {rows}{' ...' if len(wrong) > SHOWN else ''}. Write numbers as 3, 3.5 or 1e-3, or name "
                "another column: data.label_column=<name>."
            )
    return numbers


def strata(numbers: pd.Series) -> pd.Series:
    """Parts of about equal size, the smallest numbers first, by which a sample can be stratified."""
    ranks = numbers.rank(method="first")
    return pd.qcut(ranks, min(STRATA, max(1, len(numbers) // 2)), labels=False)


def describe(numbers: np.ndarray) -> str:
    """The range and spread of numbers, in words."""
    return f"{numbers.min():g} to {numbers.max():g}, mean {numbers.mean():.4g}, standard deviation {numbers.std():.4g}"


def _number(cell: str) -> float:
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan
