"""Data: sources, splits without overlap, one preparation for all."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.data import dataset, labels, leakage, splits, tokenization
from src.training import pretrained
from tests.support.data import settings_of, write_rows

GOOD, BAD = [f"a fine film number {i}" for i in range(60)], [f"a dull film number {i}" for i in range(60)]
ROWS = [(t, "yes") for t in GOOD] + [(t, "no") for t in BAD]
FILES = ["data=files", "data.label_names=[no,yes]"]


def prepare(tmp_path: Path, *overrides: str) -> dataset.PreparedDataset:
    return dataset.prepare_dataset(settings_of(*overrides).data, tmp_path / "cache")


def parquet_folder(folder: Path, **frames: pd.DataFrame) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, frame in frames.items():
        frame.to_parquet(folder / f"{split}.parquet")
    return folder


def frame(texts: list[str], labels: list[int], column: str = "text") -> pd.DataFrame:
    return pd.DataFrame({column: texts, "label": labels})


def test_the_starter_reviews_are_what_their_card_says(tmp_path: Path) -> None:
    prepared = prepare(tmp_path)
    assert prepared.sizes == {"train": 1500, "validation": 350, "test": 599}
    train = prepared.frame("train")
    assert train["label"].sum() == 749
    assert set(train["phenomenon"]) == {"plain", "negation", "contrast", "comparison", "sarcasm", "understatement"}
    assert not any("dropped" in note for note in prepared.notes)


def test_the_test_split_is_not_open_to_the_search(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test is not open"):
        prepare(tmp_path).frame("test")


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_one_file_of_any_kind_becomes_three_splits(tmp_path: Path, kind: str) -> None:
    file, table = tmp_path / f"reviews.{kind}", pd.DataFrame(ROWS, columns=["text", "label"])
    match kind:
        case "csv" | "tsv":
            table.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
        case "json" | "jsonl":
            table.to_json(file, orient="records", lines=kind == "jsonl")
        case "parquet":
            table.to_parquet(file)
    prepared = prepare(tmp_path, *FILES, f"data.path={file}")
    assert prepared.sizes == {"train": 82, "validation": 14, "test": 24}
    assert sum(prepared.sizes.values()) == len(ROWS)
    assert prepared.frame("train")["label"].isin([0, 1]).all()


def test_a_folder_with_a_file_per_split_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, split in enumerate(("train", "validation", "test")):
        write_rows(folder / f"{split}.csv", [(f"{t} {split}", lab) for t, lab in ROWS[i::3]])
    assert prepare(tmp_path, *FILES, f"data.path={folder}").sizes == {"train": 40, "validation": 40, "test": 40}


def test_shards_of_a_split_are_joined(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d" / "data", **{
        "train-00000-of-00002": frame(GOOD, [1] * 60), "train-00001-of-00002": frame(BAD, [0] * 60),
    })  # fmt: skip
    assert sum(prepare(tmp_path, *FILES, f"data.path={folder.parent}").sizes.values()) == 120


def sst2(tmp_path: Path, train: list[str], dev: list[str]) -> dataset.PreparedDataset:
    folder = parquet_folder(
        tmp_path / "sst2",
        train=frame(train, [i % 2 for i in range(len(train))], "sentence"),
        validation=frame(dev, [i % 2 for i in range(len(dev))], "sentence"),
        test=frame(["hidden"], [-1], "sentence"),
    )
    return prepare(tmp_path, "data=sst2", f"data.path={folder}", "data.carve.validation.size=4")


def test_sst2_drops_phrases_of_held_out_sentences_and_carves_whole_sentences(tmp_path: Path) -> None:
    sentences = [f"the plot number {i} goes nowhere at all" for i in range(20)]
    dev = ["a warm , funny and moving film", "it never quite ignites"]
    phrases = ["Warm, funny", "never quite", "goes nowhere", "a warm , funny and moving film .", "moving picture"]
    prepared = sst2(tmp_path, sentences + phrases, dev)
    train, validation = prepared.frame("train"), prepared.frame("validation")
    assert len(validation) == 4
    assert set(validation["text"]) <= {*sentences, *phrases[3:]}  # no phrase is judged on
    assert not set(train["text"]) & {"Warm, funny", "never quite", "a warm , funny and moving film ."}
    assert prepared.notes["train_dropped_part_of_text_as_test"] == 2
    assert prepared.notes["train_dropped_same_text_as_test"] == 1
    assert "goes nowhere" not in set(train["text"])  # a part of a validation sentence
    assert prepared.sizes["test"] == 2


def test_carving_takes_whole_sentences_only() -> None:
    texts = pd.Series(["a long sentence about it", "long sentence", "about it", "Another one."])
    assert leakage.is_no_phrase_of_another(texts).tolist() == [True, False, False, True]


def test_what_test_holds_leaves_train_and_validation(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_rows(folder / "train.csv", [*ROWS, ("Shared, by all!", "yes"), ("shared by two", "no")])
    write_rows(
        folder / "validation.csv", [("SHARED by all", "yes"), ("Shared by two.", "no"), ("ok so", "yes"), ("no", "no")]
    )
    write_rows(folder / "test.csv", [("shared by all", "yes"), ("other", "no"), ("one", "yes")])
    prepared = prepare(tmp_path, *FILES, f"data.path={folder}")
    assert prepared.sizes == {"train": 120, "validation": 3, "test": 3}
    assert prepared.notes["validation_dropped_same_text_as_test"] == 1
    assert prepared.notes["train_dropped_same_text_as_test"] == 1
    assert prepared.notes["train_dropped_same_text_as_validation"] == 1


@pytest.mark.parametrize(("name", "sizes"), [("imdb_3k", (2400, 600, 300)), ("imdb_1k", (800, 200, 100))])
def test_imdb_subsets_count_before_carving_and_balance(tmp_path: Path, name: str, sizes: tuple[int, ...]) -> None:
    folder = parquet_folder(
        tmp_path / "imdb",
        train=frame([f"train review {i}" for i in range(4000)], [int(i % 5 > 1) for i in range(4000)]),
        test=frame([f"test review {i}" for i in range(900)], [i % 2 for i in range(900)]),
    )
    prepared = prepare(tmp_path, f"data={name}", f"data.path={folder}")
    assert tuple(prepared.sizes.values()) == sizes
    assert prepared.frame("train")["label"].mean() == prepared.frame("validation")["label"].mean() == 0.5
    capped = prepare(tmp_path, f"data={name}", f"data.path={folder}", "data.max_examples=150")
    assert tuple(capped.sizes.values()) == (150, 150, min(150, sizes[2]))
    each = prepare(tmp_path, f"data={name}", f"data.path={folder}", "data.max_examples={train: 90}")
    assert tuple(each.sizes.values()) == (90, *sizes[1:])


def test_the_split_seed_decides_what_is_carved(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "r.csv", ROWS)
    prints = [prepare(tmp_path, *FILES, f"data.path={file}", f"data.split_seed={s}").fingerprint for s in (1, 2, 1)]
    assert prints[0] == prints[2] != prints[1]


def test_changed_bytes_are_prepared_anew(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "r.csv", ROWS)
    before = prepare(tmp_path, *FILES, f"data.path={file}")
    assert prepare(tmp_path, *FILES, f"data.path={file}").folder == before.folder
    write_rows(file, [*ROWS, ("one more", "no")])
    assert prepare(tmp_path, *FILES, f"data.path={file}").fingerprint != before.fingerprint


def test_the_test_split_may_be_carved_out_of_a_carved_validation_split(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "r.csv", ROWS)
    prepared = prepare(tmp_path, *FILES, f"data.path={file}", "data.carve.validation.size=0.4",
                   "data.carve.test.source=validation", "data.carve.test.size=0.5")  # fmt: skip
    assert prepared.sizes["test"] == pytest.approx(0.2 * len(ROWS), abs=2)
    assert prepared.sizes["validation"] == pytest.approx(0.2 * len(ROWS), abs=2)


def test_all_but_one_can_be_sampled() -> None:
    table = frame([f"text {i}" for i in range(101)], [i % 2 for i in range(101)]).assign(row=0)
    assert len(splits.stratified_sample(table, 100, 1, False, "data.max_examples")) == 100


def test_a_balanced_sample_that_cannot_be_had_is_refused() -> None:
    table = frame([*GOOD, "x"], [1] * 60 + [0]).assign(row=0)
    with pytest.raises(InvalidInput, match=r"asks for 10 balanced examples, 5 of each label; label 0 has only 1\."):
        splits.stratified_sample(table, 10, 1, True, "data.subset.train")


def test_texts_are_tokenised_once_per_texts_tokenizer_and_length(tmp_path: Path) -> None:
    prepared, cache = prepare(tmp_path), tmp_path / "cache"
    tokenizer = pretrained.load_tokenizer(pretrained.resolve(settings_of("model=tiny").recipe.model, cache))
    key = tokenization.tokenizer_key(tokenizer)
    first = tokenization.tokenize_split(prepared, "validation", tokenizer, 16, cache)
    assert tokenization.tokenizer_key(tokenizer) == key  # use leaves no trace in it
    stamp = {p: p.stat().st_mtime_ns for p in (cache / "tokens").rglob("*.arrow")}
    again = tokenization.tokenize_split(prepared, "validation", tokenizer, 16, cache)
    assert {p: p.stat().st_mtime_ns for p in (cache / "tokens").rglob("*.arrow")} == stamp
    assert first["input_ids"][:] == again["input_ids"][:]
    assert max(first["length"][:]) == 16
    assert tokenization.tokenize_split(prepared, "validation", tokenizer, 32, cache)["length"][:] != first["length"][:]
    assert len(list((cache / "tokens").glob("*/"))) == 2


def test_a_split_reads_back_as_it_was_written(tmp_path: Path) -> None:
    prepared = prepare(tmp_path)
    meta = json.loads((prepared.folder / "corpus.json").read_text())
    assert meta["sizes"]["train"] == len(prepared.frame("train"))
    train, validation = prepared.frame("train"), prepared.frame("validation")
    again = splits.Splits(train, validation, train, labels.Labels(prepared.label_names, prepared.label_values))
    assert again.fingerprint("train") == prepared.fingerprints["train"]


def test_a_study_keeps_what_an_earlier_version_prepared_for_it(tmp_path: Path) -> None:
    """By the rules of that version, in which texts that differ by an emoji were the same."""
    file = write_rows(tmp_path / "r.csv", ROWS)
    overrides = [*FILES, f"data.path={file}"]
    now = prepare(tmp_path, *overrides)
    data, cache = settings_of(*overrides).data, tmp_path / "cache"
    old = cache / "data" / dataset._key_of_version_2(data)
    shutil.copytree(now.folder, old)
    meta = json.loads((old / "corpus.json").read_text())
    for key in ("label_values", "label_counts", "rows_read", "remarks"):
        del meta[key]
    meta["fingerprints"]["train"] = "0123"
    (old / "corpus.json").write_text(json.dumps(meta))
    fingerprint = dataset._read(old, data).fingerprint
    assert dataset.prepare_dataset(data, cache, lambda: fingerprint).folder == old
    assert dataset.prepare_dataset(data, cache, lambda: now.fingerprint).folder == now.folder
    assert dataset.prepare_dataset(data, cache).folder == now.folder


def test_the_key_of_the_earlier_version_is_what_it_was() -> None:
    """The prepared starter reviews of a study that commit 2660cc4 began lie under this name."""
    assert dataset._key_of_version_2(settings_of("data.max_examples=100").data) == "4dbff1e78b457283955f"
