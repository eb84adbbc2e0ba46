"""Reads JSON: one object per line, an array of objects, or a mapping per column or row. Numbers stay as written."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import pandas as pd

from src.core.errors import InvalidInput
from src.data.files.table import BATCH_ROWS, NestedCell, ReadOptions, Table, text_frame
from src.data.files.text_stream import create_text, open_text

Record = dict[str, str]  # key -> the value's JSON text
_DECODER = json.JSONDecoder(strict=False)  # tabs and line breaks inside strings are read
_BLANKS = " \t\r\n"


class JsonTable(Table):
    """A json or jsonl file, compressed or not. Each cell is kept as the JSON text that the file has."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        super().__init__(path)
        self.options = options
        self._whole: list[Record] | None = None
        self.format = "jsonl"
        if not self._is_lines():
            self.format = "jsonl" if ".json" not in path.suffixes[-2:] else "json"
            with open_text(path, options) as stream:
                text = stream.read()
            try:
                self._whole = _read_whole(text, options.text_column, path)
            except json.JSONDecodeError as error:
                raise InvalidInput(
                    f"{path} could not be read as json: {error.msg} in line {error.lineno}, column {error.colno}."
                ) from error
        self.columns = list(dict.fromkeys(key for record in self._records() for key in record))

    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """See Table. A number or a truth value is the text that the file has, such as 1e3 or true."""
        records = self._records()
        while batch := list(islice(records, size)):
            yield text_frame(columns, [[_cell(record.get(column)) for record in batch] for column in columns])

    def copy_to(self, out: Path, added: Iterable[pd.DataFrame], compression: str = "") -> None:
        """See Table. A mapping per column is written as an array of objects."""
        records, lines = self._records(), self.format == "jsonl"
        with create_text(out, compression) as target:
            separator = "" if lines else "["
            for batch in added:
                cells = zip(islice(records, len(batch)), batch.to_dict("records"), strict=True)
                for record, more in cells:
                    values = record | {str(k): json.dumps(v, ensure_ascii=False) for k, v in more.items()}
                    target.write(separator + _object(values))
                    separator = "\n" if lines else ",\n"
            target.write(_tail(separator, lines))

    def _is_lines(self) -> bool:
        """Whether the first line that is not blank is a whole object, as in JSON lines."""
        with open_text(self.path, self.options) as stream:
            first = next((line for line in stream if line.strip(_BLANKS)), "").strip(_BLANKS)
            second = next((line for line in stream if line.strip(_BLANKS)), "").strip(_BLANKS)
        if not first.startswith("{"):
            return False
        try:
            _, end = _object_at(first, 0)
        except json.JSONDecodeError:
            return False
        return end == len(first) and bool(second)  # a single object may be a file of columns

    def _records(self) -> Iterator[Record]:
        return self._lines() if self._whole is None else iter(self._whole)

    def _lines(self) -> Iterator[Record]:
        with open_text(self.path, self.options) as stream:
            for number, line in enumerate(stream, start=1):
                text = line.strip(_BLANKS)
                if not text:
                    continue
                try:
                    record, end = _object_at(text, 0)
                    if end < len(text):
                        raise json.JSONDecodeError("Extra data", text, end)
                except json.JSONDecodeError as error:
                    raise InvalidInput(
                        f"{self.path} could not be read as jsonl: {error.msg} in line {number}, column "
                        f'{error.colno}. Each line is one object, such as {{"text": "...", "label": "..."}}.'
                    ) from error
                yield record


def _cell(literal: str | None) -> str | None:
    if literal is None or literal in ("null", "NaN"):
        return None
    if literal[0] == '"':
        return str(json.loads(literal, strict=False))
    return NestedCell(literal) if literal[0] in "[{" else literal


def _object(record: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in record.items()) + "}"


# --- finding the texts of values: json.loads would make numbers of them, which lose digits ---


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def _value_at(text: str, at: int) -> tuple[str, int]:
    """The JSON text of the value that begins at `at`, and where it ends."""
    _, end = _DECODER.raw_decode(text, at)
    return text[at:end], end


def _next_item(text: str, at: int, closing: str) -> int | None:
    """Where the next item begins, behind a comma; None at the closing bracket."""
    at = _skip_blanks(text, at)
    if text[at : at + 1] == ",":
        return _skip_blanks(text, at + 1)
    if text[at : at + 1] != closing:
        raise json.JSONDecodeError(f"Expecting ',' or '{closing}'", text, at)
    return None


