"""Proposals: whole points, none twice, and the same ones after any interruption; for every sampler."""

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from src.config.settings import Settings
from src.core.records import Evaluation
from src.search import trial_lifecycle
from src.search.sampler import StudyView, best_and_latest
from tests.support.studies import finish, open_book

CONDITIONAL = "+space.optimizer.adam_beta2={low: 0.9, high: 0.999, when: {trainer.num_train_epochs: [3, 4]}}"
GRID = [
    "space=empty",
    "+space.trainer.num_train_epochs={low: 1, high: 3}",
    "+space.model.dropout={choices: [0.1, 0.2]}",
]
SAMPLERS = ["tpe", "gp", "random", "cmaes", "qmc"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_study_proposes_what_an_uninterrupted_one_does(tmp_path: Path, sampler: str) -> None:
    overrides = [f"sampler={sampler}", "study.n_trials=12", CONDITIONAL]
    uninterrupted = finish(open_book(tmp_path / "a", *overrides))
    pieces = [p for most in (1, 4, 20) for p in finish(open_book(tmp_path / "b", *overrides), most)]
    assert uninterrupted == pieces
    assert len({str(p) for p in uninterrupted}) == len(uninterrupted) == 12


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_a_finite_space_is_tried_whole_and_then_ends(tmp_path: Path, sampler: str) -> None:
    if sampler == "cmaes":
        GRID_HERE = [GRID[0], GRID[1], "+space.model.dropout={low: 0.1, high: 0.2, step: 0.1}"]  # noqa: N806
    else:
        GRID_HERE = GRID  # noqa: N806
    study = open_book(tmp_path, f"sampler={sampler}", *GRID_HERE, "study.n_trials=10")
    points = finish(study)
    assert len(points) == len({str(sorted(p.items())) for p in points}) == 6
    assert study.end_reason() == "all 6 points of the space have been tried"


def test_a_condition_decides_which_keys_a_point_has(tmp_path: Path) -> None:
    points = finish(open_book(tmp_path, CONDITIONAL, "study.n_trials=12"))
    assert any("optimizer.adam_beta2" in p for p in points)
    for params in points:
        assert ("optimizer.adam_beta2" in params) == (params["trainer.num_train_epochs"] in (3, 4))


def test_trial_0_is_the_default_recipe_and_enqueued_settings_follow(
    tmp_path: Path, settings: Callable[..., Settings]
) -> None:
    known = (
        "{optimizer.learning_rate: 1e-4, optimizer.weight_decay: 0.0, trainer.num_train_epochs: 2, model.dropout: 0.2}"
    )
    study = open_book(tmp_path, f"study.enqueue=[{known},{{trainer.num_train_epochs: 1}}]", "study.n_trials=4")
    first, second, third, _ = finish(study)
    flat = settings().recipe.flatten()
    assert first == {key: flat[key] for key in first}
    assert second["optimizer.learning_rate"] == 1e-4
    assert third["trainer.num_train_epochs"] == 1
    assert [t.origin for t in study.trials()] == ["default recipe", "enqueued", "enqueued", "sampler"]


def test_a_raised_total_goes_on_and_a_lowered_one_adds_nothing(tmp_path: Path) -> None:
    assert len(finish(open_book(tmp_path, "study.n_trials=3"))) == 3
    assert len(finish(open_book(tmp_path, "study.n_trials=5"))) == 2
    assert finish(open_book(tmp_path, "study.n_trials=4")) == []


def test_qmc_points_are_one_sequence(tmp_path: Path) -> None:
    """Its spread over the unit interval is that of a Sobol sequence, not of random points."""
    points = finish(open_book(tmp_path, "sampler=qmc", "study.n_trials=18"))
    values = sorted(float(p["model.dropout"]) / 0.3 for p in points[2:])  # the first two are not the sequence's
    assert max(abs(v - (i + 0.5) / 16) for i, v in enumerate(values)) < 1 / 8


def test_paused_trials_inform_the_sampler(tmp_path: Path) -> None:
    """With asha a trial that stands at a rung is RUNNING for Optuna; the sampler sees it as pruned, with its score."""
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=9")
    claimed = trial_lifecycle.claim_trial(study)
    trial_lifecycle.report_score(study, claimed, Evaluation(1, 0.25, 16, {"accuracy": 0.6}, 0.1))
    (seen,) = StudyView(study.optuna_study).get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    assert (seen.number, seen.intermediate_values) == (0, {25: 0.6})
    assert study.frozen_trial(0).state == TrialState.RUNNING


def test_a_kill_between_two_keys_keeps_the_proposal(tmp_path: Path) -> None:
    uninterrupted = finish(open_book(tmp_path / "a", "study.n_trials=9"))
    study = open_book(tmp_path / "b", "study.n_trials=9")
    finish(study, 8)
    trial_id = study.storage.create_new_trial(study.optuna_study._study_id)
    first = study.space.parameters[0]
    value = uninterrupted[8][first.key]
    study.storage.set_trial_param(trial_id, first.key, value, first.distribution)  # and then it was killed
    assert finish(study) == uninterrupted[8:]


def test_hyperbands_brackets_share_no_point(tmp_path: Path) -> None:
    study = open_book(tmp_path, "pruner=hyperband", *GRID, "sampler=random", "study.n_trials=10")
    points = finish(study)
    assert len(points) == len({str(sorted(p.items())) for p in points}) == 6


def test_of_many_trials_a_sampler_sees_the_best_and_the_latest(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.n_trials=40", "sampler=random")
    finish(study, 30)
    claimed = trial_lifecycle.claim_trial(study)
    every = study.optuna_study.get_trials(deepcopy=False)
    assert best_and_latest(every, 100, direction="maximize") == every
    seen = [t.number for t in best_and_latest(every, 10, direction="maximize")]
    best = max(every[:30], key=lambda t: t.value or 0).number
    assert seen == sorted({best, *range(21, 30), claimed.number})
    assert len(StudyView(study.optuna_study, 10).get_trials(deepcopy=False)) == len(seen)
