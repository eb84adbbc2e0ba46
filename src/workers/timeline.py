"""When each worker did what: a JSON line per trial or baseline, in a folder per worker process."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.core.records import TimelineEntry

TIMELINE_DIR = "work"  # in a study's folder; it has a folder per worker process


class TimelineWriter:
    """Writes the timeline of this process."""

    def __init__(self, folder: Path, worker: int) -> None:
        self.worker = worker
        self.path = folder / TIMELINE_DIR / f"{worker}-{socket.gethostname()}-{os.getpid()}" / "sheet.jsonl"

    @contextmanager
    def record(self, what: str) -> Iterator[list[str]]:
        """Record how long the block takes. It appends the final state to the list that is yielded."""
        began = time.time()
        state: list[str] = []
        yield state
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = TimelineEntry(self.worker, what, began, time.time(), *state[-1:])
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("\n" + entry.to_json() + "\n")  # a line of its own, whatever was torn before it


def read_timeline(folder: Path) -> tuple[TimelineEntry, ...]:
    """All entries of a study, by their start. What a killed worker was doing is not among them."""
    entries = []
    for file in folder.glob(f"{TIMELINE_DIR}/*/*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):  # torn by a kill
                entries.append(TimelineEntry.from_json(line))
    return tuple(sorted(entries, key=lambda s: s.began))


def next_worker_number(folder: Path) -> int:
    """The lowest number above those of all workers so far, for workers that join."""
    return max((entry.worker for entry in read_timeline(folder)), default=0) + 1
