"""A study that takes over the trials of another one; and limits that change while a study is searched."""

import json
import shutil
from pathlib import Path

import pytest

from src.comparison import saved_study
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.core.records import DEFAULT_RECIPE, TrialRecord
from src.search.study import Study
from src.training.pretrained import BEST_DIR
from tests.support import kill_points, random_kills
from tests.support.commands import (
    COMPARE,
    INLINE,
    LETTERS,
    Done,
    Place,
    clean_environment,
    runs_of,
    verdict_of,
    wait_until,
)
from tests.support.data import write_letters

PARENT = [*LETTERS, *INLINE, "study.n_trials=4", "study.average=0", "study.keep_checkpoints=4"]
WIDER = "space.trainer.num_train_epochs.high=4"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Place, Done]:
    """A study, and one that inherits from it with a wider space."""
    place = Place(tmp_path_factory.mktemp("inherited"))
    shutil.copy(empty_store, place.folder)
    write_letters(place.folder / "letters.csv")
    first = place.sweep(*PARENT, "study.name=a")
    assert first.code == 0, first.err
    done = place.sweep(*PARENT, WIDER, "study.name=b", "study.inherit=a", "study.n_trials=2", "study.report=true")
    assert done.code == 0, done.err
    return place, done


def study_of(place: Place, name: str) -> Study:
    return saved_study.load_study(name, Paths(place.folder)).study


def essence(trial: TrialRecord) -> tuple[object, ...]:
    return dict(trial.params), trial.score, trial.state, trial.run_id, trial.result.metrics


def test_all_ended_trials_are_known_and_none_counts(searched: tuple[Place, Done]) -> None:
    place, done = searched
    parent, child = study_of(place, "a"), study_of(place, "b")
    inherited = [t for t in child.trials() if t.is_inherited]
    assert [essence(t) for t in inherited] == [essence(t) for t in parent.trials()]
    assert [(t.source_study, t.source_trial) for t in inherited] == [("a", n) for n in range(4)]
    assert len(child.trials()) == 4 + 2
    assert child.end_reason() == "all 2 trials are done"
    assert "inherits                         4 trials of a, 4 of them with weights" in done.out
    assert "[2/2] trial 5" in done.out
    assert "Trials: 2 COMPLETE, 4 inherited" in done.out


