"""The short form of the chaos runs, and kills at chosen lines."""

from pathlib import Path

import pytest

from src.config import ROOT
from tests.chaos import kill
from tests.conftest import Place

INJECT = Path(__file__).parent / "inject"
LINES = [
    "src.search.life:tell:before",  # the weights are saved, the end is not
    "src.search.life:_settle:before",  # the end is stored, the state is not
    "src.search.life:tell:after",  # told, and nothing of it in MLflow
    "src.search.life:pause:before",  # the checkpoint is there, the pause is not noted
    "src.search.life:report:after",  # judged, no checkpoint
    "src.search.life:_begin:after",  # a new trial that nobody holds
    "src.search.life:_promote:after",  # promoted, not continued
    "src.search.storage:load:before",  # while the study is created
    "src.search.study:Book.create:after",
    "src.evidence.store:_make_database:before",
    "src.evidence.store:_experiment:before",
    "src.evidence.runs:Run._create:after",  # the run exists, its id is nowhere
    "src.evidence.runs:Run._send:after",  # delivered, not noted
    "src.evidence.delivered:log_model:after",  # the model is logged, not noted
    "src.learning.resume:complete:before",  # the checkpoint is not whole yet
    "src.learning.judge:save:before",
]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    report = kill.run_rounds(tmp_path, kills=16, seed=7, per_round=8)
    assert report.wrong == []
    assert report.total == 16


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("line", LINES)
def test_a_kill_at_a_chosen_line_loses_nothing(tmp_path: Path, line: str) -> None:
    place = Place(tmp_path / "place")
    place.folder.mkdir()
    mark = tmp_path / "killed"
    command = kill.arguments(2, "asha")
    path = f"{INJECT}:{ROOT}"
    for _ in range(3):
        done = place.sweep(*command, env={"CHAOS_AT": line, "CHAOS_MARK": str(mark), "PYTHONPATH": path})
        if done.code == 0:
            break
        assert done.code < 0, done.err  # the launching process itself was the one killed
        kill.wait_for_orphans(place)
    assert mark.exists(), "the line was never reached"
    assert kill.inspect(place) == []
    assert len(list((tmp_path / "place" / "mlruns" / "artifacts").rglob("*/artifacts/model.safetensors"))) <= 2
