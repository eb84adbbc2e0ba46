"""Labels: by name, in one rule for all splits; positions only where nothing else is said."""

import dataclasses
from pathlib import Path

import datasets
import pandas as pd
import pytest

from src.config.settings import DataSettings
from src.core.errors import InvalidInput
from src.data import labels, loading
from tests.support.data import settings_of, write_rows

Names = list[str] | dict[str, str] | None


def data_with(names: Names) -> DataSettings:
    return dataclasses.replace(settings_of().data, label_names=names)


def find(names: Names, train: list[str], test: list[str] | None = None, own: tuple[str, ...] = ()) -> labels.Labels:
    columns = {"train": pd.Series(train, dtype=object)} | ({"test": pd.Series(test, dtype=object)} if test else {})
    return labels.find_labels(columns, data_with(names), own, "here")


@pytest.mark.parametrize(
    ("written", "names", "wanted"),
    [
        (["no", "yes", "no"], ["no", "yes"], [0, 1, 0]),
        (["yes", "no"], ["yes", "no"], [0, 1]),
        (["True", "False"], ["True", "False"], [0, 1]),  # not turned round by what Python makes of them
        (["true", "false"], ["True", "False"], [0, 1]),
        (["0", "1"], ["no", "yes"], [0, 1]),  # positions
        (["0.0", "1.0"], ["no", "yes"], [0, 1]),
        (["1", "0"], ["1", "0"], [0, 1]),  # names that are numbers
        (["1", "2"], ["2", "1"], [1, 0]),
        (["-1", "0", "1"], ["-1", "0", "1"], [0, 1, 2]),
        (["1.0", "2.0", "3.0"], ["1", "2", "3"], [0, 1, 2]),
        (["01", "02"], ["1", "2"], [0, 1]),
        (["None", "NA"], ["None", "NA"], [0, 1]),
        ([" good", "bad "], ["bad", "good"], [1, 0]),
        (["cafe\u0301", "the"], ["café", "the"], [0, 1]),  # the same word in Unicode
        (["neg", "pos"], {"neg": "negative", "pos": "positive"}, [0, 1]),
        (["negative", "positive"], {"neg": "negative", "pos": "positive"}, [0, 1]),
        (["0", "1"], {"neg": "negative", "pos": "positive"}, [0, 1]),
        (["1", "0"], {"0": "bad", "1": "good"}, [1, 0]),
        (["True", "False"], {"False": "no", "True": "yes"}, [1, 0]),
    ],
)
def test_given_names_are_found_in_the_file(written: list[str], names: Names, wanted: list[int]) -> None:
    assert find(names, written).indices(pd.Series(written)).tolist() == wanted


