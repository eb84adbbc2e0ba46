"""Runs a command: prints its errors, sets the exit code, and exits quickly."""

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from src.console import error_messages
from src.core import environment, messages
from src.core.errors import InvalidInput, PromotionDeclined

EXIT_CODES = {InvalidInput: 2, PromotionDeclined: 3}  # else 1
_started = threading.Event()


@contextmanager
def handle_errors(kept: str = error_messages.CONTINUES) -> Iterator[None]:
    """Print any error in a sentence, and exit: InvalidInput 2, PromotionDeclined 3, Ctrl-C 130, others 1.

    An unexpected error's traceback goes into a file, which the sentence names. With HYDRA_FULL_ERROR=1 the traceback
    is printed, too; the exit codes are the same.

    Args:
        kept: what the command has kept when it ends early, and how it goes on.
    """
    _started.set()
    try:
        yield
    except KeyboardInterrupt:
        messages.print_error(f"Stopped. {kept}")
        raise SystemExit(130) from None
    except BrokenPipeError:  # what reads the output has ended, such as `head`
        sys.stdout = cast("TextIO", open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        raise SystemExit(141) from None
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        messages.print_error(error_messages.explain(error, kept))
        raise SystemExit(EXIT_CODES.get(type(error), 1)) from None


def has_started() -> bool:
    """Whether Trialbook's own part of the command has started. Before that, Hydra composes the config."""
    return _started.is_set()


class _HeldStream:
    """A stream that holds text back until Trialbook's own part of the command starts."""

    def __init__(self, stream: TextIO, kept: list[str]) -> None:
        self.stream, self.held = stream, kept

    def write(self, text: str) -> int:
        self.held.append(text)
        return self.pass_on() if has_started() else len(text)

    def pass_on(self) -> int:
        text = "".join(self.held)
        self.held.clear()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def hold_stderr() -> Iterator[list[str]]:
    """Hold back what is written to stderr until Trialbook's own part of the command starts.

    Yields the list of held texts; what is removed from it is never written.
    """
    held = _HeldStream(sys.stderr, [])
    sys.stderr = cast("TextIO", held)
    try:
        yield held.held
    finally:
        sys.stderr = held.stream
        with suppress(OSError):  # the terminal may be gone
            held.pass_on()


def run_and_exit(command: Callable[[], object]) -> None:
    """Run a command and exit at once, without the seconds that Python needs to unload torch and other modules.

    Functions registered with atexit during the command still run. Unexpected errors end the process as usual.
    """
    environment.clear_variables()
    environment.use_writable_caches(Path.cwd() / "mlruns" / "cache")
    code: list[int] = []
    atexit.register(_exit_now, code)
    try:
        command()
        code.append(0)
    except KeyboardInterrupt:  # while libraries are imported, or after the command's own part
        messages.print_error("Stopped." if has_started() else "Stopped before anything was done.")
        code.append(130)
        raise SystemExit(130) from None
    except SystemExit as end:
        code.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _exit_now(code: list[int]) -> None:
    if code:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code[0])
