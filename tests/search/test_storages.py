"""A journal and a database survive kills and refused writes."""

import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import optuna
import pytest

from src.config.settings import StorageSettings
from src.core.errors import InvalidInput, StorageUnavailable
from src.core.records import Evaluation, State, TrainingResult
from src.search import trial_lifecycle
from src.search.storages.journal import KernelLock, cut_torn_line
from src.search.study import Study, refuse_foreign_study
from tests.support.processes import PROCESSES
from tests.support.studies import finish, open_book, wait_for


@pytest.mark.parametrize("begun", ["trials", "attributes"])
def test_a_study_that_another_program_made_is_refused_and_left_as_it_is(tmp_path: Path, begun: str) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db?timeout=30"
    foreign = optuna.create_study(study_name="mine", storage=url)
    if begun == "trials":
        foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    else:
        foreign.set_user_attr("theirs", 1)
    with pytest.raises(InvalidInput, match="has a study mine that Trialbook did not make; it is left as it is"):
        refuse_foreign_study(StorageSettings(url), "mine", tmp_path)
    assert foreign.user_attrs == ({} if begun == "trials" else {"theirs": 1})
    refuse_foreign_study(StorageSettings(url), "another", tmp_path)
    refuse_foreign_study(StorageSettings(f"sqlite:///{tmp_path}/none.db"), "mine", tmp_path)
    assert not (tmp_path / "none.db").exists()


def test_our_own_study_is_no_foreign_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = open_book(tmp_path, "storage=sqlite", f"storage.url={url}")
    refuse_foreign_study(StorageSettings(url), study.name, tmp_path)
    half = optuna.create_study(study_name="half", storage=url)  # a process was killed while it created it
    half.set_user_attr("uid", "0")
    refuse_foreign_study(StorageSettings(url), "half", tmp_path)


def hold(lock: str, mark: str) -> None:
    KernelLock(Path(lock)).acquire()
    Path(mark).touch()
    time.sleep(600)


def test_a_torn_last_line_is_cut_and_the_study_goes_on(tmp_path: Path) -> None:
    finish(open_book(tmp_path, "study.n_trials=3"), 2)
    journal = tmp_path / "journal.log"
    complete = journal.read_bytes()
    for torn in (b'{"op_code": 5, "worker', b"x", complete.splitlines(keepends=True)[-1][:-1]):
        journal.write_bytes(complete + torn)
        assert len(open_book(tmp_path, "study.n_trials=3").ended_trials()) == 2
        assert journal.read_bytes() == complete
    assert len(finish(open_book(tmp_path, "study.n_trials=3"))) == 1


