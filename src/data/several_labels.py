"""Labels of texts that can have several: lists, words with a separator between them, or columns of 0 and 1."""

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from src.config.settings import DataSettings
from src.core.errors import InvalidInput
from src.data.labels import Labels, find_labels, word

YES, NO = ("1", "true"), ("0", "false")  # how a cell of a column of 0 and 1 is written, in small letters
Words = list[tuple[str, ...]]  # of each row, the labels as the source writes them, each once


def read_labels(
    frames: Mapping[str, pd.DataFrame], data: DataSettings, class_names: tuple[str, ...], where: str
) -> tuple[Labels, dict[str, list[list[int]]]]:
    """The labels of a source, and for each split and row 0 or 1 for each of them.

    Args:
        frames: split -> rows, whose label cells are as they were read.
        data: says how labels are written, and their names.
        class_names: the names that the source itself gives to indices in a list; empty if it gives none.
        where: the source, in words.

    Raises:
        InvalidInput: a cell that has no labels in it, or labels that are none (see find_labels).
    """
    words = {
        split: _words(frame, data, class_names, f"the {split} split of {where}") for split, frame in frames.items()
    }
    if len(data.label_columns) > 1:
        labels = _of_columns(data)
    else:
        every = {
            split: pd.Series([label for row in rows for label in row], dtype=object) for split, rows in words.items()
        }
        labels = find_labels(every, data, class_names, where)
    if len(labels.names) < 2:
        raise InvalidInput(
            f"{where} has one label, {labels.names[0]!r}, and data.task is multi_label, which is for several. To have "
            "a label or not to have it are two labels: give each text one of them."
        )
    index = {value: i for i, value in enumerate(labels.values)}
    for split, rows in words.items():
        for number, row in enumerate(rows, start=1):
            if unknown := [label for label in row if label not in index]:
                raise InvalidInput(
                    f"Row {number} of the {split} split of {where} has the label {unknown[0]!r}, which is none of "
                    f"{', '.join(labels.names)}."
                )
    return labels, {split: [_row({index[w] for w in row}, len(index)) for row in rows] for split, rows in words.items()}


def _row(has: set[int], n_labels: int) -> list[int]:
    return [int(i in has) for i in range(n_labels)]


def _of_columns(data: DataSettings) -> Labels:
    given, columns = data.label_names, data.label_columns
    if isinstance(given, dict):
        if unknown := [name for name in given if name not in columns]:
            raise InvalidInput(
                f"data.label_names names {unknown[0]!r}, which is no column of data.label_column: {', '.join(columns)}."
            )
        return Labels(tuple(given.get(column, column) for column in columns), columns)
    return Labels(tuple(given) if given else columns, columns)


def _words(frame: pd.DataFrame, data: DataSettings, class_names: tuple[str, ...], where: str) -> Words:
    if len(data.label_columns) > 1:
        flags = [_flags(frame[column], column, where) for column in data.label_columns]
        return [
            tuple(c for c, has in zip(data.label_columns, row, strict=True) if has) for row in zip(*flags, strict=True)
        ]
    (column,) = data.label_columns
    return [
        tuple(dict.fromkeys(_words_of(cell, data, class_names, f"row {number} of {where}")))
        for number, cell in enumerate(frame[column], start=1)
    ]


def _flags(cells: pd.Series, column: str, where: str) -> list[bool]:
    flags = []
    for number, cell in enumerate(cells, start=1):
        text = "" if cell is None else cell.strip().lower().removesuffix(".0")
        if text not in (*YES, *NO):
            found = "no value" if not text else repr(cell[:40])
            raise InvalidInput(
                f"data.label_column names {column!r}, and row {number} of {where} has {found} there; a column of one "
                "label has 1 for texts that have it, and 0 for others."
            )
        flags.append(text in YES)
    return flags


def _words_of(cell: str | None, data: DataSettings, class_names: Sequence[str], where: str) -> list[str]:
    text = (cell or "").strip()
    if not text:
        return []
    if data.label_separator is not None:
        return [label for part in text.split(data.label_separator) if (label := word(part))]
    try:
        items = json.loads(text)
    except json.JSONDecodeError:
        items = None
    if not isinstance(items, list) or any(isinstance(item, (list, dict)) or item is None for item in items):
        raise InvalidInput(
            f"data.task is multi_label, and {where} has {text[:80]!r} for its labels, which is no list of labels. If "
            "they are words in one cell, say what is between them, such as 'data.label_separator=\",\"'; if each "
            "label has a column of 0 and 1, name the columns: 'data.label_column=[toxic,insult]'."
        )
    labels = [word(item if isinstance(item, str) else json.dumps(item)) for item in items]
    return [
        class_names[int(label)] if label.isdecimal() and int(label) < len(class_names) else label for label in labels
    ]
