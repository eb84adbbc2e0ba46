"""Tells a worker to stop at its next safe point: after a signal, or when its launching process has ended."""

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import psutil

HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # the terminal was closed
# sent to all of a terminal's processes; only the launching process handles them
LAUNCHER_SIGNALS = (signal.SIGINT, *HANGUP)
REASON = "stopped on request; the same command continues it"
_requested = False
_scheduler_handler: Callable[[], Any] | None = None  # the scheduler's own handler, to be called later


def listen_for_signals() -> None:
    """Take SIGTERM as a request to stop, and leave Ctrl-C and SIGHUP to the launching process. Main thread only."""
    signal.signal(signal.SIGTERM, _request)
    for number in LAUNCHER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def not_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those of `numbers` that this process was not told to ignore (by nohup, say). Ctrl-C is never left out."""
    return [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]


def listen_for_scheduler() -> None:
    """Stop at a safe point before a scheduler's own signal handler runs.

    submitit handles SIGUSR1 and SIGUSR2, which SLURM sends before a time limit and on preemption.
    """
    with suppress(ValueError):  # not the main thread, where signals cannot be handled
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            if callable(handler := signal.getsignal(number)):
                signal.signal(number, partial(_request_and_remember, handler))
                signal.signal(signal.SIGTERM, _request)


def call_scheduler_handler() -> None:
    """Call the scheduler's signal handler, which queues the job again. Call this once everything is saved."""
    if _scheduler_handler is not None:
        _scheduler_handler()


def requested() -> bool:
    """Whether to stop. Cheap enough to be called after every training step."""
    return _requested or _is_orphaned()


def _is_orphaned() -> bool:
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    try:
        return not parent.is_alive()
    except ValueError:  # with other launchers, the parent is known by its process id only
        return not psutil.pid_exists(parent.pid or 0)


def _request_and_remember(handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
    global _scheduler_handler  # noqa: PLW0603
    _scheduler_handler = partial(handler, number, frame)
    _request(number, frame)


def _request(_signal: int, _frame: FrameType | None) -> None:
    global _requested  # noqa: PLW0603
    _requested = True
