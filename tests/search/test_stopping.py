"""When a study has had enough."""

import dataclasses

import pytest

from src.config.settings import StudySettings
from src.core.records import State, TrainingResult, TrialRecord
from src.search.stopping import best_trial, epochs_spent, only_failures, stop_reason
from tests.support.data import settings_of


def rules(**changes: object) -> StudySettings:
    return dataclasses.replace(settings_of("study.n_trials=10").study, **changes)


def ended(*scores: float | None) -> list[TrialRecord]:
    """Trials by score; None is a failed one."""
    return [
        TrialRecord(
            i, {}, TrainingResult(State.FAIL, reason="boom") if s is None else TrainingResult(State.COMPLETE, s)
        )
        for i, s in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("trials", "changes", "seconds", "says"),
    [
        (ended(0.5), {}, 0, None),
        (ended(*[0.5] * 10), {}, 0, "all 10 trials are done"),
        (ended(*[None, 0.5] * 5), {}, 0, "all 10 trials are done"),
        (ended(0.5), {"budget_minutes": 2.0}, 119, None),
        (ended(0.5), {"budget_minutes": 2.0}, 120, "the budget of 2 minutes is spent"),
        (ended(0.5, 0.9), {"target": 0.9}, 0, "trial 1 reached the target of 0.9 with 0.9000"),
        (ended(0.5, 0.8), {"target": 0.9}, 0, None),
        (ended(0.9, 0.5), {"patience": 2}, 0, None),
        (ended(0.9, 0.5, 0.9), {"patience": 2}, 0,
         "2 trials in a row brought nothing better than trial 0 (study.patience)"),
        (ended(0.9, None, None), {"max_failures": 3}, 0, None),
        (ended(None, None, None), {"max_failures": 3}, 0,
         "3 trials in a row failed (study.max_failures), the last, trial 2, because boom"),
        (ended(None, None, 0.5, None), {"max_failures": 3}, 0, None),
    ],
)  # fmt: skip
def test_enough(trials: list[TrialRecord], changes: dict[str, object], seconds: float, says: str | None) -> None:
    assert stop_reason(trials, rules(**changes), "maximize", seconds) == says


def test_a_budget_of_epochs_counts_each_trial_as_far_as_it_got() -> None:
    recipe = settings_of("trainer.num_train_epochs=4").recipe
    whole = TrialRecord(0, {}, TrainingResult(State.COMPLETE, 0.5, share=1.0))
    pruned = TrialRecord(1, {"trainer.num_train_epochs": 6}, TrainingResult(State.PRUNED, share=0.5))
    failed = TrialRecord(2, {"trainer.num_train_epochs": 6}, TrainingResult(State.FAIL))
    assert epochs_spent([whole, pruned, failed], recipe) == 7
    assert stop_reason([whole], rules(budget_epochs=7.0), "maximize", 0, 6.9) is None
    assert stop_reason([whole], rules(budget_epochs=7.0), "maximize", 0, 7.0) == "the budget of 7 epochs is spent"


def test_less_is_better_when_minimising() -> None:
    trials = ended(0.5, 0.2, 0.9)
    assert best_trial(trials, "minimize").number == 1
    assert stop_reason(trials, rules(target=0.2), "minimize", 0) == "trial 1 reached the target of 0.2 with 0.2000"


def test_a_study_of_nothing_but_failures_says_why_the_first_failed() -> None:
    assert only_failures([]) is None
    assert only_failures(ended(None, 0.5)) is None
    assert only_failures(ended(None)) == "its only trial failed, because boom"
    assert only_failures(ended(None, None)) == "all 2 trials failed, the first, trial 0, because boom"
