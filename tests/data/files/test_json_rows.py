"""JSON: its shapes, and that values stay as they are written."""

import json
from pathlib import Path

import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.data.files.formats import open_table
from src.data.files.table import NestedCell, ReadOptions

FRAME = pd.DataFrame({"text": ["a é", 'b "c"\n', "😀"], "label": ["x", "y", "x"]})


def read(folder: Path, content: str, name: str = "r.json", text_column: str = "text") -> pd.DataFrame:
    (folder / name).write_text(content)
    return open_table(folder / name, ReadOptions(text_column=text_column)).read()


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
@pytest.mark.parametrize("name", ["r.json", "r.jsonl"])
def test_every_shape_that_pandas_writes(tmp_path: Path, orient: str, name: str) -> None:
    FRAME.to_json(tmp_path / name, orient=orient)
    result = open_table(tmp_path / name, ReadOptions(text_column="text")).read()
    assert result[["text", "label"]].equals(FRAME.astype(object))


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.ndjson"])
def test_json_lines_under_every_name(tmp_path: Path, name: str) -> None:
    FRAME.to_json(tmp_path / name, orient="records", lines=True)
    assert open_table(tmp_path / name).read().equals(FRAME.astype(object))


@pytest.mark.parametrize(
    "content",
    [
        '{"text": ["a", "b"], "label": ["x", "y"]}',
        '{"version": 2, "data": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]}',
        '\ufeff[{"text": "a", "label": "x"},\n {"text": "b", "label": "y"}]\n',
        '\ufeff{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\n',
        '{\n "text": "a",\n "label": "x"\n}\n{\n "text": "b",\n "label": "y"\n}\n',
    ],
)
def test_other_shapes(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content).to_numpy().tolist() == [["a", "x"], ["b", "y"]]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    assert read(tmp_path, '{"text": "a", "label": "x"}', "r.jsonl").to_numpy().tolist() == [["a", "x"]]


def test_numbers_and_truth_values_are_the_words_of_the_file(tmp_path: Path) -> None:
    literals = ["1e3", "1.0", "01e0"[1:], "true", "false", "12345678901234567890", "0.10", "-0"]
    lines = "".join(f'{{"text": "t", "label": {literal}}}\n' for literal in literals)
    assert read(tmp_path, lines, "r.jsonl")["label"].tolist() == literals


def test_nothing_is_none_and_lists_are_nested(tmp_path: Path) -> None:
    result = read(tmp_path, '[{"text": null, "x": [1]}, {"x": {"a": 1}}, {"text": NaN, "x": ""}]')
    assert result["text"].tolist() == [None, None, None]
    assert [type(cell) for cell in result["x"]] == [NestedCell, NestedCell, str]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"text": "a"}, 3]', "item 2 is no object but 3"),
        ('["a"]', "item 1 is no object"),
        ('"a"', "neither objects nor an array of objects"),
        ('{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "several tables, train, test"),
        ('{"text": ["a", "b"], "label": ["x"]}', "columns of different lengths: text 2, label 1"),
        ('[{"text": "a"', "could not be read as json: .* in line 1"),
        ('{"text": "a"}\n{"text": "b"} x\n', "could not be read as jsonl: Extra data in line 2, column 14"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read(tmp_path, content)


def test_an_empty_array_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "[]").empty
    assert json.loads((tmp_path / "r.json").read_text()) == []
