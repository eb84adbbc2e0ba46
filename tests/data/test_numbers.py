"""Numbers of a regression: how they are read, split and refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.core.task import REGRESSION, labels_of
from src.data.dataset import PreparedDataset, prepare_dataset
from src.data.numbers import describe, strata
from tests.support.data import settings_of, write_rows


def prepare(folder: Path, rows: list[tuple[object, ...]], *overrides: str) -> PreparedDataset:
    file = write_rows(folder / "stars.csv", rows)
    words = ["data=files", f"data.path={file}", "data.task=regression", *overrides]
    return prepare_dataset(settings_of(*words).data, folder / "cache")


def test_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    rows = [(f"text {i}", cell) for i, cell in enumerate([" 3 ", "-1.5", "1e3", "0.1", "2.0"] * 20)]
    found = prepare(tmp_path, rows)
    assert found.kind == REGRESSION
    assert found.label_names == ("label",)
    assert found.task.is_regression
    frames = [found.frame("train"), found.frame("validation"), pd.read_parquet(found.folder / "test.parquet")]
    values = np.concatenate([labels_of(frame) for frame in frames])
    assert values.dtype == np.float64
    assert sorted(set(values)) == [-1.5, 0.1, 2.0, 3.0, 1000.0]
    assert len(values) == 100


def test_splits_have_the_same_distribution(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).exponential(1.0, 1000)
    found = prepare(tmp_path, [(f"text {i}", n) for i, n in enumerate(numbers)], "data.max_examples={train: 300}")
    assert found.sizes == {"train": 300, "validation": 120, "test": 200}
    edges = np.quantile(numbers, np.linspace(0.1, 0.9, 9))
    for split in ("train", "validation"):
        shares = np.bincount(np.digitize(found.labels(split), edges), minlength=10) / found.sizes[split]
        assert shares == pytest.approx(np.full(10, 0.1), abs=0.035)


def test_parts_are_of_equal_size_also_with_equal_numbers() -> None:
    parts = strata(pd.Series([1.0] * 50 + [2.0] * 50))
    assert parts.value_counts().tolist() == [10] * 10
    assert strata(pd.Series([1.0, 2.0, 3.0])).tolist() == [0, 0, 0]
    assert describe(np.array([1.0, 2.0, 4.5])) == "1 to 4.5, mean 2.5, standard deviation 1.472"


@pytest.mark.parametrize(
    ("cell", "said"),
    [("good", "'good' in row 3"), ("nan", "'nan' in row 3"), ("inf", "'inf' in row 3"), ("3;5", "'3;5' in row 3")],
)
def test_a_cell_without_a_number_is_refused(tmp_path: Path, cell: str, said: str) -> None:
    rows = [(f"text {i}", cell if i == 2 else i) for i in range(60)]
    with pytest.raises(InvalidInput, match=rf"train split of .* has 1 rows whose 'label' is no number: {said}\."):
        prepare(tmp_path, rows)


def test_what_is_about_labels_is_refused(tmp_path: Path) -> None:
    rows = [(f"text {i}", i) for i in range(60)]
    for setting in ("data.label_names=[a,b]", "data.balance=true"):
        with pytest.raises(InvalidInput, match=r"is about labels, and data\.task is regression"):
            prepare(tmp_path, rows, setting)
    with pytest.raises(InvalidInput, match="all of them have the same number"):
        prepare(tmp_path, [(f"text {i}", 3) for i in range(60)])


def test_numbers_without_the_task_are_offered_it(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "stars.csv", [(f"text {i}", i / 7) for i in range(60)])
    with pytest.raises(InvalidInput, match=r"If they are numbers to predict, type data\.task=regression\."):
        prepare_dataset(settings_of("data=files", f"data.path={file}").data, tmp_path / "cache")
