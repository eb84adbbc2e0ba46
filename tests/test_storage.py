"""The journal survives what kills do to it; a database stores what belongs together, or none of it."""

import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from src.errors import BookLost
from src.records import Evaluation, Outcome, State
from src.search import life
from src.search.journal import KernelLock, repair
from src.search.study import Book
from tests.conftest import PROCESSES
from tests.test_proposals import finish, open_book
from tests.test_study import wait_for


def hold(lock: str, mark: str) -> None:
    KernelLock(Path(lock)).acquire()
    Path(mark).touch()
    time.sleep(600)


def test_a_torn_last_line_is_cut_and_the_study_goes_on(tmp_path: Path) -> None:
    finish(open_book(tmp_path, "study.n_trials=3"), 2)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    for torn in (b'{"op_code": 5, "worker', b"x", whole.splitlines(keepends=True)[-1][:-1]):
        journal.write_bytes(whole + torn)
        assert len(open_book(tmp_path, "study.n_trials=3").ended()) == 2
        assert journal.read_bytes() == whole
    assert len(finish(open_book(tmp_path, "study.n_trials=3"))) == 1


def test_a_line_torn_while_a_study_is_open_is_mended_by_the_next_writer(tmp_path: Path) -> None:
    book = open_book(tmp_path, "study.n_trials=3")
    finish(book, 1)
    with (tmp_path / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code": 5, "worker')  # another process, killed in the middle of its write
    finish(book)
    assert len(open_book(tmp_path, "study.n_trials=3").ended()) == 3


def test_repair_leaves_a_whole_journal_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b"{}\n{}\n")
    assert (repair(path), path.read_bytes()) == (0, b"{}\n{}\n")
    assert repair(tmp_path / "none") == 0


def test_a_killed_lock_holder_stalls_nobody(tmp_path: Path) -> None:
    lock, mark = tmp_path / "l", tmp_path / "m"
    holder = PROCESSES.Process(target=hold, args=(str(lock), str(mark)))
    holder.start()
    wait_for(mark)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    mine = KernelLock(lock)
    mine._lock.acquire(timeout=1)
    mine.release()


# --- what is done with a study's lock held, in a database ---


def in_sqlite(folder: Path, *overrides: str) -> Book:
    return open_book(folder, f"storage.url=sqlite:///{folder}/optuna.db", *overrides)


def every(book: Book) -> list[optuna.trial.FrozenTrial]:
    """The trials as somebody else finds them."""
    url = f"sqlite:///{book.folder}/optuna.db"
    return optuna.load_study(study_name=book.name, storage=url).trials


def test_with_the_lock_held_the_trials_are_known_as_the_database_has_them(tmp_path: Path) -> None:
    book = in_sqlite(tmp_path, "study.n_trials=6", "study.rungs=[0.5,1.0]")
    backend: Any = book.storage._backend
    for score in (0.5, 0.9, 0.7):
        with book.lock:
            before = book.of_state(*optuna.trial.TrialState)
            shown = [dict(t.user_attrs) for t in before]
            mine = life.claim(book)
            life.report(book, mine, Evaluation(1, 0.5, 8, {"accuracy": score}, 0.1))
            assert book.study.get_trials(deepcopy=False) == backend.get_all_trials(book.study._study_id)
            assert book.frozen(mine.number) == backend.get_trial(mine.trial._trial_id)
            assert [t.user_attrs for t in before] == shown, "what was handed out changes"
            life.finish(book, mine, Outcome(State.COMPLETE, score=score))
            assert book.study.get_trials() == backend.get_all_trials(book.study._study_id)
        assert book.study.get_trials() == every(book)
    assert [t.value for t in every(book)][:3] == [0.5, 0.9, 0.7]


def test_another_thread_reads_while_one_claims(tmp_path: Path) -> None:
    """SQLite has one lock for all: a reader that held Optuna's while it waited for that would never get it."""
    book = in_sqlite(tmp_path, "study.n_trials=20")
    over, seen, wrong = threading.Event(), list[int](), list[Exception]()

    def look() -> None:
        while not over.is_set():
            try:
                seen.append(len(book.study.get_trials(deepcopy=False)))
            except Exception as error:  # that the database is locked, after a minute
                wrong.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert len(finish(book)) == 20
    finally:
        over.set()
        thread.join()
    assert wrong == []
    assert seen == sorted(seen)


