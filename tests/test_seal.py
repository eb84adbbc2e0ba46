"""The test split is read by those who opened it, and every opening is counted once."""

from pathlib import Path

import pytest

from src.text import corpus, seal
from tests.conftest import settings_of


def test_openings_are_counted_once_each_and_for_all_studies(tmp_path: Path) -> None:
    made = corpus.prepare(settings_of("data.max_examples=60").data, tmp_path / "cache")
    ledger = tmp_path / "openings" / "x.jsonl"
    with pytest.raises(ValueError, match="test is not open to the search"):
        made.frame("test")
    with pytest.raises(PermissionError, match="the test split of starter is sealed"):
        seal.read(made, ledger, seal.Opening(1, "a"))
    first = seal.open_test(made, ledger, "a", {"study": "one"})
    again = seal.open_test(made, ledger, "a", {"study": "one"})
    second = seal.open_test(made, ledger, "b", {"study": "two"})
    assert (first.number, again.number, second.number) == (1, 1, 2)
    assert seal.openings(ledger) == ["a", "b"]
    assert len(seal.read(made, ledger, first)) == made.sizes["test"] == 60
    assert '"study": "two"' in ledger.read_text().splitlines()[1]
