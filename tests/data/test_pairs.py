"""Pairs of texts: read from two columns, compared as pairs, tokenized as two segments."""

from pathlib import Path

import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.core.texts import columns_of, texts_of
from src.data import dataset, leakage, tokenization, unlabelled
from src.training import pretrained
from tests.support.data import settings_of, write_rows

PAIRS = ["data=files", "data.text_column=[premise,hypothesis]", "data.label_names=[no,yes]"]
HEADER = "premise,hypothesis,label"
ROWS = [(f"a man reads book {i}", f"somebody reads {i}", "yes" if i % 2 else "no") for i in range(60)]


def prepare(folder: Path, rows: list[tuple[str, str, str]], *overrides: str) -> dataset.PreparedDataset:
    file = write_rows(folder / "pairs.csv", rows, HEADER)
    settings = settings_of(*PAIRS, f"data.path={file}", *overrides)
    return dataset.prepare_dataset(settings.data, folder / "cache")


def test_two_columns_are_pairs_and_other_columns_stay(tmp_path: Path) -> None:
    rows = [(*row, f"source {i % 2}") for i, row in enumerate(ROWS)]
    file = write_rows(tmp_path / "pairs.csv", rows, f"{HEADER},origin")
    prepared = dataset.prepare_dataset(settings_of(*PAIRS, f"data.path={file}").data, tmp_path / "cache")
    assert prepared.task.has_pairs
    assert prepared.task.text_columns == ("premise", "hypothesis")
    train = prepared.frame("train")
    assert list(train.columns) == ["text", "text_pair", "label", "row", "origin"]
    assert all(
        (*pair, "yes" if label else "no") in ROWS for pair, label in zip(texts_of(train), train["label"], strict=True)
    )
    assert pd.DataFrame(columns_of(texts_of(train))).equals(train[["text", "text_pair"]])


def test_one_column_is_no_pair_whatever_else_the_file_has(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.csv", [(f"text {i}", i % 2, "other") for i in range(40)], "text,label,text_pair")
    settings = settings_of("data=files", f"data.path={file}", "data.text_column=[text]")
    prepared = dataset.prepare_dataset(settings.data, tmp_path / "cache")
    assert not prepared.task.has_pairs
    assert all(isinstance(text, str) for text in texts_of(prepared.frame("train")))


def test_a_fingerprint_is_of_both_texts_in_their_order(tmp_path: Path) -> None:
    moved = [(f"{a} {b[:8]}", b[9:], y) for a, b, y in ROWS]
    swapped = [(b, a, y) for a, b, y in ROWS]
    assert len({prepare(tmp_path, rows).fingerprint for rows in (ROWS, moved, swapped)}) == 3
    assert leakage.text_keys([("a", "b")])[0] != leakage.text_keys([("a b", "")])[0]


def test_a_pair_of_test_is_dropped_from_train_in_both_orders(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    test = [("A man sleeps.", "He rests.", "yes"), ("A dog barks.", "It is quiet.", "no"), *ROWS[:10]]
    swapped, same_text = ("he rests", "a man SLEEPS", "yes"), ("A dog barks.", "There is an animal.", "yes")
    write_rows(folder / "test.csv", test, HEADER)
    write_rows(folder / "train.csv", [swapped, same_text, *ROWS[20:]], HEADER)
    prepared = dataset.prepare_dataset(settings_of(*PAIRS, f"data.path={folder}").data, tmp_path / "cache")
    assert prepared.notes["train_dropped_same_text_as_test"] == 1
    every = [*texts_of(prepared.frame("train")), *texts_of(prepared.frame("validation"))]
    assert swapped[:2] not in every
    assert same_text[:2] in every
    if same_text[:2] in texts_of(prepared.frame("train")):
        assert prepared.notes["test_pairs_with_a_text_of_train"] == 1


def test_known_parts_are_counted() -> None:
    train = [("the dog barks", "it is loud"), ("a", "b")]
    assert leakage.count_known_parts([("The dog barks!", "quiet"), ("c", "B"), ("c", "d"), ("b", "a")], train) == 3


def test_the_order_counts_for_conflicting_labels() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "a"], "text_pair": ["b", "a", "B"], "label": [0, 1, 1]})
    assert leakage.count_conflicting_labels(frame) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.text_column=[premise,claim]"], r"data.text_column is 'claim', but .*pairs.csv has the columns"),
        (["data.text_column=[premise,premise]"], "data.text_column has premise twice"),
        (["data.text_column=[premise,hypothesis,label]"], "data.text_column has 3 columns; it is one column, or two"),
        (["data.text_column=[]"], "data.text_column has 0 columns"),
        (["data.text_column=[premise,label]"], "data.text_column and data.label_column are both label"),
        (["data.drop_parts=true"], "data.drop_parts=true drops phrases of sentences"),
    ],
)
def test_columns_that_are_no_pairs_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        prepare(tmp_path, ROWS, *overrides)


def test_a_pair_without_its_second_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"1 rows without a text \(rows 3.*every row needs one in the column 'hyp"):
        prepare(tmp_path, [*ROWS[:2], ("a man", " ", "yes"), *ROWS[2:]])


def test_unlabelled_pairs_are_read_from_the_same_columns(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, ROWS)
    more = [("a new premise", "a new claim"), ("half", ""), ROWS[0][:2], (ROWS[0][1], ROWS[0][0])]
    write_rows(tmp_path / "more.csv", more, "premise,hypothesis")
    data = settings_of(*PAIRS, "data.path=unused", f"data.unlabelled={tmp_path / 'more.csv'}").data
    found = unlabelled.load_unlabelled(data, prepared)
    assert found.texts == (("a new premise", "a new claim"),)
    assert (found.n_read, found.n_in_test + found.n_repeated) == (3, 2)


def test_pairs_are_two_segments_and_the_longer_text_is_cut(tmp_path: Path) -> None:
    model = settings_of("model=tiny").recipe.model
    tokenizer = pretrained.load_tokenizer(pretrained.resolve(model, tmp_path))
    encoded = tokenization.encode(tokenizer, [("a b", "c"), ("a" * 50, "b c")], 12)
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]
    assert encoded["token_type_ids"][0] == [0, 0, 0, 0, 1, 1]
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][1])[-4:] == ["[SEP]", "b", "c", "[SEP]"]
    assert len(encoded["input_ids"][1]) == 12
    assert set(tokenization.encode(tokenizer, ["a b"], 12)) == {"input_ids", "attention_mask"}
    assert tokenization.encode(tokenizer, [], 12) == {"input_ids": [], "attention_mask": []}
