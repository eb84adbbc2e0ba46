"""Bad input: every case of the page is refused with exactly what the page says, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.support import bad_input
from tests.support.bad_input import CASES, GROUPS, PAGE, Case
from tests.support.commands import Place


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_what_is_refused(case: Case, tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    message, new = bad_input.refusal(case, folder)
    assert bad_input.row(case, message) in PAGE.read_text().splitlines()
    assert new == []
    assert "secret" not in message


def test_the_page_has_these_cases_and_no_others() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == len(CASES) + len(GROUPS)
    assert len({case.what for case in CASES}) == len(CASES) >= 60


def test_a_refused_command_exits_2_with_the_message_and_no_trace(place: Place) -> None:
    (case,) = [c for c in CASES if c.what == "one label only"]
    assert case.make
    case.make(place.folder)
    done = place.sweep(*case.base, *case.overrides)
    message = done.err.strip().replace(str(place.folder), "<folder>")
    assert done.code == 2
    assert bad_input.row(case, message) in PAGE.read_text().splitlines()
    assert not bad_input.kept(place.folder)


def test_hydras_own_errors_exit_with_2_too(place: Place) -> None:
    done = place.sweep("model=gpt9")
    assert done.code == 2
    assert "minilm" in done.err


@pytest.mark.long
def test_code_that_a_config_names_is_not_run(place: Place) -> None:
    done = place.sweep("+hydra.callbacks.bad={_target_: os.system, command: touch was-run}")
    assert done.code != 0
    assert not (place.folder / "was-run").exists()
