"""The wish that this worker stops at a safe point: a signal, or the end of the process that launched it."""

import multiprocessing
import signal
from types import FrameType

REASON = "stopped on request; the same command continues it"
_wished = False


def listen() -> None:
    """Take SIGTERM as the wish, and leave SIGINT to the launching process. Main thread only."""
    signal.signal(signal.SIGTERM, _wish)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def asked() -> bool:
    """Whether to stop. Cheap enough to be asked after every step."""
    parent = multiprocessing.parent_process()
    return _wished or (parent is not None and not parent.is_alive())


def _wish(_signal: int, _frame: FrameType | None) -> None:
    global _wished  # noqa: PLW0603
    _wished = True
