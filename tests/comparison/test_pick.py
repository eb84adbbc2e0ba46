"""Which trial a comparison takes on, where a study has several objectives."""

from pathlib import Path

import pytest

from src.comparison.pick import knee_of, pick_trial
from src.config.settings import PickRule
from src.core.errors import InvalidInput
from src.core.records import State, TrainingResult
from src.search import trial_lifecycle
from src.search.space import build_space
from src.search.study import Study
from tests.support.data import settings_of

# accuracy and megabytes; the first is on no front, and the last one is out of bounds
VALUES = [(0.80, 90.0), (0.90, 100.0), (0.89, 40.0), (0.85, 38.0), (0.60, 10.0), (0.99, 500.0)]


def study_of(folder: Path, *overrides: str, values: list[tuple[float, float]] = VALUES) -> Study:
    settings = settings_of("study.name=s", f"study.n_trials={len(values) + 1}", "pruner=none", *overrides)
    study = Study(settings, build_space(settings), "maximize", folder)
    study.create({"space": study.space.describe()})
    for accuracy, megabytes in values:
        claim = trial_lifecycle.claim_trial(study)
        assert claim is not None
        metrics = {"accuracy": accuracy, "f1": accuracy}
        result = TrainingResult(State.COMPLETE, accuracy, metrics, megabytes=megabytes, ms_per_1000_texts=1.0)
        trial_lifecycle.finish_trial(study, claim, result)
    return study


SEVERAL = ("study.metric=[accuracy,megabytes]", "study.constraints={megabytes:{max:200}}")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_of(tmp_path, *SEVERAL)


def test_the_front_has_what_nothing_dominates_within_the_constraints(study: Study) -> None:
    assert [t.number for t in study.front()] == [1, 2, 3, 4]
    assert study.best_trial() == study.front()[0]
    assert study.trials()[5].violates == ("megabytes 500 is above 200",)


def test_the_knee_is_nearest_to_the_best_of_everything(study: Study) -> None:
    assert pick_trial("knee", study).number == 2


def test_a_number(study: Study) -> None:
    assert pick_trial(0, study).number == 0
    with pytest.raises(InvalidInput, match="and s has no such trial"):
        pick_trial(77, study)
    with pytest.raises(InvalidInput, match=r"not within study\.constraints: megabytes 500 is above 200"):
        pick_trial(5, study)


@pytest.mark.parametrize(
    ("within", "then", "number"),
    [
        ({"accuracy": 0.02}, "megabytes", 2),
        ({"accuracy": 0.05}, "megabytes", 3),
        ({"accuracy": 0.0}, "megabytes", 1),
        ({"megabytes": 30.0}, "accuracy", 2),
        ({"accuracy": 1.0}, "megabytes", 4),
    ],
)
def test_a_rule(study: Study, within: dict[str, float], then: str, number: int) -> None:
    assert pick_trial(PickRule(within, then), study).number == number


def test_a_rule_that_asks_for_too_much_or_for_something_else(study: Study) -> None:
    with pytest.raises(InvalidInput, match="no trial of the front of s is so near to the best of all of"):
        pick_trial(PickRule({"accuracy": 0.0, "megabytes": 0.0}, "accuracy"), study)
    with pytest.raises(InvalidInput, match="seconds is no objective of s; it has accuracy, megabytes"):
        pick_trial(PickRule({"accuracy": 0.1}, "seconds"), study)


def test_one_objective_has_no_knee(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    with pytest.raises(InvalidInput, match="s has one objective, accuracy: it has no front"):
        pick_trial("knee", study)
    assert pick_trial(3, study).number == 3


def test_of_equally_near_ones_the_first(study: Study) -> None:
    first, *_, last = study.front()
    assert knee_of([first, last], ["accuracy", "megabytes"]) == first
    assert knee_of([last], ["accuracy", "megabytes"]) == last


def test_without_any_trial_within_the_constraints(tmp_path: Path) -> None:
    study = study_of(tmp_path, "study.metric=[accuracy,megabytes]", "study.constraints={megabytes:{max:1}}")
    assert study.best_trial() is None
    with pytest.raises(InvalidInput, match="no trial of s is complete and within its constraints"):
        pick_trial("knee", study)
