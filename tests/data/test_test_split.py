"""The test split is read by those who opened it, and every opening is counted once."""

from pathlib import Path

import pytest

from src.data import dataset, test_split
from tests.support.data import settings_of


def test_openings_are_counted_once_each_and_for_all_studies(tmp_path: Path) -> None:
    prepared = dataset.prepare_dataset(settings_of("data.max_examples=60").data, tmp_path / "cache")
    ledger = tmp_path / "openings" / "x.jsonl"
    with pytest.raises(ValueError, match="test is not open to the search"):
        prepared.frame("test")
    with pytest.raises(PermissionError, match="the test split of starter is sealed"):
        test_split.read_test_split(prepared, ledger, test_split.SplitOpening(1, "a"))
    first = test_split.open_test_split(prepared, ledger, "a", {"study": "one"})
    again = test_split.open_test_split(prepared, ledger, "a", {"study": "one"})
    second = test_split.open_test_split(prepared, ledger, "b", {"study": "two"})
    assert (first.number, again.number, second.number) == (1, 1, 2)
    assert test_split.opening_keys(ledger) == ["a", "b"]
    assert len(test_split.read_test_split(prepared, ledger, first)) == prepared.sizes["test"] == 60
    assert '"study": "two"' in ledger.read_text().splitlines()[1]


@pytest.mark.parametrize(
    ("content", "lost", "keys"),
    [
        (None, 3, ["a", "", "c"]),
        (b"", 3, ["a", "", "c"]),
        (bytes(50), 3, ["a", "", "c"]),
        (b'{"key": "a"}\n{"key": "b"}\n{"ke', 1, ["a", "b", "c"]),
        (b'{]\xff\n{"key": "b"}\n{"key": "c"}\n{"key": "d"}\n', 1, ["a", "b", "c", "d"]),
        (b'{"key": "c"}\n', 2, ["c", "", ""]),
        (b'{"key": "a"}\n{"key": "b"}\n{"key": "c"}\n', 0, ["a", "b", "c"]),
    ],
)
def test_no_opening_is_forgotten_with_a_damaged_ledger(
    tmp_path: Path, content: bytes | None, lost: int, keys: list[str]
) -> None:
    ledger = tmp_path / "x.jsonl"
    if content is not None:
        ledger.write_bytes(content)
    assert test_split.restore_ledger(ledger, {1: "a", 3: "c"}, at_least=3) == lost
    assert test_split.opening_keys(ledger) == keys
    assert test_split.restore_ledger(ledger, {1: "a", 3: "c"}, at_least=3) == 0
