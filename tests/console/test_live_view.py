"""The live view: in a real terminal (a pseudo-terminal read by an emulator), and what it shows."""

import dataclasses
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pyte
import pytest
from rich.console import Console

from src.console import live_view
from src.console.live_view import Snapshot, WorkerActivity
from src.core.records import State
from src.tracking.run_log import RunLog, RunTail
from tests.support.commands import FAST, Place, clean_environment

WIDE, NARROW = (40, 120), (24, 70)  # rows, columns


class Terminal:
    """A command in a terminal of its own; what its screen showed, over time."""

    def __init__(self, place: Place, *command: str, size: tuple[int, int] = WIDE) -> None:
        self.screen = pyte.HistoryScreen(size[1], size[0], history=2000)
        self.seen: list[list[str]] = []
        self.raw = b""
        stream = pyte.ByteStream(self.screen)
        master, slave = pty.openpty()
        self.master = master
        self._size(size)
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=place.folder, env=clean_environment() | {"TERM": "xterm-256color"}, start_new_session=True,
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)

        def read() -> None:
            while True:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # its end: nobody holds the other side any more
                    return
                self.raw += piece
                stream.feed(piece)
                self.seen.append(list(self.screen.display))

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()

    def _size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def resize(self, size: tuple[int, int]) -> None:
        self._size(size)
        self.screen.resize(*size)
        os.kill(self.process.pid, signal.SIGWINCH)

    def wait_for(self, pattern: str, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while not any(re.search(pattern, "\n".join(shown)) for shown in self.seen[-50:]):
            assert time.monotonic() < until, "\n".join(self.screen.display)
            time.sleep(0.05)

    def end(self) -> int:
        code = self.process.wait(240)
        self._reader.join(20)
        return code

    @property
    def text(self) -> str:
        """Everything that stands on the screen and above it, at the end."""
        above = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display])


@pytest.mark.long
def test_a_study_in_a_terminal_that_is_resized(place: Place) -> None:
    """The view is drawn over in place, fits whatever the width is, and is gone at the end; lines stay, each once."""
    terminal = Terminal(place, "src.sweep", "-m", *FAST, "study.name=seen", "study.n_trials=6", "workers=2",
                        "study.budget_minutes=30")  # fmt: skip
    terminal.wait_for(r"seen  \d of 6 trials")
    terminal.wait_for(r"worker  at +done  epoch")
    terminal.resize(NARROW)
    time.sleep(1.5)
    narrow = len(terminal.seen)
    terminal.wait_for(r"seen  \d of 6 trials")
    assert terminal.end() == 0, terminal.text
    every = ["\n".join(shown) for shown in terminal.seen]
    assert any(re.search(r"^\d +trial \d", shown, re.M) for shown in every), "no worker's line was seen"
    assert any("budget: " in shown for shown in every[:narrow])
    assert all("Traceback" not in shown for shown in every)
    text = terminal.text
    assert "of 6 trials  " not in text.split("Study seen is over")[1]  # nothing of the view is left
    for done in range(1, 7):
        assert text.count(f"[{done}/6] trial") == 1
    assert "worker  at" not in text.split("Study seen is over")[1]


@pytest.mark.long
def test_trials_that_pause_are_counted(place: Place) -> None:
    terminal = Terminal(place, "src.sweep", "-m", *FAST, "study.name=seen", "study.n_trials=4", "workers=1",
                        "pruner=asha", "trainer.num_train_epochs=4", "space.trainer.num_train_epochs.low=4",
                        "space.trainer.num_train_epochs.high=5")  # fmt: skip
    assert terminal.end() == 0, terminal.text
    every = ["\n".join(shown) for shown in terminal.seen]
    assert any(re.search(r"^(1 complete, )?[1-3] paused", shown, re.M) for shown in every), "none was seen"
    assert "4/4] trial" in terminal.text
    assert "paused;" not in terminal.text.split("Study seen is over")[1]


@pytest.mark.long
@pytest.mark.parametrize("progress", ["lines", "off"])
def test_who_wants_no_view_gets_none(place: Place, progress: str) -> None:
    terminal = Terminal(place, "src.sweep", "-m", *FAST, "study.n_trials=1", "workers=1", f"progress={progress}")
    assert terminal.end() == 0, terminal.text
    assert b"\x1b[1A" not in terminal.raw  # the cursor never went up
    assert ("[1/1] trial" in terminal.text) == (progress == "lines")
    assert "is over: its only trial is done" in terminal.text


def test_without_a_terminal_there_are_lines(finished: tuple[Place, object]) -> None:
    out = finished[1].out
    assert "\x1b" not in out
    assert out.count("[4/4] trial") == 1
    assert "worker  at" not in out


