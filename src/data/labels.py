"""Finds the labels' names and what the source writes for each: by name, or by position where nothing else is said."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.config.settings import DataSettings
from src.core.errors import InvalidInput

HIDDEN_LABEL = "-1"  # the label of examples whose true label is secret, on GLUE and the Hub
WHOLE_NUMBER = re.compile(r"\d+(\.0+)?")
SHOWN = 10  # values or names in a message
MAX_DERIVED = 20  # more different values than this, in more than half of the rows, are no labels


@dataclass(frozen=True)
class Labels:
    """The labels of a data set, by label index."""

    names: tuple[str, ...]
    values: tuple[str, ...]  # what the source writes for each
    remarks: tuple[str, ...] = ()

    def indices(self, column: pd.Series) -> np.ndarray:
        """The label index of each cell, [n_examples]."""
        index = {value: i for i, value in enumerate(self.values)}
        return column.map(word).map(index).astype(int).to_numpy()


def word(cell: str) -> str:
    """A label as it is compared: without blanks round it, in Unicode's composed form."""
    return unicodedata.normalize("NFC", cell.strip())


def find_labels(
    columns: Mapping[str, pd.Series], data: DataSettings, class_names: tuple[str, ...] = (), where: str = ""
) -> Labels:
    """The labels of a source.

    Args:
        columns: split -> label cells, as text.
        data: whose label_names is a list of names, a mapping from the source's value to the name, or None: the names
            are then the source's.
        class_names: the names that the source itself gives, by index; empty if it gives none.
        where: the source, in words.

    Raises:
        InvalidInput: values that are no label, names that no row has, labels that train lacks.
    """
    values = {split: column.map(word).value_counts() for split, column in columns.items()}
    if data.label_names is None:
        return _derived(values, data, class_names, where)
    return _given(values, data, class_names, where)


def _derived(values: Mapping[str, pd.Series], data: DataSettings, class_names: tuple[str, ...], where: str) -> Labels:
    every = list(dict.fromkeys(value for counts in values.values() for value in counts.index))
    _refuse_hidden(values, {*class_names, *(v for v in values["train"].index if len(values["train"]) > 1)}, where)
    names = list(class_names) or natural_order(every)
    n_rows = int(sum(counts.sum() for counts in values.values()))
    if not class_names and len(names) > max(MAX_DERIVED, n_rows / 2):
        are_numbers = all(_as_number(name) is not None for name in names)
        numbers = " If they are numbers to predict, type data.task=regression." if are_numbers else ""
        raise InvalidInput(
            f"data.label_column is {data.label_column!r}, and {where} has {len(names)} different values in {n_rows} "
            f"rows there, such as {_listed(names[:3])}. Is it another column that has the labels?{numbers}"
        )
    missing = [value for value in every if value not in values["train"].index]
    if missing and not class_names:
        raise InvalidInput(
            f"{where} has {_listed(missing)} among the labels of {_where(missing[0], values)}, and no row of train has "
            f"it. If it is meant as a label, name all labels: {typed_names(names)}."
        )
    return Labels(tuple(names), tuple(names))


def _given(values: Mapping[str, pd.Series], data: DataSettings, class_names: tuple[str, ...], where: str) -> Labels:
    assert data.label_names is not None
    given = data.label_names
    keys = [word(key) for key in given]
    names = [given[key] for key in given] if isinstance(given, dict) else list(given)
    every = list(dict.fromkeys(value for counts in values.values() for value in counts.index))
    index = _match(every, keys, names, class_names)
    if index is None:
        _refuse_hidden(values, {*keys, *names}, where)
        raise InvalidInput(_outside(values, every, keys, names, class_names, where))
    without = [names[i] for i in range(len(names)) if i not in index.values() and keys[i] not in class_names]
    if without:
        found = ", ".join(f"{value!r} ({names[i]})" for value, i in list(index.items())[:SHOWN])
        raise InvalidInput(
            f"data.label_names has {_listed(without)}, and no row of {where} has it: data.label_column "
            f"{data.label_column!r} has {found}. Name the labels that there are, in the order of these values."
        )
    value_of = {label: value for value, label in index.items()}
    values_by_label = tuple(value_of.get(label, key) for label, key in enumerate(keys))
    return Labels(tuple(names), values_by_label, tuple(_order_remarks(keys, class_names)))


def _match(
    every: Sequence[str], keys: Sequence[str], names: Sequence[str], class_names: tuple[str, ...]
) -> dict[str, int] | None:
    """Value -> label index; None if the values are neither names nor positions. One rule for all values."""
    for words in (keys, [word(name) for name in names]):
        for form in (str, str.casefold, _as_number):
            if (index := _one_to_one(every, words, form)) is not None:
                return index
    numbers_in_names = any(_as_number(name) is not None for name in (*keys, *names))
    if class_names or numbers_in_names or not all(WHOLE_NUMBER.fullmatch(value) for value in every):
        return None
    positions = {value: int(float(value)) for value in every}
    fits = max(positions.values(), default=0) < len(names) and len(set(positions.values())) == len(positions)
    return positions if fits else None


