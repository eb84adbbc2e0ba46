"""The short form of the chaos runs, and kills at chosen lines."""

from pathlib import Path

import pytest

from src.config import ROOT
from tests.chaos import kill
from tests.conftest import Place

INJECT = Path(__file__).parent / "inject"
LINES = {
    "as it begins": [
        "src.evidence.store:_make_database:before",
        "src.evidence.store:_experiment:before",
        "src.search.storage:load:before",  # while the study is created
        "src.search.study:Book.create:after",
        "src.evidence.runs:Run._create:after",  # the run exists, its id is nowhere
    ],
    "from its beginning to its end": [
        "src.search.life:_begin:after",  # a new trial that nobody holds
        "src.search.life:report:after",  # judged, no checkpoint
        "src.search.life:pause:before",  # the checkpoint is there, the pause is not noted
        "src.search.life:_promote:after",  # promoted, not continued
        "src.search.life:tell:before",  # the weights are saved, the end is not
        "src.search.life:_settle:before",  # the end is stored, the state is not
    ],
    "what it leaves": [
        "src.learning.judge:save:before",
        "src.learning.resume:complete:before",  # the checkpoint is not whole yet
        "src.evidence.runs:Run._send:after",  # delivered, not noted
        "src.search.life:tell:after",  # told, and nothing of it in MLflow
        "src.evidence.delivered:log_model:after",  # the model is logged, not noted
    ],
}


def until_done(place: Place, lines: list[str], marks: Path, module: str, *arguments: str) -> None:
    """The command, killed once at each of the lines, until it comes to its end."""
    marks.mkdir()
    env = {"CHAOS_AT": " ".join(lines), "CHAOS_MARK": str(marks), "PYTHONPATH": f"{INJECT}:{ROOT}"}
    for _ in range(len(lines) + 1):
        done = place.run(module, *arguments, env=env)
        if done.code == 0:
            break
        assert done.code < 0, (done.err, sorted(marks.iterdir()))  # the launching process itself was the one killed
        kill.wait_for_orphans(place)
    assert done.code == 0, (done.err, sorted(marks.iterdir()))
    assert {mark.name for mark in marks.iterdir()} == set(lines), "a line was never reached"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    report = kill.run_rounds(tmp_path, kills=4, seed=7, per_round=2)
    assert report.wrong == []
    assert report.total == 4


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", list(LINES))
def test_kills_at_chosen_lines_lose_nothing(tmp_path: Path, when: str) -> None:
    place = Place(tmp_path / "place")
    place.folder.mkdir()
    until_done(place, LINES[when], tmp_path / "marks", "src.sweep", "-m", *kill.arguments(2, "asha"))
    assert kill.inspect(place) == []
    assert len(list((tmp_path / "place" / "mlruns" / "artifacts").rglob("*/artifacts/model.safetensors"))) <= 2
