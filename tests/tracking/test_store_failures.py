"""Stores that fail under a running study, and studies that run at once: nothing is lost, nothing doubled."""

import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from src.config.groups import ROOT
from tests.support import random_kills
from tests.support.commands import COMPARE, FAST, INLINE, LETTERS, Place, client_of, runs_of
from tests.support.data import write_letters
from tests.support.processes import PROCESSES
from tests.support.servers import command_for, faulty_proxy, start, stop
from tests.support.studies import open_fresh_store

pytestmark = pytest.mark.timeout(600)
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
STUDY = random_kills.arguments(2, "none")


def model_of(place: Place) -> object:
    (parent,) = runs_of(place, "study")
    mlflow.set_tracking_uri(client_of(place).tracking_uri)
    return mlflow.transformers.load_model(parent.data.tags["best.model"])("dull")[0]["label"]


@pytest.mark.heavy  # in the long tier: tests/tracking/test_run_log.py has the same of one training
def test_a_server_that_goes_away_delays_records_only(place: Place, tmp_path: Path) -> None:
    url, command = command_for(tmp_path)
    (place.folder / "tracking").write_text(url)
    server = start(url, command)
    try:
        process = place.start("src.sweep", "-m", *STUDY, f"tracking.uri={url}", env=IMPATIENT)
        end = time.monotonic() + 200
        while not list(place.study("chaos").glob("trials/*/run/delivered")):
            assert time.monotonic() < end
            time.sleep(0.1)
        stop(server)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert "all 6 trials are done" in out
        assert "the same command delivers them" in out
        server = start(url, command)
        again = place.sweep(*STUDY, f"tracking.uri={url}")
        assert again.code == 0, again.err
        assert "records wait" not in again.out
        assert random_kills.inspect(place) == []
        assert model_of(place) in ("negative", "positive")
    finally:
        stop(server)


@pytest.mark.heavy
def test_a_slow_and_faulty_server_doubles_nothing(place: Place, tmp_path: Path) -> None:
    url, command = command_for(tmp_path)
    (place.folder / "tracking").write_text(url)
    server = start(url, command)
    try:
        with faulty_proxy(url, faults=0.2) as faulty:
            for _ in range(6):
                done = place.sweep(*STUDY, f"tracking.uri={faulty}")
                if done.code == 0 and "records wait" not in done.out:
                    break
                assert done.code in (0, 2), done.err  # 2: the store did not answer when the command began
        last = place.sweep(*STUDY, f"tracking.uri={url}")
        assert last.code == 0, last.err
        assert random_kills.inspect(place) == []
    finally:
        stop(server)


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_artifact_store_delays_records_only(place: Place) -> None:
    artifacts = place.folder / "mlruns" / "artifacts"
    artifacts.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(artifacts)], check=False).returncode:
        pytest.skip("no mounts here")
    try:
        done = place.sweep(*STUDY)
    finally:
        subprocess.run(["umount", "-l", str(artifacts)], check=True)
    assert done.code == 0, done.err
    assert "all 6 trials are done" in done.out
    assert "the same command delivers them" in done.out
    again = place.sweep(*STUDY)
    assert again.code == 0, again.err
    assert "records wait" not in again.out
    assert random_kills.inspect(place) == []
    assert model_of(place) in ("negative", "positive")


@pytest.mark.long
def test_two_launches_at_once_share_a_study(place: Place) -> None:
    processes = [place.start("src.sweep", "-m", *STUDY) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err + out
    assert random_kills.inspect(place) == []
    assert model_of(place) in ("negative", "positive")


@pytest.mark.heavy
def test_two_studies_at_once_do_not_disturb_each_other(place: Place) -> None:
    commands = [[*FAST, f"study.name={name}", "study.n_trials=3", "workers=2"] for name in ("one", "two")]
    processes = [place.start("src.sweep", "-m", *command) for command in commands]
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err + out
        assert "all 3 trials are done" in out
    numbers = sorted((r.data.tags["study"], r.data.tags["trial.number"]) for r in runs_of(place, "trial"))
    assert numbers == [(study, str(n)) for study in ("one", "two") for n in range(3)]


@pytest.mark.heavy
def test_ten_processes_on_a_fresh_store_succeed_every_time(tmp_path: Path) -> None:
    """From a process of its own: what others fork from may have other imports, and ten times those take minutes."""
    script = f"from tests.tracking.test_store_failures import ten_at_once; ten_at_once({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ten_at_once(place: str) -> None:
    for attempt in range(6):
        folder = Path(place) / str(attempt)
        folder.mkdir()
        processes = [PROCESSES.Process(target=open_fresh_store, args=(str(folder),)) for _ in range(10)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [p.exitcode for p in processes] == [0] * 10, attempt


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_server_that_is_gone_is_said_by_every_command_and_made_good_by_the_same_one(
    place: Place, tmp_path: Path
) -> None:
    url, command = command_for(tmp_path)
    (place.folder / "tracking").write_text(url)
    server = start(url, command)
    address = ["--tracking-uri", url]
    commands = {
        "compare": ["src.compare", *COMPARE, *INLINE],
        "promote": ["src.promote"],
        "predict": ["src.predict", *address, "abcd abcd"],
        "publish": ["src.publish", "repo=me/x", "publish.dry_run=true", f"tracking_uri={url}"],
    }
    write_letters(place.folder / "letters.csv")
    try:
        done = place.sweep(*LETTERS, *INLINE, "study.name=letters", f"tracking.uri={url}")
        assert done.code == 0, done.err
        for name, words in commands.items():
            stop(server)
            told = place.run(*words, env=IMPATIENT)
            text = told.out + told.err
            assert told.code in (1, 2), (name, text)
            assert "nexpected error" not in text, (name, text)
            assert "Traceback" not in text, (name, text)
            assert url in text, (name, text)
            server = start(url, command)
            again = place.run(*words)
            assert again.code == 0, (name, again.err)
        stop(server)
        ui = place.run("src.ui", *address, env=IMPATIENT)
        assert (ui.code, url in ui.err) == (2, True), ui.err
    finally:
        if server.returncode is None:
            stop(server)
