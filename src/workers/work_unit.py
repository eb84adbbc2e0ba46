"""A piece of work that one of several workers does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout


@dataclass(frozen=True)
class WorkUnit:
    """A piece of work for one worker at a time. Its folder says whether it is done."""

    folder: Path
    is_done: Callable[[], bool]
    do: Callable[[], None]
    must_end_first: bool = False  # whether what follows needs it

    def try_run(self) -> bool:
        """Do it, unless it is done or another worker does it. Returns whether it was done here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", blocking=False):
                if self.is_done():
                    return False
                self.do()
                return True
        except Timeout:
            return False