def _object_at(text: str, at: int) -> tuple[Record, int]:
    """The members of the object that begins at `at`, and where it ends."""
    _, end = _DECODER.raw_decode(text, at)
    if text[at : at + 1] != "{":
        raise json.JSONDecodeError("Expecting an object", text, at)
    members: Record = {}
    place: int | None = _skip_blanks(text, at + 1)
    while place is not None and text[place] != "}":
        key, place = _DECODER.raw_decode(text, place)
        colon = _skip_blanks(text, place)
        members[key], place = _value_at(text, _skip_blanks(text, colon + 1))
        place = _next_item(text, place, "}")
    return members, end


def _items_at(text: str, at: int) -> list[str]:
    """The JSON texts of the items of the array that begins at `at`."""
    items: list[str] = []
    place: int | None = _skip_blanks(text, at + 1)
    while place is not None and text[place : place + 1] != "]":
        item, place = _value_at(text, place)
        items.append(item)
        place = _next_item(text, place, "]")
    return items


# --- shapes ---


def _read_whole(text: str, text_column: str | None, path: Path) -> list[Record]:
    """The rows of a file that is not JSON lines."""
    start = _skip_blanks(text, 0)
    if start == len(text):
        return []
    if text[start] == "[":
        _DECODER.raw_decode(text, start)  # raises for text that is no JSON
        return _objects(_items_at(text, start), path)
    if text[start] != "{":
        raise InvalidInput(f"{path} has neither objects nor an array of objects; it begins with {text[start:][:40]!r}.")
    members, end = _object_at(text, start)
    if _skip_blanks(text, end) < len(text):  # objects one after the other, over several lines each
        records = [members]
        while (start := _skip_blanks(text, end)) < len(text):
            record, end = _object_at(text, start)
            records.append(record)
        return records
    return _read_mapping(members, text_column, path)


def _objects(items: Sequence[str], path: Path) -> list[Record]:
    wrong = next((i for i, item in enumerate(items) if item[0] != "{"), None)
    if wrong is not None:
        raise InvalidInput(
            f"{path} is an array whose item {wrong + 1} is no object but {items[wrong][:60]}; each row is an object "
            'such as {"text": "...", "label": "..."}.'
        )
    return [_object_at(item, 0)[0] for item in items]


def _read_mapping(members: Record, text_column: str | None, path: Path) -> list[Record]:
    """The rows of one object: pandas' orients split, table, columns, list and index."""
    kinds = {key: value[0] for key, value in members.items()}
    if {"columns", "data"} <= set(members) and kinds["columns"] == kinds["data"] == "[":
        names = [str(json.loads(name)) for name in _items_at(members["columns"], 0)]
        return [dict(zip(names, _items_at(row, 0), strict=True)) for row in _items_at(members["data"], 0)]
    tables = [key for key, value in members.items() if _is_array_of_objects(value)]
    if len(tables) == 1 and text_column not in members:
        return _objects(_items_at(members[tables[0]], 0), path)
    if len(tables) > 1:
        raise InvalidInput(
            f"{path} has several tables, {', '.join(tables)}. Write one file per split into a "
            "folder: train.json, test.json."
        )
    if set(kinds.values()) == {"["}:
        return _columns({key: dict(enumerate(_items_at(value, 0))) for key, value in members.items()}, path)
    if set(kinds.values()) == {"{"}:
        inner = {key: _object_at(value, 0)[0] for key, value in members.items()}
        of_rows = text_column not in members and any(text_column in row for row in inner.values())
        return list(inner.values()) if of_rows else _columns(inner, path)
    return [members]  # one row


def _is_array_of_objects(literal: str) -> bool:
    return literal[0] == "[" and literal[1:].lstrip(_BLANKS)[:1] == "{"


def _columns(columns: Mapping[str, Mapping[Any, str]], path: Path) -> list[Record]:
    """Rows from a mapping (index -> value) per column."""
    keys = list(dict.fromkeys(chain.from_iterable(columns.values())))
    short = [name for name, cells in columns.items() if len(cells) != len(keys)]
    if short:
        sizes = ", ".join(f"{name} {len(cells)}" for name, cells in columns.items())
        raise InvalidInput(f"{path} has columns of different lengths: {sizes}.")
    return [{name: cells[key] for name, cells in columns.items()} for key in keys]


def write_json(stream: IO[str], frames: Iterable[pd.DataFrame], lines: bool) -> None:
    """Write text cells as objects, one per line or in an array."""
    separator = "" if lines else "["
    for frame in frames:
        for row in frame.to_dict("records"):
            stream.write(separator + json.dumps(row, ensure_ascii=False))
            separator = "\n" if lines else ",\n"
    stream.write(_tail(separator, lines))


def _tail(separator: str, lines: bool) -> str:
    if lines:
        return "\n" if separator else ""
    return "[]\n" if separator == "[" else "]\n"
