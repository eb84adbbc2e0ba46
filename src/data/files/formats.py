"""Which format a file has, by its extension."""

import csv
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pandas as pd

from src.core.errors import InvalidInput
from src.core.paths import replacing
from src.data.files.table import ReadOptions, Table
from src.data.files.text_stream import (
    COMPRESSIONS,
    checked_encoding,
    compression_of,
    create_text,
    is_utf8_with_more_than_ascii,
)

TEXT_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
# extension -> family of formats between which no cell changes, and what a Table calls the format
KEEPS_TYPES = {
    ".json": ("json", "json"), ".jsonl": ("json", "jsonl"), ".ndjson": ("json", "jsonl"),
    ".parquet": ("arrow", "parquet"), ".arrow": ("arrow", "arrow"), ".feather": ("arrow", "arrow"),
}  # fmt: skip
TABLE_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")  # that write_frame writes
FORMATS = (*TEXT_FORMATS, ".parquet", ".arrow", ".feather", ".xlsx")
LISTED = f"{', '.join(FORMATS)} (the first {len(TEXT_FORMATS)} also with {', '.join(COMPRESSIONS)} behind)"


def format_of(path: Path) -> str:
    """The extension that names the format, without a compression; empty if the format is not supported."""
    compression = compression_of(path)
    name = path.with_suffix("") if compression else path
    extension = name.suffix.lower()
    return extension if extension in (TEXT_FORMATS if compression else FORMATS) else ""


def stem_of(path: Path) -> str:
    """The file's name without format and compression."""
    name = path.with_suffix("") if compression_of(path) else path
    return name.stem


def open_table(path: Path, options: ReadOptions | None = None) -> Table:
    """Open a file of rows. Raises InvalidInput if it is missing, of another format, or cannot be read."""
    options = options or ReadOptions()
    extension = format_of(path)
    if not path.is_file() or not extension:
        what = f"is none of {LISTED}" if path.is_file() else "is not there"
        raise InvalidInput(f"The file {path} {what} (seen from {Path.cwd()}).")
    if path.stat().st_size == 0:
        raise InvalidInput(f"{path} is empty; it needs a row of column names, and a row per text.")
    try:
        table = _open(path, extension, options)
        if extension in TEXT_FORMATS and checked_encoding(options) != "utf-8" and is_utf8_with_more_than_ascii(path):
            table.remarks.append(f"{path.name} is read as {options.encoding}, although it is valid utf-8")
        return table
    except OSError as error:
        raise InvalidInput(f"{path} could not be read: {error.strerror or error}.") from error


def _open(path: Path, extension: str, options: ReadOptions) -> Table:
    if extension in (".csv", ".tsv"):
        from src.data.files.delimited import DelimitedTable

        return DelimitedTable(path, options)
    if extension in (".json", ".jsonl", ".ndjson"):
        from src.data.files.json_rows import JsonTable

        return JsonTable(path, options)
    if extension == ".xlsx":
        from src.data.files.excel import ExcelTable

        return ExcelTable(path)
    from src.data.files.arrow_table import ArrowTable

    return ArrowTable(path)


def write_with_columns(table: Table, target: Path, out: Path, added: Iterable[pd.DataFrame]) -> None:
    """Write the rows of `table` with further columns to `target`, in the format of the extension of `out`.

    In the file's own format, and between formats of one family, cells come out as they came in; else they are text.

    Args:
        table: the rows.
        target: the file to write.
        out: the name that the file will have.
        added: frames of the further columns, in the order of the rows, BATCH_ROWS rows each; one of no rows if there
            are none.
    """
    extension, own = format_of(out), format_of(table.path)
    if extension == own or (extension in KEEPS_TYPES and KEEPS_TYPES[extension][0] == KEEPS_TYPES.get(own, ("",))[0]):
        if extension != own:
            table.format = KEEPS_TYPES[extension][1]
        table.copy_to(target, added, compression_of(out))
        return
    answers = iter(added)
    first = next(answers)
    columns = [*table.columns, *first.columns]
    batches = zip(table.batches(table.columns), chain([first], answers), strict=False)
    frames = (pd.concat([rows, more.set_axis(rows.index)], axis=1) for rows, more in batches)
    _write_text(target, extension, compression_of(out), columns, frames)


def _write_text(
    out: Path, extension: str, compression: str, columns: list[str], frames: Iterable[pd.DataFrame]
) -> None:
    if extension in (".csv", ".tsv"):
        with create_text(out, compression) as stream:
            writer = csv.writer(stream, delimiter="\t" if extension == ".tsv" else ",", lineterminator="\n")
            writer.writerow(columns)
            for frame in frames:
                writer.writerows(frame.itertuples(index=False, name=None))
    elif extension in (".json", ".jsonl", ".ndjson"):
        from src.data.files.json_rows import write_json

        with create_text(out, compression) as stream:
            write_json(stream, frames, lines=extension != ".json")
    elif extension == ".xlsx":
        from src.data.files.excel import write_excel

        write_excel(out, columns, frames)
    else:
        from src.data.files.arrow_table import write_arrow

        write_arrow(out, extension, columns, frames)


def write_frame(frame: pd.DataFrame, out: Path) -> None:
    """Write a table of ours to a file in the format of its extension, one of TABLE_FORMATS."""
    extension = out.suffix.lower()
    with replacing(out) as scratch:
        if extension in (".csv", ".tsv"):
            frame.to_csv(scratch, index=False, sep="\t" if extension == ".tsv" else ",")
        elif extension == ".parquet":
            frame.to_parquet(scratch, index=False)
        else:
            frame.to_json(scratch, orient="records", lines=extension == ".jsonl", force_ascii=False)