@pytest.mark.parametrize(
    ("written", "names", "says"),
    [
        (
            ["0", "1", "2"],
            ["1", "2", "3"],
            "outside data.label_names: '0'",
        ),  # no positions beside names that are numbers
        (["0", "1", "5"], ["a", "b"], "outside data.label_names: '0', '1', '5'"),
        (["no", "1"], ["no", "yes"], "outside data.label_names: '1'"),  # not a bit of both
        (["True", "False"], ["no", "yes"], r"To rename them: 'data.label_names=\{False: no, True: yes\}'"),
        (["good", "Good", "bad"], ["good", "bad"], "outside data.label_names"),  # two labels that differ in case
        (["0.5", "1"], ["no", "yes"], "outside data.label_names: '0.5', '1'"),
        (["-1", "0", "1"], ["no", "yes"], r"1 hidden labels \(-1\)"),
        (["0", "1"], ["negative", "neutral", "positive"], "data.label_names has 'positive', and no row of here has it"),
    ],
)
def test_what_does_not_go_together_is_refused(written: list[str], names: Names, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        find(names, written)


def test_one_rule_holds_for_all_splits() -> None:
    with pytest.raises(InvalidInput, match=r"outside data\.label_names: '0', '1'"):
        find(["no", "yes"], ["no", "yes"], ["0", "1"])
    assert find(["no", "yes"], ["0", "1"], ["1"]).indices(pd.Series(["1"])).tolist() == [1]


def test_names_that_are_left_out_are_the_files_in_natural_order() -> None:
    assert find(None, ["label 10", "label 2", "Label 1"]).names == ("Label 1", "label 2", "label 10")
    assert find(None, ["10", "9", "-1"]).names == ("-1", "9", "10")
    assert find(None, ["yes", "no"]).names == ("no", "yes")
    assert find(None, ["nan", "1", "inf"]).names == find(None, ["inf", "nan", "1"]).names == ("1", "inf", "nan")
    assert find(None, [f"intent {i}" for i in range(77)] * 3).names[76] == "intent 76"


def test_a_label_that_only_a_held_out_split_has_takes_a_word_of_consent() -> None:
    with pytest.raises(InvalidInput, match=r"'maybe' among the labels of test, and no row of train has it"):
        find(None, ["no", "yes"], ["maybe", "no"])
    assert find(["no", "yes", "maybe"], ["no", "yes"], ["maybe", "no"]).names == ("no", "yes", "maybe")


def test_hidden_labels_are_hidden_whoever_names_them() -> None:
    with pytest.raises(InvalidInput, match="The test split of here has 2 hidden labels"):
        find(None, ["0", "1"], ["-1", "-1"])
    with pytest.raises(InvalidInput, match="hidden"):
        find(None, ["neg", "pos"], ["-1", "-1"], own=("neg", "pos"))


def test_a_column_of_texts_is_no_column_of_labels() -> None:
    with pytest.raises(InvalidInput, match="has 100 different values in 100 rows"):
        find(None, [f"text {i}" for i in range(100)])


def test_names_of_the_source_win_over_positions() -> None:
    found = find(["positive", "negative"], ["negative", "positive"], own=("negative", "positive"))
    assert found.indices(pd.Series(["negative", "positive"])).tolist() == [1, 0]
    assert "every label goes by its name" in found.remarks[0]
    with pytest.raises(InvalidInput, match=r"The file itself names its labels 'neg', 'pos'.*\{neg: bad, pos: good\}"):
        find(["bad", "good"], ["neg", "pos"], own=("neg", "pos"))


def test_a_class_of_the_source_may_have_no_row() -> None:
    assert find(None, ["a", "c"], own=("a", "b", "c")).names == ("a", "b", "c")
    assert find(["a", "b", "c"], ["a", "c"], own=("a", "b", "c")).names == ("a", "b", "c")


@pytest.mark.parametrize("name", ["r.parquet", "saved"])
def test_labels_of_a_file_that_knows_their_names_are_names(tmp_path: Path, name: str) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    if name == "saved":
        rows.save_to_disk(str(tmp_path / name))
    else:
        rows.to_parquet(str(tmp_path / name))
    raw = loading.load_splits(settings_of("data=files", f"data.path={tmp_path / name}").data)
    assert raw.frames["train"]["label"].tolist() == ["pos", "neg", "-1"]
    assert raw.class_names == ("neg", "pos")


@pytest.mark.parametrize(
    ("names", "typed"),
    [
        (["bad", "good"], "'data.label_names=[bad,good]'"),
        (["no", "true"], "\"data.label_names=[no,'true']\""),
        (["1", "so so"], "\"data.label_names=['1','so so']\""),
        ([("0", "bad")], "'data.label_names={0: bad}'"),
        ([("True", "yes"), ("so so: x", "no")], "'data.label_names={True: yes, so\\ so\\:\\ x: no}'"),
    ],
)
def test_what_is_advised_can_be_typed(names: list[str] | list[tuple[str, str]], typed: str) -> None:
    assert labels.typed_names(names) == typed
    override = typed[1:-1]
    read = settings_of("data=files", "data.path=x", override).data.label_names
    assert read == (dict(names) if isinstance(names[0], tuple) else names)  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("data.label_names=[0,1]", ["0", "1"]),
        ("data.label_names=[True,False]", ["True", "False"]),
        ("data.label_names=[1e3,007]", ["1e3", "007"]),
        ("data.label_names=[1.0,2.0]", ["1.0", "2.0"]),
        ("data.label_names={0: bad, 1: good}", {"0": "bad", "1": "good"}),
        ("study.name=20240512", "20240512"),
        ("study.name=2024_05", "2024_05"),
        ("study.name=1e3", "1e3"),
        ("data.path=2024", "2024"),
    ],
)
def test_names_that_hydra_reads_as_numbers_are_the_words_that_were_typed(override: str, wanted: object) -> None:
    settings = settings_of("data=files", "data.path=x", override)
    group, key = override.partition("=")[0].split(".")
    assert getattr(getattr(settings, group), key) == wanted


def test_rows_are_accounted_for(tmp_path: Path) -> None:
    from src.data import dataset

    rows = [(f"text {i}", "ab"[i % 2]) for i in range(100)]
    (tmp_path / "d").mkdir()
    write_rows(tmp_path / "d" / "train.csv", [*rows, ("Text 0.", "a"), ("one more", "b")])
    write_rows(tmp_path / "d" / "test.csv", [*rows[:10], ("x", "a"), ("y", "b")])
    settings = settings_of("data=files", f"data.path={tmp_path / 'd'}", "data.max_examples=60")
    prepared = dataset.prepare_dataset(settings.data, tmp_path / "cache")
    dropped = {k: n for k, n in prepared.notes.items() if "_dropped_" in k or "_left_out_" in k}
    assert dropped == {"train_dropped_same_text_as_test": 11, "train_left_out_by_max_examples": 17}
    assert prepared.rows_read == {"train": 102, "test": 12}
    assert sum(prepared.rows_read.values()) == sum(prepared.sizes.values()) + sum(dropped.values())
    assert {split: sum(counts) for split, counts in prepared.label_counts.items()} == prepared.sizes
    assert prepared.label_values == ("a", "b")
