"""The wish that this worker stops at a safe point: a signal, or the end of the process that launched it."""

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import psutil

HANG_UP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # the terminal was closed
LAUNCHERS = (signal.SIGINT, *HANG_UP)  # heard by all of a terminal's processes, and answered by the launching one
REASON = "stopped on request; the same command continues it"
_wished = False
_then: Callable[[], Any] | None = None  # what a scheduler's own handler would have done


def listen() -> None:
    """Take SIGTERM as the wish, and leave Ctrl-C and a closed terminal to the launching process. Main thread only."""
    signal.signal(signal.SIGTERM, _wish)
    for number in LAUNCHERS:
        signal.signal(number, signal.SIG_IGN)


def heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those that this process was not told to ignore, as nohup does. Ctrl-C is always meant."""
    return [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]


def heed_scheduler() -> None:
    """Where a scheduler's library handles signals (submitit: time limit, preemption), stop at a safe point first."""
    with suppress(ValueError):  # not the main thread: nobody handles signals here
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            if callable(handler := signal.getsignal(number)):
                signal.signal(number, partial(_wish_then, handler))
                signal.signal(signal.SIGTERM, _wish)


def hand_over() -> None:
    """Once everything is safe: let the scheduler's handler do what it would have done, queue the job again."""
    if _then is not None:
        _then()


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


def _wish_then(handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
    global _then  # noqa: PLW0603
    _then = partial(handler, number, frame)
    _wish(number, frame)


def _wish(_signal: int, _frame: FrameType | None) -> None:
    global _wished  # noqa: PLW0603
    _wished = True
