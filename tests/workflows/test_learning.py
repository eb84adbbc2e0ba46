"""A study that tries the best settings of others first."""

import shutil
from pathlib import Path

import pytest

from src.comparison import saved_study
from src.core.paths import Paths
from src.core.records import DEFAULT_RECIPE, LEARNED
from src.search.study import Study
from tests.support import kill_points
from tests.support.commands import INLINE, LETTERS, Done, Place, clean_environment, runs_of
from tests.support.data import write_letters

SOURCE = [*LETTERS, *INLINE, "study.average=0"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Place:
    """Two studies, of which each has good settings, and other texts."""
    place = Place(tmp_path_factory.mktemp("sources"))
    shutil.copy(empty_store, place.folder)
    write_letters(place.folder / "letters.csv")
    write_letters(place.folder / "others.csv", rows=240)
    for name, more in {"a": ["study.n_trials=4"], "b": ["study.n_trials=3", "study.seed=7"]}.items():
        done = place.sweep(*SOURCE, *more, f"study.name={name}")
        assert done.code == 0, done.err
    return place


@pytest.fixture(scope="module")
def learning(sources: Place) -> Done:
    done = sources.sweep(*SOURCE, "data.path=others.csv", "study.learn_from=[a,b]", "study.name=c",
                         "study.n_trials=6", "study.report=true")  # fmt: skip
    assert done.code == 0, done.err
    return done


def study_of(place: Place, name: str) -> Study:
    return saved_study.load_study(name, Paths(place.folder)).study


def test_the_best_settings_come_right_after_the_default_recipe(sources: Place, learning: Done) -> None:
    trials = study_of(sources, "c").trials()
    origins = [t.origin for t in trials]
    assert origins[0] == DEFAULT_RECIPE
    assert origins[1:4] == [LEARNED] * 3  # at most half of the trials
    assert LEARNED not in origins[4:]
    assert {t.source_study for t in trials[1:4]} == {"a", "b"}
    for trial in trials[1:4]:
        assert trial.source_study is not None
        source = study_of(sources, trial.source_study).trials()[trial.source_trial or 0]
        assert dict(trial.params) == dict(source.params)
        assert not trial.is_inherited
    best = study_of(sources, "a").best_trial()
    assert best is not None
    assert dict(best.params) in [dict(t.params) for t in trials[1:4]]
    assert "3 settings, tried after the default recipe: trial" in learning.out
    assert f"learned from {trials[1].source_study}, trial {trials[1].source_trial}" in learning.out


def test_the_sampler_draws_something_else_than_in_the_sources(sources: Place, learning: Done) -> None:
    """Though they have the same study.seed."""
    assert learning.code == 0
    known = [dict(t.params) for name in ("a", "b") for t in study_of(sources, name).trials()]
    assert not [t.number for t in study_of(sources, "c").trials() if t.origin == "sampler" and dict(t.params) in known]
    here = {t.params["model.dropout"] for t in study_of(sources, "c").trials() if t.origin == "sampler"}
    assert not here & {params["model.dropout"] for params in known}


def test_what_it_gave_stands_in_the_report(sources: Place, learning: Done) -> None:
    assert learning.code == 0
    (run,) = [r for r in runs_of(sources, "study") if r.data.tags["study"] == "c"]
    (report,) = sources.folder.rglob(f"{run.info.run_id}/artifacts/report/report.md")
    assert "## What was learned" in report.read_text()
    assert "| best of the learned settings | trial " in report.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["study.learn_from=[nobody]"], "study.learn_from is nobody, and there is no such study in"),
        (["study.learn_from=[x]"], "study.learn_from is x, which is this study's own name"),
        (["study.learn_from=[a]", "+space.model.max_tokens={low:8,high:64}"],
         "study.learn_from has a, which searched other keys: it did not search model.max_tokens"),
        (["study.learn_from=[a]", "space.trainer.num_train_epochs.low=9", "space.trainer.num_train_epochs.high=12"],
         "none of their complete trials has settings inside the space of x"),
        (["study.learn_from=a"], "study.learn_from is 'a'; it is a list, typed 'study.learn_from=[a,...]'"),
        (["study.learn_from=[b]", "study.name=a"],
         "the study a, which exists already, learned from nothing when it began"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused(sources: Place, words: list[str], says: str) -> None:
    done = sources.sweep(*SOURCE, "study.n_trials=4", "study.name=x", *words)
    assert done.code == 2, done.out
    assert says in done.err
    assert not sources.study("x").exists()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_kills_enqueue_nothing_twice(sources: Place, tmp_path: Path) -> None:
    points = [
        "src.search.study:Study._create:before",
        "src.search.study:Study._create:after",
        "src.search.study:Study.create:after",
        "src.search.trial_lifecycle:_start_trial:after",
    ]
    words = [*SOURCE, "data.path=others.csv", "study.learn_from=[a,b]", "study.name=killed", "study.n_trials=4"]
    env = clean_environment()
    kill_points.run_until_done(sources.folder, points, tmp_path / "marks", "src.sweep", "-m", *words, env=env)
    assert [t.origin for t in study_of(sources, "killed").trials()] == [DEFAULT_RECIPE, LEARNED, LEARNED, "sampler"]
