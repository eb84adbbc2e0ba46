"""What is printed for an error: a sentence that says what happened, what is kept, and what to do."""

import errno
import os
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from src.core import messages
from src.core.errors import (
    CommandFailed,
    InvalidInput,
    NotReproduced,
    PromotionDeclined,
    StorageUnavailable,
    first_line,
    mask_secrets,
    with_full_stop,
)

DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


CONTINUES = "Nothing that was done so far is lost; the same command continues it."
STARTS_AGAIN = "Nothing that was recorded before is lost; the same command starts again."
DOES_THE_REST = "What was done so far is kept; the same command does the rest."
ANSWERS_KEPT = "With --file, the answers so far are kept; the same command with --resume gives the rest."


def explain(error: Exception, kept: str = CONTINUES) -> str:
    """The text to print for an error: what happened, and what to do.

    Args:
        error: of any kind. The traceback of an unexpected one goes into a file, which the text names.
        kept: what the command has kept, and how it goes on.
    """
    if (expected := _expected_message(error, kept)) is not None:
        return expected
    from src.tracking import store

    if (words := store.explain(error)) is not None:
        return f"\n{words} {kept}"
    return (
        f"\nAn unexpected error, {type(error).__name__}: {with_full_stop(first_line(error))} Its traceback is in "
        f"{_save_traceback(error)}. {kept}"
    )


def _save_traceback(error: Exception) -> str:
    """Write the traceback to a file of its own in mlruns/errors, or in the temporary folder. Returns its path."""
    name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}.txt"
    text = mask_secrets("".join(traceback.format_exception(error)))
    for folder in (Path.cwd() / "mlruns" / "errors", Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            return str(folder / name)
    messages.print_error(text)
    return "the lines above"


def _expected_message(error: Exception, kept: str) -> str | None:
    """The text to print for an error of Trialbook's own, or of a full disk; None for others."""
    if isinstance(error, InvalidInput):
        return str(error)
    if isinstance(error, (PromotionDeclined, NotReproduced, CommandFailed)):
        return f"\n{error}"
    if isinstance(error, StorageUnavailable):
        return f"\nThe study's records cannot be reached: {with_full_stop(str(error))} {kept}"
    if isinstance(error, PermissionError) and error.filename:
        return (
            f"\nThis user may not read or write {error.filename} ({error.strerror}). Start the command as the user "
            f"whose files these are, or in a copy of the folder. {kept}"
        )
    if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        return f"\nNothing more can be written: {error.strerror}{where}. Make room first. {kept}"
    return None
