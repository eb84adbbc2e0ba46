"""Eight seeds of the campaign of faults (tests/support/faults.py), and what it takes for a problem."""

from pathlib import Path

import pytest

from tests.support import faults

SEEDS = range(8)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "base"
    faults.prepare(folder)
    return folder


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_ends_in_a_right_result_or_a_sentence(base: Path, seed: int) -> None:
    outcome = faults.run_seed(base, seed)
    assert not outcome.problem, outcome


@pytest.mark.parametrize(
    ("code", "said", "problem"),
    [
        (0, "done", False),
        (2, "study.n_trials is 0; it must be at least 1.", False),
        (3, "champion was not moved", False),
        (2, "", True),
        (-11, "Segmentation fault", True),
        (1, "Traceback (most recent call last):\nValueError: x", True),
        (1, "An unexpected error, ValueError: x", True),
    ],
)
def test_what_counts_as_a_problem(code: int, said: str, problem: bool) -> None:
    assert bool(faults.problem_of(code, said, stopped=False)) == problem


def test_a_killed_command_says_nothing() -> None:
    assert faults.problem_of(-9, "", stopped=True) == ""
