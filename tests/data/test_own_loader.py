"""A loader of your own: what it may return, and what becomes of it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from src.config.settings import DataSettings
from src.core import own_code
from src.core.errors import InvalidInput
from src.data import own_loader
from src.data.dataset import PreparedDataset, prepare_dataset
from tests.support.data import settings_of
from tests.support.own_code import nothing_loaded, write_module

ROWS = """
def frame(n=90):
    labels = [("no", "yes", "perhaps")[i % 3] for i in range(n)]
    return pd.DataFrame({"text": [f"text number {i} says {label}" for i, label in enumerate(labels)], "label": labels})
"""


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    own_loader._load.cache_clear()
    with nothing_loaded():
        yield
    own_loader._load.cache_clear()


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Prepares what a loader with the given body returns."""

    def prepare(body: str, *overrides: str) -> PreparedDataset:
        write_module(tmp_path, f"{ROWS}\n@loader\ndef load(path):\n    {body}\n")
        own_code.load(["my_module"], tmp_path)
        return prepare_dataset(settings(*overrides), tmp_path / "cache")

    return prepare


def settings(*overrides: str) -> DataSettings:
    return settings_of("data=loader", "data.loader=my_module:load", *overrides).data


def test_a_frame_is_split_as_a_file_is(prepared: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    own = prepared("return {'train': frame()}")
    sys.modules["my_module"].frame().to_csv(tmp_path / "rows.csv", index=False)
    from_file = prepare_dataset(
        settings_of("data=files", f"data.path={tmp_path / 'rows.csv'}").data, tmp_path / "cache"
    )
    assert own.fingerprints == from_file.fingerprints
    assert own.label_names == ("no", "perhaps", "yes")


def test_the_splits_that_it_returns_are_taken(prepared: Callable[..., PreparedDataset]) -> None:
    body = "return {'train': frame()[:60], 'dev': frame()[60:75], 'held out': frame()[75:]}"
    own = prepared(body, "data.splits.test='held out'")
    assert own.sizes == {"train": 60, "validation": 15, "test": 15}


def test_a_dataset_brings_the_names_of_its_labels(prepared: Callable[..., PreparedDataset]) -> None:
    own = prepared(
        "import datasets\n"
        "    labels = datasets.ClassLabel(names=['yes', 'no', 'perhaps'])\n"
        "    return {'train': datasets.Dataset.from_pandas(frame()).cast_column('label', labels)}"
    )
    assert own.label_names == ("yes", "no", "perhaps")


def test_it_gets_the_path_and_is_called_once(prepared: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    prepared("open(path, 'a').write('called '); return {'train': frame()}", f"data.path={tmp_path / 'calls'}")
    assert (tmp_path / "calls").read_text() == "called "


def test_a_study_finds_its_data_without_the_code(prepared: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    own = prepared("return {'train': frame()}")
    own_code._modules.clear()
    own_loader._load.cache_clear()
    found = prepare_dataset(settings(), tmp_path / "cache", lambda: own.fingerprint)
    assert found.folder == own.folder
    with pytest.raises(
        InvalidInput, match=r"data.loader has my_module:load, and the module my_module was not imported"
    ):
        prepare_dataset(settings(), tmp_path / "cache", lambda: "another")


def test_other_rows_are_other_data(prepared: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    rows = "pd.read_csv(path) if path else frame()"
    first = prepared(f"return {{'train': {rows}}}")
    pd.read_parquet(first.folder / "train.parquet")[["text", "label"]].to_csv(tmp_path / "rows.csv", index=False)
    second = prepare_dataset(replace(settings(), path=str(tmp_path / "rows.csv")), tmp_path / "cache")
    assert second.folder != first.folder
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return frame()", r"my_module:load returned DataFrame .*; a loader returns the splits by name"),
        ("return {}", r"my_module:load returned dict \{\}; a loader returns the splits by name"),
        ("return {'train': [1, 2]}", r"my_module:load returned list \[1, 2\] as the split train; a loader returns"),
        ("return {'test': frame()}", r"my_module:load has no train split; it has 'test'\. Name the one to train on"),
        (
            "return {'train': frame().rename(columns={'text': 'body'})}",
            r"data.text_column is 'text', but my_module:load",
        ),
        ("return {'train': frame()[:0]}", r"my_module:load has no rows"),
        ("return {'train': pd.DataFrame({'text': ['a', 1], 'label': [0, 1]})}", r"is no table of texts and numbers"),
        (
            "return {'train': open('nothing.csv')}",
            r"my_module:load raised FileNotFoundError: .*my_module\.py, line \d+",
        ),
    ],
)
def test_what_is_no_data_is_refused(prepared: Callable[..., PreparedDataset], body: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        prepared(body)


def test_a_loader_and_a_place_on_the_hub_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"data.loader is my_module:load, and data.hub_id is a/b; take one"):
        prepare_dataset(replace(settings(), hub_id="a/b"), tmp_path)
