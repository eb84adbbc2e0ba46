"""A study in PostgreSQL: leases are the server's, and no folder is shared."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from src.core.errors import StorageUnavailable
from src.core.records import Evaluation, State, TrainingResult
from src.search import trial_lifecycle
from src.search.inheritance import InheritedTrial, Source
from src.search.storages.leases import PostgresLeases
from src.search.study import Study
from tests.support import servers
from tests.support.data import settings_of
from tests.support.processes import PROCESSES
from tests.support.studies import claim_and_hang, make_thirty, open_book, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with servers.postgres("leases", "exact", "killed", "stale", "kept", "several", connections=60) as url:
        yield url


def hold(url: str, mark: str) -> None:
    claimed = PostgresLeases(url, "study")
    with claimed.lock, claimed.lock:
        claimed.acquire("trials/1")
        claimed.acquire("trials/1")
        Path(mark).touch()
        time.sleep(600)


def test_a_killed_process_holds_nothing(server: str, tmp_path: Path) -> None:
    url = f"{server}/leases"
    claimed = PostgresLeases(url, "study")
    assert not claimed.is_held("trials/1")
    holder = PROCESSES.Process(target=hold, args=(url, str(tmp_path / "mark")))
    holder.start()
    wait_for(tmp_path / "mark")
    assert claimed.is_held("trials/1")
    assert not claimed.is_held("trials/2")
    assert not PostgresLeases(url, "another").is_held("trials/1")
    os.kill(holder.pid, signal.SIGKILL)
    with claimed.lock:  # the holder had it
        holder.join()
        assert not claimed.is_held("trials/1")
        claimed.acquire("trials/1")
    assert PostgresLeases(url, "study").is_held("trials/1")
    claimed.release("trials/1")
    assert not claimed.is_held("trials/1")


def test_only_one_has_a_thing_for_itself(server: str) -> None:
    one, other = PostgresLeases(f"{server}/leases", "study"), PostgresLeases(f"{server}/leases", "study")
    with one.try_exclusive("baselines/majority") as got:
        assert got
        with one.try_exclusive("baselines/majority") as twice, other.try_exclusive("baselines/majority") as too:
            assert (twice, too) == (False, False)
    with other.try_exclusive("baselines/majority") as got:
        assert got


def test_several_objectives_constraints_and_inherited_trials_are_stored_there(server: str, tmp_path: Path) -> None:
    words = [f"storage.url={server}/several", "study.n_trials=3", "pruner=none", "study.metric=[accuracy,megabytes]"]
    parent = open_book(tmp_path / "s", *words)
    result = TrainingResult(State.COMPLETE, 0.9, {"accuracy": 0.9}, megabytes=300.0)
    while (claim := trial_lifecycle.claim_trial(parent)) is not None:
        trial_lifecycle.finish_trial(parent, claim, result)
    settings = settings_of("study.name=child", *words, "study.constraints={megabytes:{max:100}}")
    child = Study(settings, parent.space, "maximize", tmp_path / "child")
    inherited = [
        InheritedTrial(Source("s", "uid", t.number), parent.frozen_trial(t.number), dict(t.params), t.origin)
        for t in parent.trials()
    ]
    child.create({"space": child.space.describe()}, inherited)
    child.create({"space": child.space.describe()}, inherited)
    assert [(t.number, t.source_trial, t.violates) for t in child.trials()] == [
        (number, number, ("megabytes 300 is above 100",)) for number in range(3)
    ]
    assert child.best_trial() is None
    claim = trial_lifecycle.claim_trial(child)
    assert claim is not None
    assert claim.number == 3
    trial_lifecycle.finish_trial(child, claim, replace(result, megabytes=50.0))
    assert [t.number for t in child.front()] == [3]
    assert child.limits().n_trials == 3


def test_four_workers_in_folders_of_their_own_make_the_exact_total(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/exact", "study.n_trials=30", "sampler=random"]
    open_book(tmp_path / "first", *overrides)
    make_thirty([tmp_path / str(i) for i in range(4)], *overrides)


def test_a_killed_workers_trial_is_taken_up_from_another_folder(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/killed", "study.n_trials=2"]
    worker = PROCESSES.Process(target=claim_and_hang, args=(str(tmp_path / "a"), *overrides))
    worker.start()
    wait_for(tmp_path / "a" / "claimed")
    study = open_book(tmp_path / "b", *overrides)
    study.add_time(7, time.time())
    assert trial_lifecycle.claim_trial(study).number == 1  # trial 0 is in living hands
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert trial_lifecycle.claim_trial(study).number == 0
    assert open_book(tmp_path / "c", *overrides).seconds_spent() == pytest.approx(7, abs=0.5)


def test_a_worker_that_counted_as_dead_writes_nothing_more(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/stale", "study.n_trials=1"]
    study, other = open_book(tmp_path / "a", *overrides), open_book(tmp_path / "b", *overrides)
    claimed = trial_lifecycle.claim_trial(study)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    other.leases._connected().exec_driver_sql(cut)
    while other.leases.is_held(study.lease_name(claimed.number)):  # the server takes its time
        time.sleep(0.02)
    theirs = trial_lifecycle.claim_trial(other)
    assert (theirs.number, theirs.starts) == (claimed.number, 2)
    with pytest.raises(StorageUnavailable):
        trial_lifecycle.report_score(study, claimed, Evaluation(1, 0.25, 8, {"accuracy": 0.5}, 0.1))
    with pytest.raises(StorageUnavailable, match="leases went with it"), trial_lifecycle.storage_errors():
        trial_lifecycle.finish_trial(study, claimed, TrainingResult(State.FAIL, reason="must not count"))
    trial_lifecycle.finish_trial(other, theirs, TrainingResult(State.COMPLETE, score=0.9))
    assert [t.score for t in other.trials()] == [0.9]
    with pytest.raises(StorageUnavailable), trial_lifecycle.storage_errors():
        trial_lifecycle.claim_trial(study)  # its worker ends; nothing it believed to hold is its own


def test_every_process_sees_a_trial_as_the_database_has_it(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/kept", "study.n_trials=2", "pruner=none", "sampler=random"]
    study, other = open_book(tmp_path / "a", *overrides), open_book(tmp_path / "b", *overrides)
    claimed = trial_lifecycle.claim_trial(study)
    for rung in (25, 50):
        trial_lifecycle.report_score(study, claimed, Evaluation(rung, rung / 100, 8, {"accuracy": rung / 90}, 0.1))
        trial_lifecycle.save_run_id(claimed, f"run {rung}")
        frozen = study.frozen_trial(claimed.number)
        assert frozen == other.frozen_trial(claimed.number)
        assert list(frozen.intermediate_values) == list(range(25, rung + 1, 25))
    trial_lifecycle.release_trial(study, claimed)
    theirs = trial_lifecycle.claim_trial(other)
    assert (theirs.number, theirs.starts) == (claimed.number, 2)
    trial_lifecycle.report_score(other, theirs, Evaluation(75, 0.75, 8, {"accuracy": 0.9}, 0.1))
    assert study.frozen_trial(claimed.number) == other.frozen_trial(claimed.number)
    with pytest.raises(StorageUnavailable, match="taken over by another process"):
        trial_lifecycle.finish_trial(study, claimed, TrainingResult(State.FAIL, reason="must not count"))
    trial_lifecycle.finish_trial(other, theirs, TrainingResult(State.COMPLETE, score=0.9))
    assert study.frozen_trial(claimed.number) == other.frozen_trial(claimed.number)
    assert [t.score for t in study.ended_trials()] == [0.9]
