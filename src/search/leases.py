"""Who works on a trial: a lease that names a living process, and is void when that process is gone."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

STARTED_SLACK = 1.0  # seconds; the same process is never reported further apart
BEAT_SECONDS = 15.0
SILENCE_SECONDS = 120.0  # after which a process on another host counts as dead


def take(path: Path) -> None:
    """Write this process's lease to `path`."""
    me = psutil.Process()
    lease = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(lease))
    scratch.replace(path)


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Touch the lease at `path` every so often, for those on other hosts who cannot see this process."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(FileNotFoundError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def alive(path: Path) -> bool:
    """Whether the process that wrote `path` still runs; a process id used anew is another process.

    A lease from another host is alive while it is touched: that host's processes cannot be seen from here.
    """
    try:
        lease = json.loads(path.read_text())
        if lease["host"] != socket.gethostname():
            return time.time() - path.stat().st_mtime < SILENCE_SECONDS
        process = psutil.Process(lease["pid"])
        running = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return bool(running and abs(process.create_time() - lease["started"]) < STARTED_SLACK)
    except (FileNotFoundError, json.JSONDecodeError, KeyError, psutil.Error):
        return False


def drop(path: Path) -> None:
    path.unlink(missing_ok=True)
