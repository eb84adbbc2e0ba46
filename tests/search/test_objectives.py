"""Several objectives and constraints, as the study stores them and as samplers and pruners see them."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from src.core.records import Evaluation, State, TrainingResult
from src.search import trial_lifecycle
from src.search.importance import importances
from src.search.space import build_space
from src.search.study import Study
from tests.support.data import settings_of
from tests.support.studies import open_book

SEVERAL = "study.metric=[accuracy,megabytes]"


def result_of(params: dict[str, object]) -> TrainingResult:
    """A made-up trade-off: more epochs are better and larger; a learning rate of 1e-4 is best."""
    epochs, rate = float(str(params["trainer.num_train_epochs"])), float(str(params["optimizer.learning_rate"]))
    accuracy = epochs / 10 - abs(rate - 1e-4) * 1e3
    return TrainingResult(State.COMPLETE, accuracy, {"accuracy": accuracy}, megabytes=10 * epochs)


def search(study: Study) -> list[dict[str, object]]:
    points = []
    while (claim := trial_lifecycle.claim_trial(study)) is not None:
        points.append(claim.params)
        trial_lifecycle.finish_trial(study, claim, result_of(claim.params))
    return points


def test_what_a_killed_command_has_begun_to_create_is_made_anew(tmp_path: Path) -> None:
    """With the directions and the inherited trials of the command that creates it."""
    begun = open_book(tmp_path / "other", "study.n_trials=1")
    search(begun)
    settings = settings_of("study.name=s", SEVERAL, "study.n_trials=2", "pruner=none")
    study = Study(settings, build_space(settings), "maximize", tmp_path / "s")
    half = optuna.create_study(study_name="s", storage=study.storage, direction="minimize")
    half.set_user_attr("uid", "0")
    half.add_trial(begun.optuna_study.get_trials()[0])
    assert not study.exists()
    study.create({"space": study.space.describe()})
    assert study.trials() == []
    assert len(search(study)) == 2
    assert len(study.optuna_study.directions) == 2
    assert study.optuna_study.user_attrs["uid"] != "0"


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "nsgaiii", "gp", "random", "qmc"])
def test_every_sampler_searches_for_several(tmp_path: Path, sampler: str) -> None:
    study = open_book(tmp_path, SEVERAL, f"sampler={sampler}", "study.n_trials=14", "pruner=none")
    assert len({str(p) for p in search(study)}) == 14
    assert all(len(t.values) == 2 for t in study.optuna_study.get_trials())
    assert len(study.front()) >= 2
    assert study.optuna_study.directions[1].name == "MINIMIZE"


def test_nsga_breeds_generations(tmp_path: Path) -> None:
    study = open_book(tmp_path, SEVERAL, "sampler=nsgaii", "study.n_trials=60", "pruner=none")
    points = search(study)
    far = [abs(float(str(p["optimizer.learning_rate"])) - 1e-4) for p in points]
    assert sum(far[-20:]) < 0.7 * sum(far[:20])


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "gp"])
def test_samplers_know_the_constraints(tmp_path: Path, sampler: str) -> None:
    """Few proposals are out of bounds once the sampler has seen some, though these have the best scores."""
    bounds = "study.constraints={megabytes:{max:30}}"
    study = open_book(tmp_path, f"sampler={sampler}", bounds, "study.n_trials=40", "pruner=none")
    points = search(study)
    out = [float(str(p["trainer.num_train_epochs"])) > 3 for p in points]
    assert sum(out[20:]) < sum(out[:20])
    best = study.best_trial()
    assert best is not None
    assert best.params["trainer.num_train_epochs"] <= 3
    (shown,) = [t.violates for t in study.trials() if t.number == out.index(True)]
    assert shown[0].startswith("megabytes ")


def test_of_equal_scores_the_better_one_in_the_others_is_the_best_and_keeps_its_weights(tmp_path: Path) -> None:
    study = open_book(tmp_path, SEVERAL, "study.n_trials=3", "pruner=none", "study.keep_checkpoints=1")
    for megabytes in (30.0, 10.0, 20.0):
        claim = trial_lifecycle.claim_trial(study)
        assert claim is not None
        (study.training_folder(claim.number) / "best").mkdir(parents=True)
        result = TrainingResult(State.COMPLETE, 0.5, {"accuracy": 0.5}, megabytes=megabytes)
        trial_lifecycle.finish_trial(study, claim, result)
    trial_lifecycle.delete_old_weights(study)
    best = study.best_trial()
    assert best is not None
    assert best.number == 1
    assert [t.number for t in study.front()] == [1]
    assert [f.parent.parent.name for f in tmp_path.glob("trials/*/training/best")] == ["0001"]


def test_a_trial_without_a_value_fails(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.metric=[accuracy,ms_per_1000_texts]", "study.n_trials=2")
    claim = trial_lifecycle.claim_trial(study)
    assert claim is not None
    trial_lifecycle.finish_trial(study, claim, TrainingResult(State.COMPLETE, 0.9, {"accuracy": 0.9}))
    (trial,) = study.ended_trials()
    assert (trial.state, trial.result.reason) == ("FAIL", "it has no ms_per_1000_texts")


@pytest.mark.parametrize("pruner", ["median", "halving", "patient", "asha"])
def test_trials_are_pruned_by_the_first_objective(tmp_path: Path, pruner: str) -> None:
    study = open_book(
        tmp_path, SEVERAL, f"pruner={pruner}", "study.n_trials=30", "study.rungs=[0.5,1.0]", "sampler=random"
    )
    n_stopped = 0
    for _ in range(12):
        claim = trial_lifecycle.claim_trial(study)
        assert claim is not None
        score = 0.9 - 0.05 * claim.number
        earlier = [Evaluation(1, 0.5, 1, {"accuracy": score}, 0.1)]
        decisions = [trial_lifecycle.report_score(study, claim, evaluation) for evaluation in earlier]
        if decisions[0] is None:
            whole = TrainingResult(State.COMPLETE, score, {"accuracy": score}, megabytes=1.0)
            trial_lifecycle.finish_trial(study, claim, whole)
        elif decisions[0].state == State.PRUNED:
            n_stopped += 1
            trial_lifecycle.finish_trial(study, claim, TrainingResult(State.PRUNED))
        else:
            n_stopped += 1
            trial_lifecycle.pause_trial(study, claim, TrainingResult(State.PAUSED))
    assert n_stopped > 0 or pruner == "patient"  # the score of one rung cannot show that it does not rise
    assert study.trials()[0].state == State.COMPLETE


def test_pruned_trials_have_no_values_and_samplers_do_not_see_them(tmp_path: Path) -> None:
    study = open_book(tmp_path, SEVERAL, "study.n_trials=12", "study.rungs=[0.5,1.0]")
    for number in range(12):
        claim = trial_lifecycle.claim_trial(study)
        assert claim is not None
        trial_lifecycle.report_score(study, claim, Evaluation(1, 0.5, 1, {"accuracy": 0.5}, 0.1))
        end = result_of(claim.params) if number % 2 else TrainingResult(State.PRUNED)
        trial_lifecycle.finish_trial(study, claim, end)
    assert {t.values is None for t in study.trials_in_state(TrialState.PRUNED)} == {True}
    assert len(study.trials_in_state(TrialState.COMPLETE)) == 6


def test_importances_are_those_for_the_first(tmp_path: Path) -> None:
    study = open_book(tmp_path, SEVERAL, "sampler=random", "study.n_trials=30", "pruner=none")
    search(study)
    found = importances(study)
    assert set(list(found)[:2]) == {"trainer.num_train_epochs", "optimizer.learning_rate"}
    assert sum(found.values()) == pytest.approx(1)
