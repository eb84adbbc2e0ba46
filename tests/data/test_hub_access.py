"""The everyday path, ids and pinned commits, from a small server that speaks the Hub: broken off, cached, offline."""

import socket
from pathlib import Path

import pytest

from tests.support.commands import Place, runs_of
from tests.support.hub import Hub
from tests.support.stand_ins import as_on_the_hub, stand_in

pytestmark = pytest.mark.long
DISTILBERT, ITS_COMMIT = "distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be"
SST2, SST2_COMMIT = "stanfordnlp/sst2", "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"
SMALL = [
    "sweeps=sst2_distilbert", "study.n_trials=1", "study.rungs=[1.0]", "study.baselines=[majority]", "workers=1",
    "model.max_tokens=32", "trainer.num_train_epochs=1", "data.carve.validation.size=30",
]  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    with Hub() as hub:
        hub.add("model", DISTILBERT, {"config.json": b"{}"})  # an older commit than the pinned one
        hub.add_folder("model", DISTILBERT, stand_in(tmp_path / "distilbert", "distilbert"), ITS_COMMIT)
        hub.add("model", DISTILBERT, {"README.md": b"a newer commit"})
        hub.add("dataset", SST2, as_on_the_hub("sst2", 120), SST2_COMMIT)
        yield hub


def test_a_study_by_ids_downloads_the_pinned_commits_once_and_records_them(hub: Hub, place: Place) -> None:
    environment = hub.environment(place.folder / "home")
    hub.fault("GET", "/resolve/.*train.*parquet", cut="body", at=1000)  # taken up again by the client itself
    hub.fault("GET", "/resolve/.*model.safetensors", cut="body", at=5000, reset=True)
    broken = place.sweep(*SMALL, env=environment)
    assert broken.code == 2, broken.out
    assert f"model.checkpoint is {DISTILBERT} (revision {ITS_COMMIT}), and it could not be downloaded" in broken.err
    assert not place.study("sst2-distilbert").exists()
    done = place.sweep(*SMALL, env=environment)
    assert done.code == 0, done.err + done.out
    assert sum("model.safetensors" in line and line.startswith("GET") for line in hub.log) == 2
    assert sum("train-00000" in line and line.startswith("GET") for line in hub.log) == 2
    assert not any(" /resolve/main" in line for line in hub.log)
    result = runs_of(place)
    assert {r.data.tags["kind"] for r in result} == {"study", "trial", "baseline"}
    for run in result:
        assert run.data.tags["data.commit"] == SST2_COMMIT
        if run.data.tags["kind"] != "baseline":
            assert (run.data.tags["model.source"], run.data.tags["model.commit"]) == ("Hub", ITS_COMMIT)
    n_requests = len(hub.log)
    offline = place.sweep(*SMALL, "study.n_trials=2", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert offline.code == 0, offline.err + offline.out
    assert len(hub.log) == n_requests


def test_a_moving_branch_is_recorded_as_the_commit_it_stood_for(hub: Hub, place: Place) -> None:
    stars = stand_in(place.folder / "stars", "bert", "1 star", "2 stars", "3 stars", "4 stars", "5 stars")
    commit = hub.add_folder("model", "nlptown/bert-base-multilingual-uncased-sentiment", stars)
    data = hub.add("dataset", "stanfordnlp/imdb", as_on_the_hub("imdb", 150))
    done = place.run(
        "src.train", "data=imdb_3k", "data.revision=main", "data.subset={train: 120, test: 40}", "model=stars",
        "model.max_tokens=32", "trainer.num_train_epochs=1", env=hub.environment(place.folder / "home"),
    )  # fmt: skip
    assert done.code == 0, done.err + done.out
    (run,) = runs_of(place)
    assert (run.data.tags["model.commit"], run.data.tags["data.commit"]) == (commit, data)


def test_another_commit_from_the_cache_is_never_taken_for_the_one_asked_for(hub: Hub, place: Place) -> None:
    environment = hub.environment(place.folder / "home")
    older = ["data=sst2", "model=tiny", "study.plan_only=true", "data.carve.validation.size=30", "workers=1"]
    newer = hub.add("dataset", SST2, as_on_the_hub("sst2", 90))
    assert place.sweep(*older, env=environment).code == 0
    done = place.sweep(*older, f"data.revision={newer}", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert done.code == 2
    assert f"of which the commit {newer} is asked for, and the Hub is out of reach" in done.err
    assert SST2_COMMIT in done.err


def test_weights_that_are_not_those_sent_are_refused(hub: Hub, place: Place) -> None:
    environment = hub.environment(place.folder / "home")
    arguments = ["data=starter", "model=distilbert", "study.plan_only=true", "workers=1", "data.max_examples=60",
             "model.max_tokens=32"]  # fmt: skip
    assert place.sweep(*arguments, env=environment).code == 0
    (weights,) = (place.folder / "home").rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(bytes(content))
    done = place.sweep(*arguments, env=environment)
    assert done.code == 2
    assert f"The weights of {DISTILBERT} in the Hub's cache" in done.err
    assert "are not those that were sent" in done.err


def test_a_hub_that_does_not_answer_is_asked_once(place: Place) -> None:
    """A server that accepts connections and never answers. The libraries alone would try for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = place.sweep("data=imdb", env={"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"})
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert done.code == 2
    assert f"could not be downloaded from the Hugging Face Hub: {endpoint} does not answer (ReadTimeout)." in done.err
    assert "data.path=<folder>" in done.err
