"""What workers were busy with, and when: a line per piece of work, in a file per worker process."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.records import Stretch


class Sheet:
    """The sheet of this process."""

    def __init__(self, folder: Path, worker: int) -> None:
        self.file, self.worker = folder / "work" / f"{worker}-{os.getpid()}.jsonl", worker

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
    for file in folder.glob("work/*.jsonl"):
        for line in file.read_text().splitlines():
            with suppress(ValueError, TypeError):  # torn by a kill
                found.append(Stretch.from_json(line))
    return tuple(sorted(found, key=lambda s: s.began))
