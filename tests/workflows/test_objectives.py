"""Several objectives and constraints, from the search to the comparison."""

import json
import shutil
from pathlib import Path

import pytest

from src.comparison import saved_study
from src.core.paths import Paths
from src.search.study import Study
from tests.support import kill_points
from tests.support.commands import (
    COMPARE,
    INLINE,
    LETTERS,
    Done,
    Place,
    clean_environment,
    client_of,
    runs_of,
    verdict_of,
)
from tests.support.data import write_letters

METRIC = "study.metric=[accuracy,ms_per_1000_texts,f1_macro]"
LENGTHS = "+space.model.max_tokens.choices=[4,64]"
STUDY = [*LETTERS, METRIC, LENGTHS, "study.name=front", "study.n_trials=5", "study.report=true"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Place, Done]:
    """A study of accuracy, speed and f1_macro, by two workers."""
    place = Place(tmp_path_factory.mktemp("front"))
    shutil.copy(empty_store, place.folder)
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*STUDY)
    assert done.code == 0, done.err
    return place, done


def study_of(place: Place, name: str = "front") -> Study:
    return saved_study.load_study(name, Paths(place.folder)).study


def test_the_plan_says_what_is_searched_for_and_how_it_is_measured(searched: tuple[Place, Done]) -> None:
    _, done = searched
    assert "Study front: accuracy and ms_per_1000_texts and f1_macro on the validation split" in done.out
    assert "of each schedule by accuracy alone" in done.out
    assert "accuracy (maximized), ms_per_1000_texts (minimized), f1_macro (maximized)" in done.out
    assert "on one thread or GPU while other trainings wait: the least of five times" in done.out
    assert "the weights of the best trials are averaged" not in done.out
    assert "Next: python -m src.compare study.name=front compare.pick=knee" in done.out


