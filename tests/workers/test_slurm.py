"""Workers as SLURM's jobs: a real SLURM of one node, and submitit's own stand-in for one."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.commands import LETTERS, Place, trials_of, wait_until
from tests.support.data import write_letters

pytestmark = pytest.mark.cluster
LONG = [
    *LETTERS, "launcher=slurm", "workers=1", "worker.cpus=1", "study.n_trials=1", "study.rungs=[0.2,0.4,0.6,0.8,1.0]",
    "study.rung_examples=null", "trainer.num_train_epochs=1000", "space.trainer.num_train_epochs.high=1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with servers.slurm(cores=2) as environment:
        yield environment


@pytest.fixture
def letters(tmp_path: Path) -> Place:
    write_letters(tmp_path / "letters.csv")
    return Place(tmp_path)


def queue(environment: dict[str, str], shown: str) -> list[str]:
    return subprocess.check_output(["squeue", "-h", "-o", shown], env=os.environ | environment, text=True).split()


def test_two_workers_share_a_study(cluster: dict[str, str], letters: Place) -> None:
    done = letters.sweep(*LETTERS, "launcher=slurm", "worker.cpus=1", "study.name=array", env=cluster)
    assert done.code == 0, done.err + done.out
    assert "all 3 trials are done" in done.out
    workers = {f.name.split("-")[0] for f in letters.study("array").glob("work/*")}
    assert workers == {"0", "1"}


@pytest.mark.heavy
def test_a_preempted_worker_saves_its_trial_and_is_queued_again(cluster: dict[str, str], letters: Place) -> None:
    process = letters.start("src.sweep", "-m", *LONG, "study.name=preempted", env=cluster)
    training = letters.study("preempted") / "trials" / "0000" / "training"
    wait_until(lambda: list(training.glob("checkpoint-*/progress.json")))
    time.sleep(1)
    (job,) = queue(cluster, "%A")
    before = steps_saved(training)
    subprocess.run(["scancel", "--signal=USR2", job], check=True, env=os.environ | cluster)
    wait_until(lambda: queue(cluster, "%T") == ["PENDING"])
    assert steps_saved(training) > before  # between two rungs, when the signal came
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err + out
    assert begun(letters, "preempted") == 2
    assert "this job is preempted" in said(letters, "preempted")


@pytest.mark.heavy
def test_a_time_limit_is_survived(cluster: dict[str, str], letters: Place) -> None:
    """Two minutes, and SLURM may send its signal a minute early: 40 to 100 s after the start."""
    limits = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=20"]
    longer = ["trainer.num_train_epochs=9000", "space.trainer.num_train_epochs.high=9000"]
    process = letters.start("src.sweep", "-m", *LONG, *limits, *longer, "study.name=limited", env=cluster)
    training = letters.study("limited") / "trials" / "0000" / "training"
    try:
        wait_until(lambda: "this job is timed-out" in said(letters, "limited"), 240)
        saved = steps_saved(training)
        wait_until(lambda: begun(letters, "limited") == 2, 300)  # SLURM holds what it queues again for two minutes
        wait_until(lambda: steps_saved(training) > saved)
    finally:  # to its end would be an hour
        subprocess.run(["scancel", *queue(cluster, "%A")], check=True, env=os.environ | cluster)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_submitits_own_executor_does_as_well(letters: Place) -> None:
    local = ["hydra/launcher=submitit_local", "worker.cpus=1", "study.name=local"]
    done = letters.sweep(*LETTERS, *local)
    assert done.code == 0, done.err + done.out
    assert "all 3 trials are done" in done.out


def steps_saved(training: Path) -> int:
    return max(int(f.parent.name.split("-")[1]) for f in training.glob("checkpoint-*/progress.json"))


def begun(place: Place, study: str) -> int:
    """How often a process began or continued trial 0."""
    return int(trials_of(place, study)[0].user_attrs["hold"]["starts"])


def said(place: Place, study: str) -> str:
    logs = (place.folder / "mlruns" / "outputs" / study).rglob("*_log.err")
    return "".join(log.read_text() for log in logs)