def claim_within_the_lock(folder: str, mark: str) -> None:
    book = in_sqlite(Path(folder), "study.n_trials=3")
    with book.lock:
        life.claim(book)
        Path(mark).touch()
        time.sleep(600)


def test_a_process_killed_with_the_lock_held_has_written_nothing(tmp_path: Path) -> None:
    book, mark = in_sqlite(tmp_path, "study.n_trials=3"), tmp_path / "m"
    before = every(book)
    process = PROCESSES.Process(target=claim_within_the_lock, args=(str(tmp_path), str(mark)))
    process.start()
    wait_for(mark)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert every(book) == before
    assert [life.claim(book).starts for _ in range(3)] == [1, 1, 1]


def test_what_the_database_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    book = in_sqlite(tmp_path, "study.n_trials=1")
    mine = life.claim(book)
    checkpoint = book.training_folder(mine.number) / "checkpoint-8"
    checkpoint.mkdir(parents=True)
    before = every(book)
    database = sqlite3.connect(tmp_path / "optuna.db")
    database.execute("CREATE TRIGGER full AFTER UPDATE ON trials BEGIN SELECT RAISE(ABORT, 'full'); END")
    database.commit()
    with pytest.raises(optuna.exceptions.StorageInternalError, match="undid"):
        life.finish(book, mine, Outcome(State.COMPLETE, score=0.9))
    assert every(book) == before
    assert checkpoint.exists(), "what the trial could go on from went before its end was stored"
    database.execute("DROP TRIGGER full")
    database.commit()
    life.finish(book, mine, Outcome(State.COMPLETE, score=0.9))
    assert [t.value for t in every(book)] == [0.9]
    assert not checkpoint.exists()


@pytest.mark.parametrize("table", ["trial_params", "trial_user_attributes"])
def test_what_waited_to_be_written_and_is_refused_leaves_nothing_behind(tmp_path: Path, table: str) -> None:
    book = in_sqlite(tmp_path, "study.n_trials=2")
    life.claim(book)
    before = every(book)
    database = sqlite3.connect(tmp_path / "optuna.db")
    database.execute(f"CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
    database.commit()
    with pytest.raises(BookLost, match="no"), life.kept():
        life.claim(book)
    assert every(book) == before
    database.execute("DROP TRIGGER no")
    database.commit()
    mine = life.claim(book)
    assert every(book)[1].params == mine.point
    assert every(book)[1].user_attrs["hold"]["starts"] == 1


def test_a_step_sees_what_waits_to_be_written_and_does_not_lose_it(tmp_path: Path) -> None:
    book = in_sqlite(tmp_path, "study.n_trials=1")
    with book.lock:
        mine = life.claim(book)
        assert book.storage._sessions._within.session.rows, "it was written at once: this shows nothing"
        with pytest.raises(KeyError):
            book.storage._backend.get_trial(10**6)
        found = book.storage._backend.get_trial(mine.trial._trial_id)
        assert found.params == mine.point
    assert every(book)[mine.number].params == mine.point


def test_what_was_known_of_what_the_database_undid_is_forgotten(tmp_path: Path) -> None:
    book = in_sqlite(tmp_path, "study.n_trials=1")
    mine = life.claim(book)
    before = every(book)
    database = sqlite3.connect(tmp_path / "optuna.db")
    database.execute("CREATE TRIGGER no BEFORE INSERT ON study_user_attributes BEGIN SELECT RAISE(ABORT, 'no'); END")
    database.commit()

    def ends_and_fails() -> None:
        with book.lock:
            life.finish(book, mine, Outcome(State.COMPLETE, score=0.9))
            assert book.study.get_trials()[0].value == 0.9
            assert [t.score for t in book.ended()] == [0.9]
            book.study.set_user_attr("one", "more")

    with pytest.raises(optuna.exceptions.StorageInternalError):
        ends_and_fails()
    assert book.study.get_trials() == every(book) == before
    assert book.ended() == []


def test_what_was_written_before_something_else_went_wrong_is_stored(tmp_path: Path) -> None:
    book = in_sqlite(tmp_path, "study.n_trials=3")

    def claims_and_fails() -> None:
        with book.lock:
            taken.append(life.claim(book))
            book.afterwards(lambda: pytest.fail("done although it went wrong"))
            raise RuntimeError

    taken: list[life.Claim] = []
    with pytest.raises(RuntimeError):
        claims_and_fails()
    (mine,) = taken
    assert every(book)[mine.number].params == mine.point
    life.finish(book, mine, Outcome(State.COMPLETE, score=0.9))
