"""xlsx: values as Excel shows them, and a file that keeps everything when columns are added."""

import datetime
import io
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.data.files.formats import open_table, write_with_columns


def book(file: Path, *rows: list[object]) -> Path:
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.active.append(row)
    workbook.create_sheet("notes").append(["x"])
    workbook["notes"].append(["y"])
    workbook.save(file)
    return file


def test_cells_are_what_excel_shows(tmp_path: Path) -> None:
    file = book(
        tmp_path / "r.xlsx",
        ["text", "label", "day"],
        ["a", True, datetime.date(2024, 5, 1)],
        [],
        ["007", 1.0, None],
        ["b", 0.5, ""],
    )
    read = open_table(file)
    assert read.read().to_numpy().tolist() == [
        ["a", "TRUE", "2024-05-01T00:00:00"], ["007", "1", None], ["b", "0.5", None],
    ]  # fmt: skip
    assert read.remarks == ["r.xlsx: only the first sheet is read, Sheet, not notes"]


def test_a_value_behind_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="row 2 has a value behind the last column"):
        open_table(book(tmp_path / "r.xlsx", ["text", "label"], ["a", "x", "lost"])).read()


def test_formulas_and_other_sheets_stay(tmp_path: Path) -> None:
    file = book(tmp_path / "r.xlsx", ["text", "n"], ["a", "=1+1"], ["b", 12345678.5])
    write_with_columns(
        open_table(file), tmp_path / "o.part", tmp_path / "o.xlsx", [pd.DataFrame({"label": ["x", "y"]})]
    )
    result = openpyxl.load_workbook(io.BytesIO((tmp_path / "o.part").read_bytes()))
    assert [[c.value for c in row] for row in result.worksheets[0]] == [
        ["text", "n", "label"], ["a", "=1+1", "x"], ["b", 12345678.5, "y"],
    ]  # fmt: skip
    assert result.sheetnames == ["Sheet", "notes"]