def _one_to_one(every: Sequence[str], words: Sequence[str], form: Callable[[str], object]) -> dict[str, int] | None:
    index = {form(text): i for i, text in enumerate(words)}
    forms = {value: form(value) for value in every}
    if len(index) < len(words) or len(set(forms.values())) < len(forms) or None in index:
        return None
    return {value: index[f] for value, f in forms.items()} if set(forms.values()) <= set(index) else None


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # nan and inf are words, and have no place in an order


def _refuse_hidden(values: Mapping[str, pd.Series], known: set[str], where: str) -> None:
    for split, counts in values.items():
        if HIDDEN_LABEL in counts.index and HIDDEN_LABEL not in known:
            leave_out = f"Leave the split out ('~data.splits.{split}'), or let" if split != "train" else "Let"
            raise InvalidInput(
                f"The {split} split of {where} has {int(counts[HIDDEN_LABEL])} hidden labels ({HIDDEN_LABEL}), from "
                f"which nothing can be learned. {leave_out} data.splits point to splits with labels, and data.carve "
                "say what to cut out of them."
            )


def _outside(
    values: Mapping[str, pd.Series],
    every: Sequence[str],
    keys: Sequence[str],
    names: Sequence[str],
    class_names: tuple[str, ...],
    where: str,
) -> str:
    """Why the values and the names do not go together, and what to type."""
    known = {key.casefold() for key in (*keys, *names)}
    unknown = [value for value in every if value.casefold() not in known] or list(every)
    n_rows = int(sum(counts.get(value, 0) for counts in values.values() for value in unknown))
    said = f"{where} has {n_rows} labels outside data.label_names: {_listed(unknown)}."
    if class_names:
        said += f" The file itself names its labels {_listed(class_names)}."
    own = natural_order(every)
    if len(own) > SHOWN:
        return f"{said} data.label_names is {_listed(names)}. Leave it out to take the labels as the file has them."
    is_renaming = len(own) == len(names) and not known & {value.casefold() for value in own}
    pairs = list(zip(class_names or own, names, strict=False))
    rename = f" To rename them: {typed_names(pairs)}." if is_renaming else ""
    return (
        f"{said} Allowed are {_listed(names)}, or their positions 0 to {len(names) - 1} where no name is a number. "
        f"Leave data.label_names out to take the labels as the file has them, or name "
        f"them so: {typed_names(own)}.{rename}"
    )


def _order_remarks(keys: Sequence[str], class_names: tuple[str, ...]) -> list[str]:
    if class_names and [k.casefold() for k in keys] != [c.casefold() for c in class_names]:
        return [
            f"the source numbers its labels {_listed(class_names)}; the order of data.label_names is used, and every "
            "label goes by its name"
        ]
    return []


def natural_order(values: Sequence[str]) -> list[str]:
    """The values in the order that a person would write them: numbers by size, 2 before 10, else alphabetically."""

    def key(value: str) -> tuple[object, ...]:
        parts = re.split(r"(\d+)", value.casefold())
        return tuple((1, 0, part) if i % 2 == 0 else (0, int(part), "") for i, part in enumerate(parts))

    if all(_as_number(value) is not None for value in values):
        return sorted(values, key=lambda value: (float(value), value))
    return sorted(values, key=lambda value: (key(value), value))


def typed_names(names: Sequence[str] | Sequence[tuple[str, str]]) -> str:
    """data.label_names as it is typed on a command line."""
    words = [n if isinstance(n, str) else f"{_escaped(n[0])}: {_quoted(n[1])}" for n in names]
    if names and isinstance(names[0], tuple):
        inner = "{" + ", ".join(words) + "}"
    else:
        inner = "[" + ",".join(map(_quoted, words)) + "]"
    return f'"data.label_names={inner}"' if "'" in inner else f"'data.label_names={inner}'"


def _quoted(name: str) -> str:
    """A name as Hydra reads it as a word: in quotation marks, unless it is a plain one."""
    is_plain = re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII) and name.casefold() not in (
        "true",
        "false",
        "null",
        "nan",
        "inf",
    )
    return name if is_plain else "'" + name.replace("'", "\\'") + "'"


def _escaped(key: str) -> str:
    """A key of a mapping for Hydra, which takes no quotation marks there."""
    return re.sub(r"([\\()\[\]{}:=, \t'\"])", r"\\\1", key)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:SHOWN])) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def _where(value: str, values: Mapping[str, pd.Series]) -> str:
    return " and ".join(split for split, counts in values.items() if value in counts.index)
