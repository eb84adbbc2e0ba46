"""What all commands share: how a refusal or an early end reaches the person, the exit code, and a quick end."""

import atexit
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from src.errors import BookLost, Declined, Differs, Refusal, StudyEnded

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
CODES = {Refusal: 2, Declined: 3}  # else 1
_begun = threading.Event()


@contextmanager
def answered() -> Iterator[None]:
    """A refusal is printed and exits 2, a declined promotion 3, an early end 1; traces only with HYDRA_FULL_ERROR=1."""
    _begun.set()
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            print("Stopped. Nothing that was done so far is lost; the same command continues it.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        words = _words(error)
        if words is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        with suppress(OSError):
            sys.stdout.flush()
        print(words, file=sys.stderr)
        raise SystemExit(CODES.get(type(error), 1)) from None


def _words(error: Exception) -> str | None:
    """What is said of an end that is answered; None for an error that nobody expected."""
    if isinstance(error, Refusal):
        return str(error)
    if isinstance(error, (Declined, Differs, StudyEnded)):
        return f"\n{error}"
    if isinstance(error, BookLost):
        return (
            f"\nThe study's records cannot be reached: {error}. Everything trained so far is kept; once they can, the "
            "same command continues it."
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"\nNothing more can be written: {error.strerror}{where}. Everything trained so far is kept; make room, "
            "and the same command continues it."
        )
    return None


def begun() -> bool:
    """Whether this process came as far as Trialbook's own part of a command: before that, Hydra composes."""
    return _begun.is_set()


class _Held:
    """Stands for a stream: keeps what is written until Trialbook's own part begins, and passes it on from then."""

    def __init__(self, stream: TextIO, kept: list[str]) -> None:
        self.stream, self.kept = stream, kept

    def write(self, text: str) -> int:
        self.kept.append(text)
        return self.pass_on() if begun() else len(text)

    def pass_on(self) -> int:
        text = "".join(self.kept)
        self.kept.clear()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def held_back() -> Iterator[list[str]]:
    """What is written to stderr until Trialbook's own part begins comes at the end, less what is taken out here."""
    held = _Held(sys.stderr, [])
    sys.stderr = cast("TextIO", held)
    try:
        yield held.kept
    finally:
        sys.stderr = held.stream
        with suppress(OSError):  # the terminal may be gone
            held.pass_on()


def at_once(command: Callable[[], object]) -> None:
    """Run a command and let the process end with it: Python would take torch and the rest apart, for seconds.

    What is registered for the end while the command runs is still done. An error that nobody expected ends as ever.
    """
    code: list[int] = []
    atexit.register(_end, code)
    try:
        command()
        code.append(0)
    except SystemExit as end:
        code.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _end(code: list[int]) -> None:
    if code:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code[0])
