"""Every error of a command is a sentence, with the same exit code whether or not the traceback is shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli.entry import handle_errors
from src.config.groups import ROOT
from src.console import error_messages
from src.core.errors import CommandFailed, InvalidInput, NotReproduced, PromotionDeclined

CODES = [
    (InvalidInput("a is 1; it is 2."), 2), (PromotionDeclined("not better"), 3), (CommandFailed("no"), 1),
    (NotReproduced("differs"), 1), (KeyError("lost"), 1), (KeyboardInterrupt(), 130), (BrokenPipeError(), 141),
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", open(os.devnull, "w"))  # noqa: SIM115  # a broken pipe replaces it


@pytest.mark.parametrize("full", ["0", "1"])
@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_exit_codes(error: BaseException, code: int, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    with pytest.raises(SystemExit) as end, handle_errors():
        raise error
    assert end.value.code == code


def test_an_unexpected_error_is_a_sentence_and_its_traceback_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), handle_errors(error_messages.STARTS_AGAIN):
        raise KeyError("postgresql://me:secret@host/db")
    (file,) = (tmp_path / "mlruns" / "errors").iterdir()
    assert capsys.readouterr().err == (
        f"\nAn unexpected error, KeyError: 'postgresql://***@host/db'. Its traceback is in {file}. Nothing that was "
        "recorded before is lost; the same command starts again.\n"
    )
    assert "test_entry.py" in file.read_text()
    assert "secret" not in file.read_text()


def test_a_folder_that_cannot_be_written_puts_the_traceback_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlruns").write_text("a file where a folder would be")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(SystemExit), handle_errors():
        raise KeyError
    (file,) = (tmp_path / "temporary").iterdir()
    assert f"Its traceback is in {file}." in capsys.readouterr().err


def test_a_traceback_is_printed_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit), handle_errors():
        raise InvalidInput("a is 1; it is 2.")
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("\na is 1; it is 2.\n")


def test_ctrl_c_before_the_commands_own_part_is_a_sentence() -> None:
    script = "from src.cli.entry import run_and_exit\ndef command(): raise KeyboardInterrupt\nrun_and_exit(command)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped before anything was done.\n")
