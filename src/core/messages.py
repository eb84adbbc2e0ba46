"""Messages of workers, of the launcher, and of code that has no console.

A worker sends them to the launching process, which prints them through its console: above the live view, and not at
all with progress=off. A process that has neither a console nor a launching process prints to stderr.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

Printer = Callable[[str, bool], None]
_printer: Printer | None = None  # of this process's console
_connection: Connection | None = None  # of a worker: to the process that launched it


def print_through(printer: Printer) -> None:
    """From now on messages of this process go to `printer`, which is given the text and whether it is important."""
    global _printer  # noqa: PLW0603
    _printer = printer


def send_to_launcher(connection: Connection) -> None:
    """From now on messages of this process go to the process that reads from `connection`."""
    global _connection  # noqa: PLW0603
    _connection = connection


def print_error(text: str) -> None:
    """Print `text` to stderr, after what stdout holds; nothing if the terminal is gone."""
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def print_page(text: str) -> None:
    """Print a page of help, which ends with a line's end, to stdout."""
    print(text, end="")


def notify(text: str, important: bool = False) -> None:
    """Print a message on the terminal. Important ones are printed with progress=off, too."""
    if _connection is not None:
        with suppress(OSError):  # the launching process is gone
            _connection.send((text, important))
    elif _printer is not None:
        with suppress(OSError):  # the terminal is gone
            _printer(text, important)
    else:
        print_error(text)


def forward(connection: Connection) -> bool:
    """Print one message of a worker. Returns False if the worker has closed the connection."""
    try:
        text, important = connection.recv()
    except (EOFError, OSError):
        return False
    notify(text, important)
    return True