def test_the_default_recipe_is_not_repeated(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    defaults = [t for t in study_of(place, "b").trials() if t.origin == DEFAULT_RECIPE]
    assert [t.number for t in defaults] == [0]
    assert defaults[0].note == "default recipe, inherited from a, trial 0"


def test_it_is_told_apart_everywhere(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    assert "inherited from a, trial 1" in place.run("src.status", "b").out
    assert "2 of 2 + 4 inherited" in place.run("src.status").out
    (run,) = [r for r in runs_of(place, "study") if r.data.tags["study"] == "b"]
    (parent,) = [r for r in runs_of(place, "study") if r.data.tags["study"] == "a"]
    assert run.data.tags["inherited.from"] == "a"
    assert run.data.tags["inherited.run"] == parent.info.run_id
    (artifact,) = place.folder.rglob(f"{run.info.run_id}/artifacts/inherited.json")
    assert len(json.loads(artifact.read_text())["data"]) == 4
    (report,) = place.folder.rglob(f"{run.info.run_id}/artifacts/report/report.md")
    text = report.read_text()
    assert "inherited from a, trial 2)" in text
    assert "2 COMPLETE; 4 more inherited from a" in text


def test_weights_stay_where_they_are(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    child = study_of(place, "b")
    assert child.training_folder(1) == place.study("a") / "trials/0001/training"
    assert len(list(place.study("a").glob(f"trials/*/training/{BEST_DIR}"))) == 4
    assert not list(place.study("b").glob("trials/000[0-3]/training"))


def test_an_inherited_best_is_a_contender_and_its_model_is_delivered(place: Place) -> None:
    write_letters(place.folder / "letters.csv")
    assert place.sweep(*PARENT, "study.name=a").code == 0
    poor = ["space.optimizer.learning_rate.high=0.5", "study.n_trials=1", "study.seed=3"]
    done = place.sweep(*PARENT, *poor, "study.name=b", "study.inherit=a")
    assert done.code == 0, done.err
    child = study_of(place, "b")
    best = child.best_trial()
    assert best is not None
    assert best.is_inherited
    assert f"Best: trial {best.number} (inherited from a, trial {best.number})" in done.out
    compared = place.run("src.compare", *COMPARE, "study.name=b", "deliver.refit=false")
    assert compared.code == 0, compared.err
    assert f"trial-{best.number}" in [c.name for c in verdict_of(place, "b").contenders]
    shutil.rmtree(place.study("a"))
    again = place.sweep(*PARENT, *poor, "study.name=b", "study.n_trials=2")
    assert again.code == 0, again.err
    assert f"the weights of trial {best.number} (inherited from a, trial {best.number}) are not there any more" in (
        again.out
    )
    planned = place.run("src.compare", *COMPARE, "study.name=b", "compare.plan_only=true")
    assert planned.code == 0, planned.err  # the configs of inherited trials were kept
    assert f"trial-{best.number}" in planned.out


def test_a_narrower_space_takes_what_lies_in_it(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    narrow = ["space.trainer.num_train_epochs.high=2", "study.plan_only=true"]
    done = place.sweep(*PARENT, *narrow, "study.name=c", "study.inherit=a")
    assert done.code == 0, done.err
    longer = [t.number for t in study_of(place, "a").trials() if t.params["trainer.num_train_epochs"] == 3]
    assert longer
    assert f"trials of a, {4 - len(longer)} of them with weights; {len(longer)} more do" in done.out
    assert "not taken over, trainer.num_train_epochs=3 is not in 2 .. 2: trial" in done.out


def test_settings_that_were_fixed_there_have_that_value(searched: tuple[Place, Done]) -> None:
    """And a setting that is fixed now takes the trials that have its value."""
    place, _ = searched
    more = [
        "+space.trainer.neftune_noise_alpha={low:1.0,high:5.0}",
        "+trainer.neftune_noise_alpha=2.0",
        "study.n_trials=1",
    ]
    done = place.sweep(
        *PARENT, *[f"+{m}" if m.startswith("space") else m for m in more], "study.name=d", "study.inherit=a"
    )
    assert done.code == 2, "the parent's config has none"
    assert "trainer.neftune_noise_alpha=null is not in 1 .. 5" in done.err
    more = ["+space.model.max_tokens={low:16,high:64}", "study.n_trials=1"]
    done = place.sweep(*PARENT, *more, "study.name=d", "study.inherit=a")
    assert done.code == 0, done.err
    trials = study_of(place, "d").trials()
    assert [t.params["model.max_tokens"] for t in trials if t.is_inherited] == [64] * 4
    fixed = ["~space.model", "model.dropout=0.1", "study.plan_only=true"]
    done = place.sweep(*PARENT, *fixed, "study.name=e", "study.inherit=a")
    assert done.code == 0, done.err
    assert "1 trial of a, 1 of them with weights; 3 more do not fit" in done.out  # the default recipe has this dropout
    assert "model.dropout is " in done.out


def test_trials_pass_on_what_they_inherited(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    done = place.sweep(
        *PARENT, WIDER, "space.model.dropout.high=0.4", "study.n_trials=1", "study.name=f", "study.inherit=b"
    )
    assert done.code == 0, done.err
    sources = [(t.source_study, t.source_trial) for t in study_of(place, "f").trials()]
    assert sources == [*[("a", n) for n in range(4)], ("b", 4), ("b", 5), (None, None)]
    again = place.sweep(*PARENT, WIDER, "space.model.dropout.high=0.4", "study.n_trials=1", "study.name=f",
                        "study.inherit=b")  # fmt: skip
    assert again.code == 0, again.err


def test_constraints_hold_for_inherited_trials(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    bound = "study.constraints={f1_macro:{min:0.6}}"
    done = place.sweep(*PARENT, bound, "study.n_trials=1", "study.name=g", "study.inherit=a")
    assert done.code == 2, "f1_macro was not computed there"
    assert "has no f1_macro: trials 0, 1, 2, 3 of a" in done.err
    done = place.sweep(
        *PARENT, "study.constraints={f1:{min:0.6}}", "study.n_trials=1", "study.name=g", "study.inherit=a"
    )
    assert done.code == 0, done.err
    trials = study_of(place, "g").trials()
    assert [bool(t.violates) for t in trials[:4]] == [t.result.metrics["f1"] < 0.6 for t in trials[:4]]
    assert trials[0].violates == ("f1 0 is below 0.6",)
    speed = ["study.constraints={ms_per_1000_texts:{max:9000}}", "study.name=h", "study.inherit=a"]
    assert "the speed was not measured with care" in place.sweep(*PARENT, *speed).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["study.inherit=nobody", "study.name=x"], "study.inherit is nobody, and there is no such study in"),
        (["study.inherit=x", "study.name=x"], "study.inherit is x, which is this study's own name"),
        (
            ["study.inherit=a", "study.name=x", "study.metric=f1"],
            "study.inherit is a, which has another metric (metric was accuracy and is f1)",
        ),
        (["study.inherit=a", "study.name=x", "study.rungs=[0.5,1.0]"], "rungs was [1.0] and is [0.5, 1.0]"),
        (
            ["study.inherit=a", "study.name=x", "data.split_seed=1"],
            "study.inherit is a, which has other data, so its scores do not compare",
        ),
        (["study.inherit=a", "study.name=x", "seed=7"], "seed is 42 there and 7 here: trials 0, 1, 2, 3 of a"),
        (["study.inherit=b", "study.name=a"], "the study a, which exists already, took over nothing when it began"),
    ],
)
def test_what_cannot_be_inherited_is_refused(searched: tuple[Place, Done], words: list[str], says: str) -> None:
    place, _ = searched
    done = place.sweep(*PARENT, *words)
    assert done.code == 2, done.out
    assert says in done.err
    assert not place.study("x").exists()


def test_the_refusal_of_another_space_names_the_way_out(searched: tuple[Place, Done]) -> None:
    place, _ = searched
    refused = place.sweep(*PARENT, WIDER, "space.model.dropout.high=0.5", "study.name=a")
    assert refused.code == 2
    command = refused.err.strip().rpartition(": ")[2]
    assert command.startswith("python -m src.sweep -m data=files")
    assert command.endswith("study.name=a-2 study.inherit=a")
    other_data = place.sweep(*PARENT, "data.split_seed=1", "study.name=a")
    assert other_data.code == 2
    assert "study.inherit" not in other_data.err


KILLED_AT = [
    "src.search.inheritance:to_frozen_trial:before",
    "src.search.inheritance:to_frozen_trial:after",
    "src.search.study:Study._create:after",
    "src.search.study:Study.create:after",
    "src.tracking.recorders:record_inheritance:after",
    "src.search.trial_lifecycle:_start_trial:after",
    "src.search.trial_lifecycle:_store_final_state:before",
    "src.tracking.logged_model:log_model:after",
]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_kills_lose_and_double_nothing(
    place: Place, tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)  # the address of the database is relative
    write_letters(place.folder / "letters.csv")
    assert place.sweep(*PARENT, f"storage={storage}", "study.name=a").code == 0
    command = [*PARENT, WIDER, f"storage={storage}", "study.name=b", "study.inherit=a"]
    env = clean_environment()
    kill_points.run_until_done(place.folder, KILLED_AT, tmp_path / "marks", "src.sweep", "-m", *command, env=env)
    trials = study_of(place, "b").trials()
    assert [t.source_trial for t in trials] == [0, 1, 2, 3, None, None, None, None]
    assert {t.state for t in trials} == {"COMPLETE"}
    assert len({json.dumps(dict(t.params), sort_keys=True) for t in trials}) == 8
    runs = [r for r in runs_of(place, "trial") if r.data.tags["study"] == "b"]
    assert len(runs) == 4
    assert {r.info.status for r in runs} == {"FINISHED"}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_random_kills_of_an_inheriting_study_lose_nothing(tmp_path: Path) -> None:
    report = random_kills.run_rounds(tmp_path, kills=2, seed=11, per_round=2, inheriting=True)
    assert report.wrong == []
    assert report.total == 2


SLOW = ["trainer.num_train_epochs=40", "space.trainer.num_train_epochs.low=40",
        "space.trainer.num_train_epochs.high=60", "pruner=none", "study.name=more", "worker.cpus=1", "workers=1",
        "launcher=local"]  # fmt: skip


@pytest.mark.long
def test_the_newest_total_counts_for_every_command(place: Place) -> None:
    write_letters(place.folder / "letters.csv")
    first = place.start("src.sweep", "-m", *LETTERS, *SLOW, "study.n_trials=3")
    wait_until(lambda: list(place.study("more").glob("trials/0000/lease.json")))
    second = place.sweep(*LETTERS, *SLOW, "study.n_trials=5", "study.patience=50")
    out, err = first.communicate(timeout=200)
    assert (first.returncode, second.code) == (0, 0), err + second.err
    assert "another command has changed the study: study.n_trials is 5 now and was 3; study.patience is 50" in out
    assert "all 3 trials are done" not in out
    assert "[5/5]" in out
    study = study_of(place, "more")
    assert [t.number for t in study.trials()] == list(range(5))
    assert study.end_reason() == "all 5 trials are done"


def test_an_unknown_study_raises_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no such study"):
        saved_study.load_study("nobody", Paths(tmp_path))
