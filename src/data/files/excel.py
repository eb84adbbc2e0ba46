"""Reads and writes xlsx files, where openpyxl is installed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from src.core.errors import InvalidInput, first_line, with_full_stop
from src.data.files.table import BATCH_ROWS, Table, text_frame


class ExcelTable(Table):
    """The first sheet of an xlsx file, whose first row has the names of the columns."""

    format = "xlsx"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        book = self._open(read_only=True)
        sheet = book.worksheets[0]
        first = next(sheet.iter_rows(values_only=True), ())
        names = [_text(cell) or "" for cell in first]
        while names and not names[-1]:
            names.pop()
        self.columns = names
        others = [s.title for s in book.worksheets[1:] if s.max_row and s.max_row > 1]
        if others:
            self.remarks.append(f"{path.name}: only the first sheet is read, {sheet.title}, not {', '.join(others)}")
        book.close()

    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """See Table. Cells are the values, not how the sheet formats them; TRUE and FALSE as Excel shows them."""
        places = [self.columns.index(column) for column in columns]
        book = self._open(read_only=True)
        try:
            rows = (row for _, row in self._rows(book))
            while batch := list(islice(rows, size)):
                yield text_frame(columns, [[_text(row[p]) if p < len(row) else None for row in batch] for p in places])
        finally:
            book.close()

    def copy_to(self, out: Path, added: Iterable[pd.DataFrame], compression: str = "") -> None:  # noqa: ARG002
        """See Table. Formats, formulas and other sheets are kept."""
        book = self._open(data_only=False)
        sheet = book.worksheets[0]
        rows = self._rows(self._open(read_only=True))
        first = len(self.columns) + 1
        for frame in added:
            for i, name in enumerate(frame.columns):
                sheet.cell(1, first + i, str(name))
            for (number, _), values in zip(islice(rows, len(frame)), frame.itertuples(index=False), strict=True):
                for i, value in enumerate(values):
                    sheet.cell(number, first + i, value)
        book.save(out)

    def _open(self, read_only: bool = False, data_only: bool = True) -> Any:
        try:
            import openpyxl
        except ImportError as error:
            raise InvalidInput(
                f"{self.path} is read with openpyxl, which is not installed: pip install openpyxl, or save the sheet "
                "as csv."
            ) from error
        try:
            return openpyxl.load_workbook(self.path, read_only=read_only, data_only=data_only)
        except Exception as error:  # errors of zipfile, of XML parsers and its own
            raise InvalidInput(f"{self.path} could not be read as xlsx: {with_full_stop(first_line(error))}") from error

    def _rows(self, book: Any) -> Iterator[tuple[int, Sequence[Any]]]:
        """The rows that have a value, with their numbers in the sheet."""
        n = len(self.columns)
        for number, row in enumerate(book.worksheets[0].iter_rows(min_row=2, values_only=True), start=2):
            if any(cell is not None for cell in row[n:]):
                raise InvalidInput(f"{self.path}: row {number} has a value behind the last column that has a name.")
            if any(cell is not None for cell in row):
                yield number, row


def _text(cell: Any) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return cell.isoformat() if isinstance(cell, (date, datetime)) else str(cell)


def write_excel(out: Path, columns: Sequence[str], frames: Iterable[pd.DataFrame]) -> None:
    """Write text cells to a new file."""
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(list(columns))
    for frame in frames:
        for row in frame.itertuples(index=False):
            sheet.append(list(row))
    book.save(out)
