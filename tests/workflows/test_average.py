"""A study that ends averages its best trials' weights; more trials extend the average."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from safetensors.torch import load_file

from src.comparison import saved_study
from src.comparison.saved_study import SavedStudy
from src.core.paths import Paths
from src.core.records import AverageRecord
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE, WEIGHTS_FILE
from src.workflows.sweep import average
from tests.support.commands import INLINE, TINY, Done, Place, client_of, runs_of

STUDY = [*TINY, *INLINE, "study.name=it", "study.baselines=[majority]", "study.rungs=[1.0]",
         "trainer.num_train_epochs=1", "space.trainer.num_train_epochs.high=2", "study.keep_checkpoints=9"]  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Place, Done]:
    """A study of which every trial kept its weights."""
    place = Place(tmp_path_factory.mktemp("averaged"))
    shutil.copy(empty_store, place.folder)
    done = place.sweep(*STUDY, "study.n_trials=3")
    assert done.code == 0, done.err + done.out
    return place, done


def opened(place: Place) -> SavedStudy:
    return saved_study.load_study("it", Paths(place.folder))


def mean_of(place: Place, members: tuple[int, ...]) -> dict[str, np.ndarray]:
    each = [load_file(place.study("it") / f"trials/{n:04d}/training/{BEST_DIR}/{WEIGHTS_FILE}") for n in members]
    return {name: np.mean([weights[name].double().numpy() for weights in each], axis=0) for name in each[0]}


def averaged_weights(place: Place) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in load_file(place.study("it") / "average" / BEST_DIR / WEIGHTS_FILE).items()}


def assert_is_mean(place: Place, members: tuple[int, ...]) -> None:
    expected = mean_of(place, members)
    for name, tensor in averaged_weights(place).items():
        assert tensor == pytest.approx(expected[name], abs=1e-6), name


def test_a_study_ends_with_the_average_of_its_best_trials(searched: tuple[Place, Done]) -> None:
    place, done = searched
    saved = opened(place)
    record = average.load_average(saved.study)
    assert record is not None
    assert isinstance(record.members, tuple)  # else pydantic warns when it is stored again
    assert list(record.members) == sorted(t.number for t in average.choose_members(saved.study, saved.dataset))
    assert len(record.members) >= 2
    assert_is_mean(place, record.members)
    labels = saved.dataset.frame("validation")["label"].to_numpy()
    probabilities = np.load(place.study("it") / "average" / BEST_DIR / PROBABILITIES_FILE)
    assert record.score == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    scores = {t.number: t.score for t in saved.study.trials()}
    assert record.members_mean == pytest.approx(np.mean([scores[n] for n in record.members]))
    assert f"Average of the weights of trials {', '.join(map(str, record.members))}: accuracy" in done.out

    (run,) = runs_of(place, "average")
    (parent,) = runs_of(place, "study")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.metrics["score"] == pytest.approx(record.score)
    delivered = record.is_delivered("maximize")
    assert ("It is the study's model." in done.out) == delivered
    mlflow.set_tracking_uri(client_of(place).tracking_uri)
    classify = mlflow.transformers.load_model(parent.data.tags["best.model"])
    source = (
        place.study("it") / "average" if delivered else saved.study.training_folder(saved.study.best_trial().number)
    )
    text = saved.dataset.frame("validation")["text"][0]
    answer = classify(text, top_k=None)
    expected = np.load(source / BEST_DIR / PROBABILITIES_FILE)[0]
    assert sorted(a["score"] for a in answer) == pytest.approx(sorted(expected), abs=1e-4)


def test_more_trials_extend_it_and_the_same_command_again_changes_nothing(
    searched: tuple[Place, Done], tmp_path: Path
) -> None:
    place = Place(shutil.copytree(searched[0].folder, tmp_path / "copy"))
    before = average.load_average(opened(place).study)
    again = place.sweep(*STUDY, "study.n_trials=3")
    assert again.code == 0, again.err
    assert average.load_average(opened(place).study) == before
    assert len(runs_of(place, "average")) == 1
    (parent,) = runs_of(place, "study")
    uri = parent.data.tags["best.model"]
    done = place.sweep(*STUDY, "study.n_trials=5", "study.keep_checkpoints=9")
    assert done.code == 0, done.err
    saved = opened(place)
    after = average.load_average(saved.study)
    assert after is not None
    assert before is not None
    assert len(after.members) >= len(before.members)
    assert_is_mean(place, after.members)
    assert len(runs_of(place, "average")) == 1
    (parent,) = runs_of(place, "study")
    if after.is_delivered("maximize") and after != before:
        assert parent.data.tags["best.model"] != uri


def test_a_kill_while_weights_are_replaced_loses_none(searched: tuple[Place, Done], tmp_path: Path) -> None:
    place = Place(shutil.copytree(searched[0].folder, tmp_path / "copy"))
    study = opened(place).study
    folder = average.training_folder(study)
    record = average.load_average(study)
    (folder / BEST_DIR).rename(folder / average.NEW_DIR)  # killed after the old weights were moved away
    (folder / average.OLD_DIR).mkdir()
    done = place.sweep(*STUDY, "study.n_trials=3")
    assert done.code == 0, done.err
    assert average.load_average(study) == record
    assert {path.name for path in folder.iterdir()} >= {BEST_DIR, "run"}
    assert not (folder / average.NEW_DIR).exists()


@pytest.mark.parametrize(("score", "mean", "direction", "delivered"), [
    (0.9, 0.9, "maximize", True), (0.89, 0.9, "maximize", False), (0.3, 0.4, "minimize", True),
    (0.5, 0.4, "minimize", False),
])  # fmt: skip
def test_it_is_the_studys_model_unless_it_is_worse_than_its_members(
    score: float, mean: float, direction: str, delivered: bool
) -> None:
    assert AverageRecord((0, 1), score, {}, mean).is_delivered(direction) == delivered


def test_weights_are_deleted_after_the_average_and_none_is_made_where_it_is_off(
    searched: tuple[Place, Done], tmp_path: Path
) -> None:
    place = Place(shutil.copytree(searched[0].folder, tmp_path / "copy"))
    done = place.sweep(*STUDY, "study.n_trials=3", "study.keep_checkpoints=1")
    assert done.code == 0, done.err
    left = list(place.study("it").glob(f"trials/*/training/{BEST_DIR}/{WEIGHTS_FILE}"))
    assert len(left) == 1
    off = Place(tmp_path / "off")
    off.folder.mkdir()
    done = off.sweep(*STUDY, "study.n_trials=2", "study.average=0")
    assert done.code == 0, done.err
    assert "verage" not in done.out
    assert runs_of(off, "average") == []


def test_weights_that_cannot_be_averaged_end_no_study(searched: tuple[Place, Done], tmp_path: Path) -> None:
    place = Place(shutil.copytree(searched[0].folder, tmp_path / "copy"))
    shutil.rmtree(place.study("it") / "average")
    member = opened(place).study.training_folder(2)
    (member / BEST_DIR / WEIGHTS_FILE).write_bytes(b"a power cut")
    done = place.sweep(*STUDY, "study.n_trials=3")
    assert done.code == 0, done.err
    assert "could not be averaged" in done.out
    assert "Traceback" not in done.err + done.out
    (parent,) = runs_of(place, "study")
    assert parent.data.tags["best.model.of"] == str(opened(place).study.best_trial().number)


def test_an_average_that_a_killed_command_did_not_record_is_recorded(
    searched: tuple[Place, Done], tmp_path: Path
) -> None:
    place = Place(shutil.copytree(searched[0].folder, tmp_path / "copy"))
    folder = place.study("it") / "average"
    shutil.rmtree(folder / "run")
    (folder / average.NOTED_FILE).unlink()
    (run,) = runs_of(place, "average")
    client_of(place).delete_run(run.info.run_id)
    done = place.sweep(*STUDY, "study.n_trials=3")
    assert done.code == 0, done.err
    (again,) = runs_of(place, "average")
    assert again.info.run_id != run.info.run_id
    assert again.data.metrics == run.data.metrics
    assert again.data.tags["members"] == run.data.tags["members"]
