"""Which files are which split."""

from pathlib import Path

import pytest

from src.core.errors import InvalidInput
from src.data.loading import load_splits, source_key
from src.data.split_files import files_by_name, resolve_splits, split_files
from tests.support.data import settings_of, write_rows

ROWS = [("a", "x"), ("b", "y")]
USUAL: dict[str, str | None] = {"train": None, "validation": None, "test": None}


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(root / name, ROWS)
    return root


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["train.csv", "val.csv", "test.csv"], {"train": "train", "validation": "val", "test": "test"}),
        (["train.csv", "eval.csv"], {"train": "train", "validation": "eval"}),
        (["Train.csv", "DEV.csv", "Test.csv"], {"train": "Train", "validation": "DEV", "test": "Test"}),
        (["data/train-00000-of-00001.csv", "data/test-00000-of-00001.csv"], {"train": "train", "test": "test"}),
        (["train/a.csv", "train/b.csv", "valid/c.csv"], {"train": "train", "validation": "valid"}),
        (["plain_text/train-00000-of-00001-0ab1.csv"], {"train": "train"}),
        (["train.csv", "train-old.csv", "my_test.csv"], {"train": "train"}),
        (["train.csv", "a/notes.csv", "b/notes.csv"], {"train": "train"}),
    ],
)
def test_usual_names(tmp_path: Path, names: list[str], wanted: dict[str, str]) -> None:
    assert split_files(folder(tmp_path, *names), USUAL)[0] == wanted


def test_what_is_named_is_taken_or_refused(tmp_path: Path) -> None:
    groups = files_by_name(folder(tmp_path, "reviews.csv", "held-out.csv"))
    named: dict[str, str | None] = {"train": "reviews", "test": "held-out"}
    assert resolve_splits(named, groups, "here") == named
    with pytest.raises(InvalidInput, match=r"data\.splits\.test is 'heldout', but here has the splits"):
        resolve_splits({**named, "test": "heldout"}, groups, "here")
    with pytest.raises(InvalidInput, match="here has no train split; it has 'held-out', 'reviews'"):
        resolve_splits(USUAL, groups, "here")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train.csv", "val.csv", "dev.csv"], "dev and val, which are both names of the validation split"),
        (["train.csv", "train.tsv"], "the split 'train' in several files: train.csv, train.tsv"),
        (["a/train.csv", "b/train.csv"], "the split 'train' in several folders"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], "2 of 3 parts of the split 'train'"),
        (["train.csv", "train-00000-of-00001.csv"], "in several files"),
        ([], "a folder without a file of"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        split_files(folder(tmp_path, *names), USUAL)


def test_hidden_files_locks_and_records_of_searches_are_no_data(tmp_path: Path) -> None:
    root = folder(tmp_path, "train.csv", ".ipynb_checkpoints/test.csv", "mlruns/test.csv", "~$test.csv")
    assert files_by_name(root) == {"train": [root / "train.csv"]}


def test_files_that_nobody_reads_are_named(tmp_path: Path) -> None:
    folder(tmp_path, "train.csv", "unsupervised.csv", "old/more.csv")
    raw = load_splits(settings_of("data=files", f"data.path={tmp_path}").data)
    assert raw.remarks == ("not read, because no split is called so: old/more.csv, unsupervised.csv",)


def test_the_key_follows_what_is_read(tmp_path: Path) -> None:
    folder(tmp_path, "train.csv", "more.csv")
    data = settings_of("data=files", f"data.path={tmp_path}").data
    before = source_key(data)
    write_rows(tmp_path / "more.csv", [("c", "x")])
    assert source_key(data) == before
    (tmp_path / "more.csv").rename(tmp_path / "dev.csv")
    assert source_key(data) != before


def test_a_file_that_looks_like_a_pattern_is_read_itself(tmp_path: Path) -> None:
    write_rows(tmp_path / "r[1].csv", [("right", "x"), ("right too", "y")])
    write_rows(tmp_path / "r1.csv", [("wrong", "x")])
    raw = load_splits(settings_of("data=files", f"data.path='{tmp_path}/r[1].csv'").data)
    assert raw.frames["train"]["text"].tolist() == ["right", "right too"]


def test_rows_of_parts_are_joined_in_their_order(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-00001-of-00002.csv", [("second", "x")])
    write_rows(tmp_path / "train-00000-of-00002.csv", [("first", "y")])
    raw = load_splits(settings_of("data=files", f"data.path={tmp_path}").data)
    assert raw.frames["train"]["text"].tolist() == ["first", "second"]


def test_only_the_columns_that_are_used_must_be_sound(tmp_path: Path) -> None:
    lines = ["text,label,n,n", *(f"t{i},x,,{i}" for i in range(10_020)), "last,y,m-1,"]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    (tmp_path / "r.jsonl").write_text('{"text": "a", "label": "x", "n": 1}\n{"text": "b", "label": "y", "n": [2]}\n')
    for name, n in (("r.csv", 10_021), ("r.jsonl", 2)):
        raw = load_splits(settings_of("data=files", f"data.path={tmp_path / name}").data)
        assert len(raw.frames["train"]) == n
        assert "n" not in raw.frames["train"]
