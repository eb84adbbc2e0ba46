"""Parquet, Arrow and what save_to_disk writes: types as text, names of labels."""

import datetime
import decimal
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest

from src.core.errors import InvalidInput
from src.data.files.arrow_table import texts_of
from src.data.files.disk_dataset import is_saved_dataset, open_saved_dataset
from src.data.files.formats import open_table
from src.data.files.table import NestedCell

FRAME = pd.DataFrame({"text": ["a é", "b", "😀"], "label": [1, 0, 1]})


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1.0, 2.5, None, float("nan")]), ["1", "2.5", None, None]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array([True, False, None]), ["True", "False", None]),
        (pa.array([2**60 + 1, -3]), [str(2**60 + 1), "-3"]),
        (pa.array(["b", "a", None]).dictionary_encode(), ["b", "a", None]),
        (pa.array(["x"], pa.large_string()), ["x"]),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"]),
        (pa.array([datetime.date(2024, 5, 1)]), ["2024-05-01"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_values_are_written_out(values: pa.Array, texts: list[str | None]) -> None:
    assert texts_of(values) == texts


@pytest.mark.parametrize("values", [[["a"]], [{"a": 1}], [b"a"]])
def test_lists_mappings_and_bytes_are_nested(values: list[object]) -> None:
    assert [type(cell) for cell in texts_of(pa.array(values))] == [NestedCell]


@pytest.mark.parametrize("name", ["r.parquet", "r.arrow", "r.feather"])
def test_files_of_every_kind(tmp_path: Path, name: str) -> None:
    match name:
        case "r.parquet":
            FRAME.to_parquet(tmp_path / name)
        case "r.feather":
            pyarrow.feather.write_feather(FRAME, str(tmp_path / name))
        case _:
            datasets.Dataset.from_pandas(FRAME).save_to_disk(str(tmp_path / "saved"))
            next((tmp_path / "saved").glob("*.arrow")).rename(tmp_path / name)
    read = open_table(tmp_path / name).read(["text", "label"])
    assert read.to_numpy().tolist() == [["a é", "1"], ["b", "0"], ["😀", "1"]]


def classed(names: list[str]) -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)


def test_names_of_labels_come_with_the_file(tmp_path: Path) -> None:
    classed(["neg", "pos"]).to_parquet(str(tmp_path / "r.parquet"))
    assert open_table(tmp_path / "r.parquet").class_labels == {"label": ("neg", "pos")}


def test_what_save_to_disk_left(tmp_path: Path) -> None:
    split = classed(["neg", "pos"])
    datasets.DatasetDict({"train": split, "dev": split}).save_to_disk(str(tmp_path / "several"))
    split.select([1]).save_to_disk(str(tmp_path / "one"))
    assert is_saved_dataset(tmp_path / "several")
    assert is_saved_dataset(tmp_path / "one")
    several = open_saved_dataset(tmp_path / "several")
    assert list(several) == ["train", "dev"]
    assert several["dev"].class_labels == {"label": ("neg", "pos")}
    (one,) = open_saved_dataset(tmp_path / "one").values()
    assert one.read().to_numpy().tolist() == [["b", "0"]]


def test_a_folder_of_save_to_disk_that_is_broken_is_said(tmp_path: Path) -> None:
    classed(["neg", "pos"]).save_to_disk(str(tmp_path / "one"))
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"x")
    with pytest.raises(InvalidInput, match="save_to_disk, and could not be loaded"):
        open_saved_dataset(tmp_path / "one")
