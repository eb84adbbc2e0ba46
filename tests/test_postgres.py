"""A study in PostgreSQL: leases are the server's, and no folder is shared."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from src.errors import BookLost
from src.records import Evaluation, Outcome, State
from src.search import life
from src.search.leases import InPostgres
from tests import servers
from tests.conftest import PROCESSES
from tests.test_proposals import open_book
from tests.test_study import claim_and_hang, make_thirty, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with servers.postgres("leases", "exact", "killed", "stale", "kept", connections=60) as url:
        yield url


def hold(url: str, mark: str) -> None:
    mine = InPostgres(url, "study")
    with mine.lock, mine.lock:
        mine.take("trials/1")
        mine.take("trials/1")
        Path(mark).touch()
        time.sleep(600)


def test_a_killed_process_holds_nothing(server: str, tmp_path: Path) -> None:
    url = f"{server}/leases"
    mine = InPostgres(url, "study")
    assert not mine.alive("trials/1")
    holder = PROCESSES.Process(target=hold, args=(url, str(tmp_path / "mark")))
    holder.start()
    wait_for(tmp_path / "mark")
    assert mine.alive("trials/1")
    assert not mine.alive("trials/2")
    assert not InPostgres(url, "another").alive("trials/1")
    os.kill(holder.pid, signal.SIGKILL)
    with mine.lock:  # the holder had it
        holder.join()
        assert not mine.alive("trials/1")
        mine.take("trials/1")
    assert InPostgres(url, "study").alive("trials/1")
    mine.drop("trials/1")
    assert not mine.alive("trials/1")


def test_only_one_has_a_thing_for_itself(server: str) -> None:
    one, other = InPostgres(f"{server}/leases", "study"), InPostgres(f"{server}/leases", "study")
    with one.sole("baselines/majority") as got:
        assert got
        with one.sole("baselines/majority") as twice, other.sole("baselines/majority") as too:
            assert (twice, too) == (False, False)
    with other.sole("baselines/majority") as got:
        assert got


def test_four_workers_in_folders_of_their_own_make_the_exact_total(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/exact", "study.n_trials=30", "sampler=random"]
    open_book(tmp_path / "first", *overrides)
    make_thirty([tmp_path / str(i) for i in range(4)], *overrides)


def test_a_killed_workers_trial_is_taken_up_from_another_folder(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/killed", "study.n_trials=2"]
    worker = PROCESSES.Process(target=claim_and_hang, args=(str(tmp_path / "a"), *overrides))
    worker.start()
    wait_for(tmp_path / "a" / "claimed")
    book = open_book(tmp_path / "b", *overrides)
    book.spend(time.time() - 7, time.time())
    assert life.claim(book).number == 1  # trial 0 is in living hands
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert life.claim(book).number == 0
    assert open_book(tmp_path / "c", *overrides).spent() == pytest.approx(7, abs=0.5)


def test_a_worker_that_counted_as_dead_writes_nothing_more(server: str, tmp_path: Path) -> None:
    overrides = [f"storage.url={server}/stale", "study.n_trials=1"]
    book, other = open_book(tmp_path / "a", *overrides), open_book(tmp_path / "b", *overrides)
    mine = life.claim(book)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    other.leases._connected().exec_driver_sql(cut)
    while other.leases.alive(book.lease(mine.number)):  # the server takes its time
        time.sleep(0.02)
    theirs = life.claim(other)
    assert (theirs.number, theirs.starts) == (mine.number, 2)
    with pytest.raises(BookLost):
        life.report(book, mine, Evaluation(1, 0.25, 8, {"accuracy": 0.5}, 0.1))
    with pytest.raises(BookLost, match="leases went with it"), life.kept():
        life.finish(book, mine, Outcome(State.FAIL, reason="must not count"))
    life.finish(other, theirs, Outcome(State.COMPLETE, score=0.9))
    assert [t.score for t in other.trials()] == [0.9]
    with pytest.raises(BookLost), life.kept():
        life.claim(book)  # its worker ends; nothing it believed to hold is its own


def test_what_is_known_of_a_trial_in_hand_is_what_the_database_has_and_is_not_asked_for(
    server: str, tmp_path: Path
) -> None:
    overrides = [f"storage.url={server}/kept", "study.n_trials=2", "pruner=none", "sampler=random"]
    book, other = open_book(tmp_path / "a", *overrides), open_book(tmp_path / "b", *overrides)
    asked: list[str] = []
    mine = life.claim(book)
    event.listen(book.storage._backend.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    for rung in (25, 50):
        life.report(book, mine, Evaluation(rung, rung / 100, 8, {"accuracy": rung / 90}, 0.1))
        life.note_run(mine, f"run {rung}")
        asked.clear()
        known = book.frozen(mine.number)
        assert asked == []
        assert known == other.frozen(mine.number)
        assert list(known.intermediate_values) == list(range(25, rung + 1, 25))
    life.release(book, mine)
    theirs = life.claim(other)
    assert (theirs.number, theirs.starts) == (mine.number, 2)
    life.report(other, theirs, Evaluation(75, 0.75, 8, {"accuracy": 0.9}, 0.1))
    assert book.frozen(mine.number) == other.frozen(mine.number)
    with pytest.raises(BookLost, match="other hands"):
        life.finish(book, mine, Outcome(State.FAIL, reason="must not count"))
    life.finish(other, theirs, Outcome(State.COMPLETE, score=0.9))
    assert book.frozen(mine.number) == other.frozen(mine.number)
    assert [t.score for t in book.ended()] == [0.9]
