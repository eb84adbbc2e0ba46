"""Random kills of a search, and kills at chosen lines."""

from pathlib import Path

import pytest

from tests.support import kill_points, random_kills
from tests.support.commands import Place, clean_environment

WHILE_TRIALS_RUN = [
    "src.search.trial_lifecycle:_start_trial:after",  # a new trial that nobody holds
    "src.search.trial_lifecycle:report_score:after",  # judged, no checkpoint
    "src.search.trial_lifecycle:pause_trial:before",  # the checkpoint is there, the pause is not noted
    "src.search.trial_lifecycle:_promote_next:after",  # promoted, not continued
    "src.search.trial_lifecycle:end_trial:before",  # the weights are saved, the end is not
    "src.search.trial_lifecycle:_store_final_state:before",  # the end is stored, the state is not
]
LINES = {
    "journal": [
        "src.tracking.store:_make_database:before",
        "src.tracking.store:_experiment:before",
        "src.search.storages.connect:load_optuna_study:before",  # while the study is created
        "src.search.study:Study.create:after",
        "src.tracking.run_log:RunLog._create:after",  # the run exists, its id is nowhere
        *WHILE_TRIALS_RUN,
        "src.training.callbacks:save_weights:before",
        "src.training.checkpoints:mark_complete:before",  # the checkpoint is not complete yet
        "src.tracking.run_log:RunLog._send:after",  # delivered, not noted
        "src.search.trial_lifecycle:end_trial:after",  # told, and nothing of it in MLflow
        "src.tracking.logged_model:log_model:after",  # the model is logged, not noted
    ],
    "sqlite": WHILE_TRIALS_RUN,
}


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    report = random_kills.run_rounds(tmp_path, kills=4, seed=7, per_round=2)
    assert report.wrong == []
    assert report.total == 4


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.heavy)])
def test_kills_at_chosen_lines_lose_nothing(place: Place, tmp_path: Path, storage: str) -> None:
    command = [*random_kills.in_one_process("asha"), f"storage={storage}"]
    kill_points.run_until_done(
        place.folder, LINES[storage], tmp_path / "marks", "src.sweep", "-m", *command, env=clean_environment()
    )
    assert random_kills.inspect(place) == []
    assert len(list((place.folder / "mlruns" / "artifacts").rglob("*/artifacts/model.safetensors"))) <= 2
