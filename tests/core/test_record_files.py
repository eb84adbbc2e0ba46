"""Small files that were emptied, cut or overwritten are as if they were not there; newer ones are refused."""

from pathlib import Path

import pytest

from src.core import record_files
from src.core.errors import InvalidInput
from src.core.record_files import read_json, read_record
from src.core.records import TrainingResult

DAMAGED = [b"", b"{", b'{"state": "COM', b"{]\xff\n", bytes(20), b"[]", b'{"wrong": [1', b"null"]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_said", set())


@pytest.mark.parametrize("content", DAMAGED, ids=repr)
def test_a_damaged_record_is_as_if_it_were_not_there_and_that_is_said_once(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "outcome.json"
    assert read_record(file, TrainingResult.from_json) is None
    assert capsys.readouterr().err == ""
    file.write_bytes(content)
    for _ in range(2):
        assert read_record(file, TrainingResult.from_json) is None
    assert capsys.readouterr().err.count(f"{file} is damaged") == 1


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    file.write_text('{"state": "COMPLETE", "colour": "blue"}')
    with pytest.raises(InvalidInput, match=r"was written by a newer version of Trialbook .*has no field colour"):
        read_record(file, TrainingResult.from_json)


@pytest.mark.parametrize("content", ["", "[1]", "3", "null", "{"])
def test_json_of_another_type_is_the_default(tmp_path: Path, content: str) -> None:
    file = tmp_path / "spent.json"
    file.write_text(content)
    assert read_json(file, {"a": 1}) == {"a": 1}
    file.write_text('{"b": 2}')
    assert read_json(file, {"a": 1}) == {"b": 2}