SHOWN = Snapshot(
    "mine", "trials", 3, 8, 90.0, "accuracy", Path("/"), budget_seconds=600.0, counts={"COMPLETE": 2, "PRUNED": 1},
    activities={
        1: WorkerActivity("trial 4", "learning_rate=0.0001 weight_decay=0.05 dropout=0.1", 0.5, 1.5, 0.41234, 0.8125)
    },
    workers=2, top=[("trial 2", "0.8500", "learning_rate=3e-05"), ("trial 0", "0.8300", "learning_rate=0.0001")],
)  # fmt: skip


def drawn(shown: Snapshot, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(live_view.render_snapshot(shown, width))
    return console.file.getvalue()


def test_what_stands_in_it() -> None:
    text = drawn(SHOWN, 140)
    assert "mine  3 of 8 trials" in text
    assert "90 s, about 1.9 min left; budget: 8.5 min of 10.0 min left" in text  # 3.5 of 8 in 90 s: 4.5 more in 116 s
    assert "2 complete, 1 pruned" in text
    assert re.search(r"disk \d+ GB free, memory [\d.]+ of \d+ GB", text)
    assert re.search(r"^0 +waiting", text, re.M)
    assert re.search(r"^1 +trial 4 +50% +1\.5 +0\.412 +0\.8125 +learning_rate=0\.0001", text, re.M)
    assert text.index("trial 2  ") < text.index("trial 0  ")


def test_what_is_paused_counts_as_what_it_is_worth() -> None:
    waiting = dataclasses.replace(SHOWN, counts={"COMPLETE": 1}, done=1, total=10, activities={}, paused=[0.5] * 6)
    assert waiting.fraction_done == pytest.approx(0.4)
    assert "mine  1 of 10 trials" in drawn(waiting, 140)
    assert "1 complete, 6 paused; disk" in drawn(waiting, 140)


@pytest.mark.parametrize("width", [20, 40, 70, 89, 90, 300])
def test_it_fits_any_width(width: int) -> None:
    lines = drawn(SHOWN, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 10


def test_nobody_knows_the_end_at_the_beginning() -> None:
    early = Snapshot("mine", "trials", 0, 8, 3.0, "accuracy", Path("/"))
    assert early.seconds_left is None
    assert "left" not in drawn(early, 120)
    late = Snapshot("mine", "trials", 4, 8, 100.0, "accuracy", Path("/"), budget_seconds=110.0)
    assert late.seconds_left == 10.0


def test_the_end_is_as_priced_at_first_and_as_paced_at_last() -> None:
    first = Snapshot(
        "mine", "trials", 0, 10, 0.0, "accuracy", Path("/"), expected_seconds=500.0, workers=1, idle="starting"
    )
    priced = [dataclasses.replace(first, done=done, seconds=100.0 * done) for done in (0, 5, 9)]
    assert [shown.seconds_left for shown in priced] == pytest.approx([500.0, 375.0, 95.0])
    assert re.search(r"^0 +starting", drawn(first, 120), re.M)


def test_a_run_is_read_as_it_grows(tmp_path: Path) -> None:
    run, tail = RunLog(tmp_path, "key", "name"), RunTail(tmp_path)
    assert tail.read().metrics == {}
    run.set_status(State.RUNNING)
    run.set_tags({"worker": 3})
    run.log_metrics(1, {"train/loss": 0.7, "train/epoch": 0.5})
    assert (tail.read().status, tail.tags, tail.metrics["train/loss"]) == ("RUNNING", {"worker": "3"}, 0.7)
    with run.log_path.open("a") as stream:
        stream.write('{"time": 1, "metrics": {"train/lo')  # a line half written
    assert tail.read().metrics["train/loss"] == 0.7
    with run.log_path.open("a") as stream:
        stream.write('ss": 0.5}, "step": 2}\n')
    assert tail.read().metrics == {"train/loss": 0.5, "train/epoch": 0.5}
    run.log_path.write_text(json.dumps({"time": 1, "status": "FINISHED"}) + "\n")  # begun anew, shorter
    assert tail.read().status == "FINISHED"


def test_what_a_training_is_at_comes_from_its_run(tmp_path: Path) -> None:
    run = RunLog(tmp_path, "key", "name")
    run.log_metrics(5, {"train/loss": 0.7, "train/epoch": 1.0, "rung/accuracy": 0.6})
    result = live_view.activity_of(live_view.RunTails().read(tmp_path), "trial 1", "accuracy", epochs=4.0)
    assert (result.share, result.epoch, result.loss, result.score) == (0.25, 1.0, 0.7, 0.6)
