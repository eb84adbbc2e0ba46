"""Who works on a trial: a lease that names a living process, and is void when that process is gone."""

import json
import os
import socket
from pathlib import Path

import psutil

STARTED_SLACK = 1.0  # seconds; the same process is never reported further apart


def take(path: Path) -> None:
    """Write this process's lease to `path`."""
    me = psutil.Process()
    lease = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(lease))
    scratch.replace(path)


def alive(path: Path) -> bool:
    """Whether the process that wrote `path` still runs; a process id used anew is another process.

    A lease from another host counts as alive: only that host can tell.
    """
    try:
        lease = json.loads(path.read_text())
        if lease["host"] != socket.gethostname():
            return True
        process = psutil.Process(lease["pid"])
        running = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return bool(running and abs(process.create_time() - lease["started"]) < STARTED_SLACK)
    except (FileNotFoundError, json.JSONDecodeError, KeyError, psutil.Error):
        return False


def drop(path: Path) -> None:
    path.unlink(missing_ok=True)
