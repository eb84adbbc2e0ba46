"""Variables of the environment that would change a training are not read, and that is said."""

import json
import os
from pathlib import Path

import pytest

from src.core import environment
from tests.support.commands import FAST, INLINE, Place, trials_of


def test_variables_are_cleared_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_cleared", [])
    kept = {"MLFLOW_TRACKING_URI": "x", "HF_HOME": "x", "CUDA_VISIBLE_DEVICES": "0", "RANKS": "1"}
    for name, value in {**kept, "WORLD_SIZE": "4", "ACCELERATE_MIXED_PRECISION": "fp8", "MLFLOW_RUN_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    environment.clear_variables()
    assert kept.items() <= os.environ.items()
    assert not {"WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "MLFLOW_RUN_ID"} & os.environ.keys()
    assert list(environment.cleared_variables()) == [
        "ACCELERATE_MIXED_PRECISION, MLFLOW_RUN_ID, WORLD_SIZE in the environment are not read: the config decides "
        "(trainer.*, worker.*, tracking.*)"
    ]


@pytest.mark.parametrize(("home", "moved"), [("home", False), ("file/home", True), ("/dev/null/hf", True)])
def test_caches_are_in_the_project_where_the_home_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, moved: bool
) -> None:
    (tmp_path / "file").write_text("")
    names = ("HF_HUB_CACHE", "HF_TOKEN_PATH", "MPLCONFIGDIR")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / home))
    environment.use_writable_caches(tmp_path / "cache")
    assert os.environ["HF_HOME"] == str(tmp_path / "cache" / "huggingface" if moved else tmp_path / home)
    assert all((name in os.environ) == moved for name in names)


HOSTILE = {
    "MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_NAME": "another", "MLFLOW_EXPERIMENT_ID": "99",
    "ACCELERATE_MIXED_PRECISION": "fp8", "ACCELERATE_USE_CPU": "nonsense", "ACCELERATE_USE_DEEPSPEED": "true",
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1",
    "FORCE_COLOR": "1", "COLUMNS": "12", "TERM": "dumb", "LC_ALL": "C", "LANG": "C",
    "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "TRANSFORMERS_VERBOSITY": "debug",
    "HF_HOME": "/dev/null/hf", "XDG_CACHE_HOME": "/dev/null/cache", "HOME": "/dev/null/home",
}  # fmt: skip


@pytest.mark.long
def test_a_study_in_a_hostile_environment_comes_out_as_in_a_clean_one(tmp_path: Path) -> None:
    outcomes = []
    for name, env in (("clean", {}), ("h [x] # % \u00fc\u6f22", HOSTILE)):
        place = Place(tmp_path / name)
        place.folder.mkdir()
        done = place.sweep(*FAST, *INLINE, "study.name=one", "study.n_trials=1", env=env)
        assert done.code == 0, done.err + done.out
        assert "Traceback" not in done.err + done.out
        outcomes.append(json.loads(next(place.study("one").glob("baselines/*/outcome.json")).read_text())["score"])
        outcomes.append([t.value for t in trials_of(place, "one")])
        words = " ".join((done.err + done.out).split())
        assert ("ACCELERATE_MIXED_PRECISION" in words) == bool(env)
    assert outcomes[:2] == outcomes[2:]
