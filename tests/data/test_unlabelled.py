"""Texts without labels: read as the data are, each once, and never one of the test split."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.data import dataset, test_split, unlabelled
from src.data.dataset import PreparedDataset
from tests.support.data import settings_of, write_letters


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("letters")
    data = settings_of("data=files", f"data.path={write_letters(folder / 'letters.csv')}").data
    return dataset.prepare_dataset(data, folder / "cache")


def written(folder: Path, texts: list[object], name: str = "more.csv") -> str:
    frame = pd.DataFrame({"text": texts})
    frame.to_json(folder / name, orient="records", lines=True) if name.endswith("l") else frame.to_csv(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("name", ["more.csv", "more.jsonl"])
def test_texts_of_the_data_are_left_out(prepared: PreparedDataset, tmp_path: Path, name: str) -> None:
    test = pd.read_parquet(prepared.folder / "test.parquet")["text"].tolist()
    train = prepared.frame("train")["text"].tolist()
    new = ["hello there", "something else", "Hello  there", None, " "]
    given = [*new[:2], test[0].upper(), f"{test[1]}.", train[0], prepared.frame("validation")["text"][0], *new[2:]]
    data = replace(settings_of("data=files", "data.path=x.csv").data, unlabelled=written(tmp_path, given, name))
    found = unlabelled.load_unlabelled(data, prepared)
    assert found.texts == ("hello there", "something else")
    assert (found.n_read, found.n_in_test, found.n_repeated) == (7, 2, 3)
    assert found.fingerprint != unlabelled.load_unlabelled(
        replace(data, unlabelled=written(tmp_path, ["another"])), prepared
    ).fingerprint  # fmt: skip


def test_asking_for_texts_of_the_test_split_is_no_opening(prepared: PreparedDataset, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    assert test_split.contains_texts(prepared, ["hello there"]).tolist() == [False]
    assert test_split.opening_keys(ledger) == []


@pytest.mark.parametrize(
    ("texts", "says"),
    [([None, " "], "has no text in the column 'text'"), ("all of train", "texts is in the data already")],
)
def test_what_has_no_new_text_is_refused(
    prepared: PreparedDataset, tmp_path: Path, texts: list[object] | str, says: str
) -> None:
    given = prepared.frame("train")["text"].tolist() if isinstance(texts, str) else texts
    data = replace(settings_of("data=files", "data.path=x.csv").data, unlabelled=written(tmp_path, given))
    with pytest.raises(InvalidInput) as caught:
        unlabelled.load_unlabelled(data, prepared)
    assert says in str(caught.value)
    assert "data.unlabelled is " in str(caught.value)
