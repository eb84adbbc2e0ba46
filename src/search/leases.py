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

BEAT_SECONDS = 15.0
SILENCE_SECONDS = 120.0  # after which a process on another host counts as dead


def take(path: Path) -> None:
    """Write this process's lease to `path`."""
    lease = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
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
        return bool(running and _started(lease["pid"]) == lease["started"])
    except (OSError, json.JSONDecodeError, KeyError, IndexError, psutil.Error):
        return False


def _started(pid: int) -> str:
    """When the process started, in words that no change of the clock alters: boot and clock ticks since, on Linux."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return str(round(psutil.Process(pid).create_time()))
    ticks = stat.read_text().rsplit(")", 1)[1].split()[19]
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{ticks}"


def drop(path: Path) -> None:
    path.unlink(missing_ok=True)
