"""The journal survives what kills do to it."""

import os
import signal
import time
from pathlib import Path

from src.search.storage import KernelLock, repair
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
