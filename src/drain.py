"""The wish that this worker stops at a safe point: a signal, or the end of the process that launched it."""

import multiprocessing
import signal
from types import FrameType

import psutil

REASON = "stopped on request; the same command continues it"
_wished = False


def listen() -> None:
    """Take SIGTERM as the wish, and leave SIGINT to the launching process. Main thread only."""
    signal.signal(signal.SIGTERM, _wish)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def asked() -> bool:
    """Whether to stop. Cheap enough to be asked after every step."""
    return _wished or _orphaned()


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    try:
        return not parent.is_alive()
    except ValueError:  # other launchers' processes may know their parent by its id alone
        return not psutil.pid_exists(parent.pid or 0)


def _wish(_signal: int, _frame: FrameType | None) -> None:
    global _wished  # noqa: PLW0603
    _wished = True
