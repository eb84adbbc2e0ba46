"""Kills at chosen lines of a comparison and a promotion: the same command goes on, and nothing is done twice."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.chaos.test_chaos import until_done
from tests.conftest import Place, write_letters
from tests.test_compare import COMPARE, LETTERS, runs, verdict_of

COMPARING = {
    "before a training and in it": [
        "src.runner.comparing:_prepare:after",
        "src.runner.repeats:_run_of:after",  # the run is there, nothing is trained
        "src.learning.judge:save:before",
        "src.learning.resume:complete:before",  # the checkpoint is not whole yet
        "src.runner.repeats:attempt_training:after",  # trained, no outcome
    ],
    "up to the test split": [
        "src.runner.repeats:_train:after",
        "src.evidence.runs:Run._send:after",  # delivered, not noted
        "src.runner.choice:winner:after",
        "src.text.seal:open_test:before",
        "src.text.seal:open_test:after",  # in the ledger, the choice not written
    ],
    "behind it": [
        "src.runner.choice:Choice.write:after",  # chosen and opened, nobody has answered
        "src.runner.repeats:_answer_trained:after",  # answered, not kept
        "src.runner.repeats:_keep:after",
        "src.runner.judging:judge:after",  # the verdict is written, nothing of it in MLflow
        "src.runner.judging:keep_registered:before",
    ],
}
PROMOTING = [
    "src.evidence.delivered:log_model:before",
    "src.evidence.delivered:log_model:after",  # the model is logged, not noted
    "src.evidence.registry:register:before",
    "src.evidence.registry:register:after",  # a version, no alias
    "src.evidence.registry:point:after",  # challenger, not champion
]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("searched"))
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*LETTERS, "study.name=letters", "study.rungs=[0.5,1.0]")
    assert done.code == 0, done.err
    return place


@pytest.fixture(scope="module")
def compared(searched: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = copy_of(searched, tmp_path_factory.mktemp("compared") / "place")
    assert place.run("src.compare", *COMPARE).code == 0
    return place


def copy_of(place: Place, folder: Path) -> Place:
    """The same store and studies elsewhere; artifacts go where they went before."""
    shutil.copytree(place.folder, folder)
    return Place(folder)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", list(COMPARING))
def test_a_comparison_killed_at_lines_is_continued(searched: Place, tmp_path: Path, when: str) -> None:
    place = copy_of(searched, tmp_path / "place")
    until_done(place, COMPARING[when], tmp_path / "marks", "src.compare", *COMPARE)
    verdict = verdict_of(place)
    assert verdict.openings == 1
    assert verdict.versus(verdict.best_baseline).verdict == "better"
    repeats = runs(place, "repeat")
    assert len(repeats) == 8
    assert {r.info.status for r in repeats + runs(place, "contender")} == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    for run in repeats:
        for metric in ("train/loss", "validation/accuracy", "score"):
            steps = [m.step for m in client.get_metric_history(run.info.run_id, metric)]
            assert steps, metric
            assert len(steps) == len(set(steps)), metric
    (study,) = runs(place, "study")
    assert study.data.tags["verdict.winner"] == verdict.winner
    assert len([r for r in repeats if "test/accuracy" in r.data.metrics]) == 8
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
    "src.runner.reporting:_inspect_best:before",  # the study is over, and its run says so
    "src.mirror:record_report:after",  # written, not delivered
]
COMPARED = [
    "src.runner.reporting:_findings:after",  # looked into, not kept
    "src.mirror:record_card:after",
]


@pytest.fixture(scope="module")
def to_show(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study that draws its report."""
    place = Place(tmp_path_factory.mktemp("to-show"))
    write_letters(place.folder / "letters.csv")
    return place


@pytest.mark.long
@pytest.mark.timeout(600)
def test_kills_while_pages_are_drawn_leave_them_to_the_same_command(to_show: Place, tmp_path: Path) -> None:
    place = to_show
    until_done(place, SEARCHED, tmp_path / "a", "src.sweep", "-m", *LETTERS, "study.name=letters", "study.report=true")
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    (study,) = runs(place, "study")
    assert study.data.tags["study.state"] == "ENDED"
    assert "report/report.html" in {f.path for f in client.list_artifacts(study.info.run_id, "report")}
    best = next(r for r in runs(place, "trial") if r.data.tags["trial.number"] == study.data.tags["best.trial"])
    assert "errors/errors.json" in {f.path for f in client.list_artifacts(best.info.run_id, "errors")}
    assert len(client.get_metric_history(best.info.run_id, "validation/calibration_error")) == 1
    until_done(place, COMPARED, tmp_path / "b", "src.compare", *COMPARE)
    assert "card/README.md" in {f.path for f in client.list_artifacts(study.info.run_id, "card")}
    assert verdict_of(place).openings == 1
