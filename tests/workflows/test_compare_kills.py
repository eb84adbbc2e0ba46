"""Kills at chosen lines of a comparison and a promotion: the same command goes on, and nothing is done twice."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support import kill_points
from tests.support.commands import COMPARE, INLINE, LETTERS, Place, clean_environment, runs_of, verdict_of
from tests.support.data import write_letters

COMPARING = [
    "src.workflows.compare.run:_prepare:after",
    "src.workers.comparison_training:_start_run:after",  # the run is there, nothing is trained
    "src.training.callbacks:save_weights:before",
    "src.training.checkpoints:mark_complete:before",  # the checkpoint is not whole yet
    "src.workers.comparison_training:attempt_training:after",  # trained, no outcome
    "src.workers.comparison_training:train:after",
    "src.tracking.run_log:RunLog._send:after",  # delivered, not noted
    "src.comparison.selection:select_winner:after",
    "src.comparison.selection:Selection.write:after",  # chosen, nothing is averaged or refitted
    "src.training.weight_average:average_weights:before",
    "src.training.weight_average:average_weights:after",  # averaged, not judged
    "src.workers.comparison_predictions:judge_average:after",
    "src.workers.comparison_training:refit_objective:after",  # the refit is about to begin
    "src.training.callbacks:RefitCallback._end:before",  # its weights are saved, its end is not
    "src.workflows.compare.form_choice:choose_form:after",
    "src.data.test_split:open_test_split:before",
    "src.data.test_split:open_test_split:after",  # in the ledger, the choice not written
    "src.workers.comparison_predictions:predict_with_seed_run:before",  # opened, nobody has answered
    "src.workers.comparison_predictions:predict_with_seed_run:after",
    "src.workers.comparison_predictions:predict_with_average:before",
    "src.workers.comparison_predictions:predict_with_average:after",
    "src.workers.comparison_predictions:predict_with_fixed:after",
    "src.workflows.compare.evaluate:evaluate:after",  # the verdict is written, nothing of it in MLflow
    "src.workflows.compare.record:delete_other_weights:before",
    "src.workflows.compare.record:delete_other_weights:after",
]
PROMOTING = [
    "src.tracking.logged_model:log_model:before",
    "src.tracking.logged_model:log_model:after",  # the model is logged, not noted
    "src.tracking.registry:register:before",
    "src.tracking.registry:register:after",  # a version, no alias
    "src.tracking.registry:set_alias:after",  # challenger, not champion
]


def until_done(place: Place, points: list[str], marks: Path, module: str, *arguments: str) -> None:
    """The command in the place's folder, killed once at each point, until it comes to its end."""
    kill_points.run_until_done(place.folder, points, marks, module, *arguments, env=clean_environment())


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("searched"))
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*LETTERS, "study.name=letters", "study.rungs=[0.5,1.0]", *INLINE)
    assert done.code == 0, done.err
    return place


@pytest.fixture(scope="module")
def compared(searched: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = copy_of(searched, tmp_path_factory.mktemp("compared") / "place")
    assert place.run("src.compare", *COMPARE, *INLINE).code == 0
    return place


def copy_of(place: Place, folder: Path) -> Place:
    """The same store and studies elsewhere; artifacts go where they went before."""
    shutil.copytree(place.folder, folder)
    return Place(folder)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_comparison_killed_at_lines_is_continued(searched: Place, tmp_path: Path) -> None:
    place = copy_of(searched, tmp_path / "place")
    until_done(place, COMPARING, tmp_path / "marks", "src.compare", *COMPARE, *INLINE)
    verdict = verdict_of(place)
    assert verdict.openings == 1
    assert verdict.result_against(verdict.best_baseline).verdict == "better"
    repeats = runs_of(place, "repeat")
    assert len(repeats) == 8
    assert {r.info.status for r in repeats + runs_of(place, "contender")} == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    for run in repeats:
        for metric in ("train/loss", "validation/accuracy", "score"):
            steps = [m.step for m in client.get_metric_history(run.info.run_id, metric)]
            assert steps, metric
            assert len(steps) == len(set(steps)), metric
    (study,) = runs_of(place, "study")
    assert study.data.tags["verdict.winner"] == verdict.winner
    assert len([r for r in repeats if "test/accuracy" in r.data.metrics]) == 8
    refits = runs_of(place, "refit")
    assert len(refits) == 8
    for run in refits:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps
        assert len(steps) == len(set(steps))
    assert verdict.contender(verdict.winner).form == "refit"
    assert len(list((place.study("letters") / "comparison").rglob("*.safetensors"))) == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_promotion_killed_at_lines_is_repeated(compared: Place, tmp_path: Path) -> None:
    place = copy_of(compared, tmp_path / "place")
    until_done(place, PROMOTING, tmp_path / "marks", "src.promote")
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    (model,) = client.search_registered_models()
    assert dict(model.aliases) == {"challenger": 1, "champion": 1}
    assert len(client.search_model_versions("name = 'letters'")) == 1


# --- what is shown ---

SEARCHED = [
    "src.workflows.sweep.report:_inspect_best:before",  # the study is over, and its run says so
    "src.tracking.recorders:record_report:after",  # written, not delivered
]
COMPARED = [
    "src.workflows.sweep.report:_make_judged_search:after",  # looked into, not kept
    "src.tracking.recorders:record_card:after",
]


@pytest.fixture(scope="module")
def to_show(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study that draws its report."""
    place = Place(tmp_path_factory.mktemp("to-show"))
    write_letters(place.folder / "letters.csv")
    return place


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_kills_while_pages_are_drawn_leave_them_to_the_same_command(to_show: Place, tmp_path: Path) -> None:
    place = to_show
    until_done(place, SEARCHED, tmp_path / "a", "src.sweep", "-m", *LETTERS, "study.name=letters",
               "study.report=true", "launcher=inline", "workers=1")  # fmt: skip
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    (study,) = runs_of(place, "study")
    assert study.data.tags["study.state"] == "ENDED"
    assert "report/report.html" in {f.path for f in client.list_artifacts(study.info.run_id, "report")}
    best = next(r for r in runs_of(place, "trial") if r.data.tags["trial.number"] == study.data.tags["best.trial"])
    assert "errors/errors.json" in {f.path for f in client.list_artifacts(best.info.run_id, "errors")}
    assert len(client.get_metric_history(best.info.run_id, "validation/calibration_error")) == 1
    until_done(place, COMPARED, tmp_path / "b", "src.compare", *COMPARE, *INLINE)
    assert "card/README.md" in {f.path for f in client.list_artifacts(study.info.run_id, "card")}
    assert verdict_of(place).openings == 1