def test_a_line_torn_while_a_study_is_open_is_mended_by_the_next_writer(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.n_trials=3")
    finish(study, 1)
    with (tmp_path / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code": 5, "worker')  # another process, killed in the middle of its write
    finish(study)
    assert len(open_book(tmp_path, "study.n_trials=3").ended_trials()) == 3


def test_repair_leaves_a_whole_journal_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b"{}\n{}\n")
    assert (cut_torn_line(path), path.read_bytes()) == (0, b"{}\n{}\n")
    assert cut_torn_line(tmp_path / "none") == 0


def test_a_killed_lock_holder_stalls_nobody(tmp_path: Path) -> None:
    lock, mark = tmp_path / "l", tmp_path / "m"
    holder = PROCESSES.Process(target=hold, args=(str(lock), str(mark)))
    holder.start()
    wait_for(mark)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    claimed = KernelLock(lock)
    claimed._lock.acquire(timeout=1)
    claimed.release()


# --- a study in SQLite ---


def in_sqlite(folder: Path, *overrides: str) -> Study:
    return open_book(folder, f"storage.url=sqlite:///{folder}/optuna.db", *overrides)


def read_by_optuna(study: Study) -> list[optuna.trial.FrozenTrial]:
    """The trials as a script of somebody else's reads them."""
    url = f"sqlite:///{study.folder}/optuna.db"
    return optuna.load_study(study_name=study.name, storage=url).trials


def test_trials_are_what_the_database_has(tmp_path: Path) -> None:
    study = in_sqlite(tmp_path, "study.n_trials=6", "study.rungs=[0.5,1.0]")
    for score in (0.5, 0.9, 0.7):
        claimed = trial_lifecycle.claim_trial(study)
        trial_lifecycle.report_score(study, claimed, Evaluation(1, 0.5, 8, {"accuracy": score}, 0.1))
        assert study.optuna_study.get_trials() == read_by_optuna(study)
        assert study.frozen_trial(claimed.number) == read_by_optuna(study)[claimed.number]
        trial_lifecycle.finish_trial(study, claimed, TrainingResult(State.COMPLETE, score=score))
        assert study.optuna_study.get_trials() == read_by_optuna(study)
    assert [t.value for t in read_by_optuna(study)][:3] == [0.5, 0.9, 0.7]


def test_another_thread_reads_while_one_claims(tmp_path: Path) -> None:
    """SQLite has one lock for all: a reader that held Optuna's while it waited for that would never get it."""
    study = in_sqlite(tmp_path, "study.n_trials=8")
    over, seen, errors = threading.Event(), list[int](), list[Exception]()

    def read() -> None:
        while not over.is_set():
            try:
                seen.append(len(study.optuna_study.get_trials(deepcopy=False)))
            except Exception as error:  # that the database is locked, after a minute
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert len(finish(study)) == 8
    finally:
        over.set()
        thread.join()
    assert errors == []
    assert seen == sorted(seen)


def claim_and_wait(folder: str, mark: str) -> None:
    study = in_sqlite(Path(folder), "study.n_trials=3")
    with study.lock:
        trial_lifecycle.claim_trial(study)
        Path(mark).touch()
        time.sleep(600)


def test_a_trial_of_a_process_killed_with_the_lock_held_is_taken_up(tmp_path: Path) -> None:
    study, mark = in_sqlite(tmp_path, "study.n_trials=3"), tmp_path / "m"
    process = PROCESSES.Process(target=claim_and_wait, args=(str(tmp_path), str(mark)))
    process.start()
    wait_for(mark)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    claims = [trial_lifecycle.claim_trial(study) for _ in range(3)]
    assert [(claim.number, claim.starts) for claim in claims] == [(0, 2), (1, 1), (2, 1)]
    assert trial_lifecycle.claim_trial(study) is None


def test_an_end_that_the_database_refuses_can_be_stored_later(tmp_path: Path) -> None:
    study = in_sqlite(tmp_path, "study.n_trials=1")
    claimed = trial_lifecycle.claim_trial(study)
    checkpoint = study.training_folder(claimed.number) / "checkpoint-8"
    checkpoint.mkdir(parents=True)
    database = sqlite3.connect(tmp_path / "optuna.db")
    database.execute("CREATE TRIGGER full AFTER UPDATE ON trials BEGIN INSERT INTO missing VALUES (1); END")
    database.commit()
    with pytest.raises(StorageUnavailable, match="missing"), trial_lifecycle.storage_errors():
        trial_lifecycle.finish_trial(study, claimed, TrainingResult(State.COMPLETE, score=0.9))
    assert [t.state.name for t in read_by_optuna(study)] == ["RUNNING"]
    assert checkpoint.exists(), "deleted before the end of its trial was stored"
    database.execute("DROP TRIGGER full")
    database.commit()
    study.leases.release(study.lease_name(claimed.number))  # as if this process had ended
    assert trial_lifecycle.claim_trial(study) is None
    assert [t.value for t in read_by_optuna(study)] == [0.9]
    assert not checkpoint.exists()


@pytest.mark.parametrize("table", ["trial_params", "trial_user_attributes"])
def test_a_claim_that_the_database_refuses_can_be_made_later(tmp_path: Path, table: str) -> None:
    study = in_sqlite(tmp_path, "study.n_trials=2")
    trial_lifecycle.claim_trial(study)
    database = sqlite3.connect(tmp_path / "optuna.db")
    database.execute(f"CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN INSERT INTO missing VALUES (1); END")
    database.commit()
    with pytest.raises(StorageUnavailable, match="missing"), trial_lifecycle.storage_errors():
        trial_lifecycle.claim_trial(study)
    database.execute("DROP TRIGGER no")
    database.commit()
    study.leases.release(study.lease_name(1))  # as if this process had ended
    claimed = trial_lifecycle.claim_trial(study)
    assert read_by_optuna(study)[1].params == claimed.params
    assert len(read_by_optuna(study)) == 2
