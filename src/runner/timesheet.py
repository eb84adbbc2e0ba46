"""What workers were busy with, and when: a line per piece of work, in a folder per worker process."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.records import Stretch

WORK = "work"  # the folder of sheets in a study's


class Sheet:
    """The sheet of this process."""

    def __init__(self, folder: Path, worker: int) -> None:
        self.worker = worker
        self.file = folder / WORK / f"{worker}-{socket.gethostname()}-{os.getpid()}" / "sheet.jsonl"

    @contextmanager
    def busy(self, what: str) -> Iterator[list[str]]:
        """Note how long the block takes; it appends the state that it ended in to what it is given."""
        began = time.time()
        state: list[str] = []
        yield state
        self.file.parent.mkdir(parents=True, exist_ok=True)
        stretch = Stretch(self.worker, what, began, time.time(), *state[-1:])
        with self.file.open("a") as stream:
            stream.write("\n" + stretch.to_json() + "\n")  # a line of its own, whatever was torn before it


def read(folder: Path) -> tuple[Stretch, ...]:
    """All finished stretches, in the order they began. What a killed worker was at is not among them."""
    found = []
    for file in folder.glob(f"{WORK}/*/*.jsonl"):
        for line in file.read_text().splitlines():
            with suppress(ValueError, TypeError):  # torn by a kill
                found.append(Stretch.from_json(line))
    return tuple(sorted(found, key=lambda s: s.began))


def next_worker(folder: Path) -> int:
    """The first number that no worker on the sheets has: those who join come after those who are there."""
    return max((stretch.worker for stretch in read(folder)), default=0) + 1