def test_every_trial_has_every_value(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    for trial in study_of(place).trials():
        assert trial.result.ms_per_1000_texts is not None
        assert trial.result.ms_per_1000_texts > 0
        assert trial.result.metrics.keys() >= {"accuracy", "f1_macro"}
        assert trial.result.training_seconds is not None
        assert 0 < trial.result.training_seconds <= trial.result.seconds


def test_the_front_is_in_the_table_the_report_mlflow_and_status(searched: tuple[Place, Done]) -> None:
    place, done = searched
    front = {t.number for t in study_of(place).front()}
    assert (
        "Front of accuracy, ms_per_1000_texts, f1_macro: no other trial is as good in all of them and better in one"
        in done.out
    )
    tagged = {int(r.data.tags["trial.number"]) for r in runs_of(place, "trial") if r.data.tags["trial.front"] == "true"}
    assert tagged == front
    (run,) = runs_of(place, "study")
    files = next(place.folder.rglob(f"{run.info.run_id}/artifacts/report"))
    assert "## The front" in (files / "report.md").read_text()
    assert (files / "figures" / "front.svg").stat().st_size > 1000
    assert place.run("src.status", "front").out.count("on the front") == len(front)
    (experiment,) = [e for e in client_of(place).search_experiments() if e.experiment_id == run.info.experiment_id]
    assert "mlflow.sharedViewState.trialbook-front-front" in experiment.tags


def test_values_do_not_change_when_the_study_goes_on(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    before = [t.to_json() for t in study_of(place).trials()]
    done = place.sweep(*STUDY, "study.n_trials=6")
    assert done.code == 0, done.err
    assert [t.to_json() for t in study_of(place).trials()][:5] == before


@pytest.mark.long
def test_a_comparison_takes_on_what_is_picked(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    fast = ["compare.pick={within:{accuracy:1},then:ms_per_1000_texts}", "deliver.refit=false"]
    planned = place.run("src.compare", "study.name=front", *COMPARE, *fast, "compare.plan_only=true")
    assert planned.code == 0, planned.err
    assert "by compare.pick={within: {accuracy: 1}, then: ms_per_1000_texts}" in planned.out
    done = place.run("src.compare", "study.name=front", *COMPARE, *fast)
    assert done.code == 0, done.err
    fastest = min(study_of(place).front(), key=lambda t: t.result.ms_per_1000_texts or 0)
    verdict = verdict_of(place, "front")
    assert verdict.recipe_of(verdict.winner).about in (f"trial {fastest.number}", "")
    assert verdict.pick == "compare.pick={within: {accuracy: 1}, then: ms_per_1000_texts}"
    assert "was picked from the study's trials (compare.pick=" in done.out
    assert "widened for the choice" not in done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare.pick=elbow"], "compare.pick is elbow; it is knee, a trial's number, or a rule"),
        (["compare.pick={within:{accuracy:0.1}}"], "it is knee, a trial's number, or a rule"),
        (["compare.pick={within:{accuracy:-1},then:f1_macro}"], "it is knee, a trial's number, or a rule"),
        (["compare.pick=-3"], "it is knee, a trial's number, or a rule"),
        (["compare.pick=99"], "and front has no such trial"),
        (["compare.pick={within:{f1:0.1},then:accuracy}"], "f1 is no objective of front; it has accuracy, ms_per"),
    ],
)
def test_what_cannot_be_picked_is_refused(searched: tuple[Place, Done], words: list[str], says: str) -> None:
    place, _ = searched
    done = place.run("src.compare", "study.name=front", *COMPARE, *words)
    assert done.code == 2
    assert says in done.err


def test_a_single_training_with_such_a_config(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    done = place.run("src.train", *[o for o in STUDY if not o.startswith(("workers=", "+space"))])
    assert done.code == 0, done.err


BOUND = "study.constraints={ms_per_1000_texts:{max:0.001}}"


def test_a_study_with_nothing_within_its_constraints_fails_and_says_by_how_much(place: Place) -> None:
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*LETTERS, *INLINE, BOUND, "study.name=tight", "study.n_trials=2")
    assert done.code == 1
    nearest = min(study_of(place, "tight").trials(), key=lambda t: t.result.ms_per_1000_texts or 0)
    assert f"Of trial {nearest.number}, which is nearest, ms_per_1000_texts" in done.err
    assert "(ms_per_1000_texts" in done.out
    assert study_of(place, "tight").end_reason() == "all 2 trials are done"
    refused = place.run("src.compare", "study.name=tight", *COMPARE)
    assert refused.code == 2


def test_a_default_recipe_out_of_bounds_cannot_win(place: Place) -> None:
    write_letters(place.folder / "letters.csv")
    done = place.sweep(
        *LETTERS, *INLINE, "study.constraints={f1_macro:{min:0.6},megabytes:{max:5}}", "study.name=bound"
    )
    assert done.code == 0, done.err
    assert study_of(place, "bound").trials()[0].violates == ("f1_macro 0.3333 is below 0.6",)
    planned = place.run("src.compare", "study.name=bound", *COMPARE, "compare.plan_only=true")
    assert planned.code == 0, planned.err
    assert "the default recipe is not within study.constraints (f1_macro 0.3333 is below 0.6)" in planned.out
    assert ", default by mean validation" not in planned.out
    assert "default (trial 0)" in planned.out


@pytest.mark.long
@pytest.mark.timeout(600)
def test_kills_lose_nothing_of_several_objectives(place: Place, tmp_path: Path) -> None:
    write_letters(place.folder / "letters.csv")
    points = [
        "src.search.study:Study._create:after",
        "src.workers.model_speed:measure_speed_alone:before",
        "src.workers.model_speed:measure_speed_alone:after",
        "src.search.trial_lifecycle:_end:before",
        "src.search.trial_lifecycle:_store_final_state:before",
    ]
    words = [*LETTERS, *INLINE, METRIC, LENGTHS, "study.name=front", "study.constraints={megabytes:{max:5}}"]
    env = clean_environment()
    kill_points.run_until_done(place.folder, points, tmp_path / "marks", "src.sweep", "-m", *words, env=env)
    study = study_of(place)
    assert [t.state for t in study.trials()] == ["COMPLETE"] * 3
    for trial in study.optuna_study.get_trials():
        assert len(trial.values) == 3
        assert trial.constraints.keys() == {"megabytes.max"}
    json.dumps([t.to_dict() for t in study.trials()])
