"""The lock of the process that runs a comparison."""

from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = "launch.lock"


def launch_lock(folder: Path) -> FileLock:
    """The lock of the process that compares. `is_being_compared` takes it for a moment, hence the timeout."""
    return FileLock(folder / LOCK_FILE, timeout=1)


def is_being_compared(folder: Path) -> bool:
    """Whether a living process runs the comparison in `folder`."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with launch_lock(folder).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except PermissionError:  # a project that can only be read
        return _is_locked(folder / LOCK_FILE)


def _is_locked(file: Path) -> bool:
    """Whether a process holds the kernel's lock of `file`, which can only be read."""
    import fcntl

    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
