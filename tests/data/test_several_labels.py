"""Texts with several labels: every way in which files write them, and splits that keep the labels' frequencies."""

import json
import random
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.core.errors import InvalidInput
from src.core.task import labels_of
from src.data import dataset, splits
from tests.support.data import settings_of, write_rows

SEVERAL = ["data=files", "data.task=multi_label"]
NAMES = ("art", "food", "sport")


def rows(n: int = 120) -> list[tuple[str, list[str]]]:
    generator = random.Random(0)
    return [(f"text {i}", [name for name in NAMES if generator.random() < 0.4]) for i in range(n)]


def write_lists(folder: Path) -> Path:
    lines = [json.dumps({"text": text, "label": labels}) for text, labels in rows()]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder / "a.jsonl"


def write_parquet(folder: Path) -> Path:
    frame = pd.DataFrame(rows(), columns=["text", "label"])
    frame.to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def write_indices(folder: Path) -> Path:
    """Lists of datasets.ClassLabel, as the Hub has them."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=NAMES))}
    )
    columns = {"text": [t for t, _ in rows()], "label": [[NAMES.index(name) for name in has] for _, has in rows()]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(folder / "a.parquet"))
    return folder / "a.parquet"


def write_words(folder: Path) -> Path:
    return write_rows(folder / "a.csv", [(text, " ; ".join(labels)) for text, labels in rows()])


def write_columns(folder: Path) -> Path:
    cells = [(text, *(int(name in labels) for name in NAMES)) for text, labels in rows()]
    return write_rows(folder / "a.csv", cells, "text,art,food,sport")


def prepare(folder: Path, file: Path, *overrides: str) -> dataset.PreparedDataset:
    settings = settings_of(*SEVERAL, f"data.path={file}", *overrides)
    return dataset.prepare_dataset(settings.data, folder / "cache")


@pytest.mark.parametrize(
    ("write", "overrides"),
    [
        (write_lists, []),
        (write_parquet, []),
        (write_indices, []),
        (write_words, ["data.label_separator=';'"]),
        (write_columns, ["data.label_column=[art,food,sport]"]),
    ],
)  # fmt: skip
def test_every_way_to_write_them_gives_the_same_labels(tmp_path: Path, write: object, overrides: list[str]) -> None:
    prepared = prepare(tmp_path, write(tmp_path), *overrides)  # type: ignore[operator]
    assert prepared.task.has_several_labels
    assert prepared.label_names == NAMES
    expected = {text: [int(name in has) for name in NAMES] for text, has in rows()}
    for split in ("train", "validation"):
        frame = prepared.frame(split)
        assert labels_of(frame).tolist() == [expected[text] for text in frame["text"]]
    empty = sum(not has for _, has in rows())
    assert prepared.notes["train_texts_without_labels"] == empty > 0
    assert sum(map(sum, prepared.label_counts.values())) == sum(len(has) for _, has in rows())


def test_names_can_be_others(tmp_path: Path) -> None:
    file = write_words(tmp_path)
    renamed = prepare(
        tmp_path, file, "data.label_separator=';'", "data.label_names={food: cooking, art: painting, sport: sport}"
    )
    assert renamed.label_names == ("cooking", "painting", "sport")
    columns = write_columns(tmp_path)
    words = ["data.label_column=[food,art,sport]", "data.label_names=[cooking,painting,games]"]
    renamed = prepare(tmp_path, columns, *words)
    assert renamed.label_names == ("cooking", "painting", "games")
    by_text = dict(rows())
    train = renamed.frame("train")
    assert labels_of(train)[:, 0].tolist() == [int("food" in by_text[text]) for text in train["text"]]


def test_splits_keep_the_frequency_of_every_label() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((400, 3)) < (0.5, 0.2, 0.03)).astype(int)
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(400)], "label": labels.tolist()})
    for size in (40, 133, 200):
        sample = splits.stratified_sample(frame, size, 13, False, "here")
        assert len(sample) == size
        assert list(sample.index) == sorted(sample.index)
        found, wanted = labels_of(sample).sum(axis=0), labels.mean(axis=0) * size
        assert np.abs(found - wanted).max() <= 1.5
    again = splits.stratified_sample(frame, 40, 13, False, "here")
    assert again.equals(splits.stratified_sample(frame, 40, 13, False, "here"))


@pytest.mark.parametrize(
    ("cells", "overrides", "message"),
    [
        (["art;food", "sport;fod"], ["data.label_separator=';'", "data.label_names=[art,food,sport]"],
         r"20 labels outside data.label_names: 'fod'"),
        (["art;food", "sport"], [], r"has 'art;food' for its labels, which is no list of .*data.label_separator"),
        (["1", "0"], ["data.label_column=[label,text]", "data.text_column=other"], "has 'text 0' there; a column"),
        (["art", "food"], ["data.label_separator=';'", "data.balance=true"], "data.balance=true takes equally many"),
        (["art;food", "art;food"], ["data.label_separator=';'"], "all of them have the same labels"),
        (["art", "art"], ["data.label_separator=';'"], "has one label, 'art', and data.task is multi_label"),
        (["art", "food"], ["data.label_separator=''"], "data.label_separator is ''; it stands between"),
        (["art", "food"], ["data.label_column=[label,other]", "data.label_names=[a,b,c]"], "3 names for 2 columns"),
        (["art", "food"], ["data.label_column=[label,label]"], "data.label_column has label twice"),
        (["art", "food"], ["data.task=several"], "data.task is 'several'; it is single_label,"),
        (["art", "food"], ["data.task=single_label", "data.label_separator=';'"],
         "data.label_separator is ';'; where a text can have several labels, data.task=multi_label says so"),
        (["art", "food"], ["data.task=single_label", "data.label_column=[label,other]"],
         "data.label_column has 2 columns; where a text can have several labels"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_refused(tmp_path: Path, cells: list[str], overrides: list[str], message: str) -> None:
    table = [(f"text {i}", cells[i % 2], f"more {i}") for i in range(40)]
    with pytest.raises(InvalidInput, match=message):
        prepare(tmp_path, write_rows(tmp_path / "a.csv", table, "text,label,other"), *overrides)


def test_a_list_without_a_task_that_says_so_is_refused_and_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"If a text can have several labels, say data\.task=multi_label"):
        prepare(tmp_path, write_lists(tmp_path), "data.task=single_label")


def test_a_list_in_a_list_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": [["art"]]}\n{"text": "b", "label": ["art"]}\n')
    with pytest.raises(InvalidInput, match=r"row 1 of .* has '\[\[\"art\"\]\]' for its labels"):
        prepare(tmp_path, tmp_path / "a.jsonl")


def test_an_index_beyond_the_names_is_no_label(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["art", "food"]))}
    )
    columns = {"text": [f"text {i}" for i in range(20)], "label": [[i % 2] for i in range(20)]}
    table = datasets.Dataset.from_dict(columns, features=features).data.table
    cells = [[2] if i == 6 else [i % 2] for i in range(20)]
    wrong = table.set_column(1, table.schema.field("label"), pa.array(cells, pa.list_(pa.int64())))
    pq.write_table(wrong, tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"Row 7 of the train split of .* has the label '2', which is none"):
        prepare(tmp_path, tmp_path / "a.parquet")
