"""Starts MLflow's UI and optuna-dashboard on the records in this folder, on free local ports, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from src.comparison import saved_study
from src.config.settings import TrackingSettings
from src.console.output import Console
from src.core import shutdown
from src.core.errors import CommandFailed, InvalidInput
from src.core.paths import Paths
from src.search import dashboard
from src.tracking.store import check_store, open_existing_store

LOOPBACK = "127.0.0.1"
PORTS = {"MLflow": 5000, "optuna-dashboard": 8080}  # their usual ports; the next free one if it is taken
START_SECONDS = 180  # in which a server must answer
STOP_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """A server that was started: its address, its process group, and its output."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def answers(self) -> bool:
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(self.address, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def last_words(self) -> str:
        """The last lines that the server has printed."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-5:])


def run_ui(study: str | None, open_browser: bool, tracking_uri: str | None, paths: Paths) -> None:
    """Start both servers, print their addresses, and wait. Raises InvalidInput if there are no records."""
    console = Console()
    store = open_existing_store(tracking_uri, paths.root)
    named = study or _latest_study(paths)
    with tempfile.TemporaryDirectory() as scratch, _ended_by_signals():
        servers: list[Server] = []
        try:
            if store.uri.startswith("http"):
                check_store(TrackingSettings(store.uri, ""), paths.root)
                mlflow = store.address
            else:
                port = free_port(PORTS["MLflow"])
                command = ["-m", "mlflow", "ui", "--host", LOOPBACK, "--port", str(port)]
                servers.append(_start("MLflow", command, port, scratch, {"MLFLOW_BACKEND_STORE_URI": store.uri}))
                mlflow = servers[-1].address
            if named is not None and dashboard.available():
                settings = saved_study.load_study(named, paths).settings
                port = free_port(PORTS["optuna-dashboard"])
                command = ["-m", "src.search.dashboard", str(paths.study_dir(named)), str(port)]
                environment = {dashboard.STORAGE: settings.storage.url} if settings.storage.url else {}
                servers.append(_start("optuna-dashboard", command, port, scratch, environment))
            _wait_until_they_answer(servers)
            console.print(f"MLflow            {mlflow}")
            if named is not None and dashboard.available():
                console.print(f"optuna-dashboard  {servers[-1].address}   ({named})")
            elif named is not None:
                console.print("optuna-dashboard  is not installed: pip install -e '.[ui]'")
            if not servers:
                return
            console.print("Ctrl-C stops what was started here.")
            if open_browser:
                webbrowser.open(mlflow)
            _wait_for_an_end(servers)
        except KeyboardInterrupt:
            console.print("\nStopped.")
        finally:
            _stop(servers)


def _latest_study(paths: Paths) -> str | None:
    """The study that was written to last; None if there is none."""
    names = saved_study.study_names(paths)
    return max(names, key=lambda name: max(f.stat().st_mtime for f in paths.study_dir(name).iterdir()), default=None)


def free_port(preferred: int) -> int:
    """The first free port from `preferred` on; any free port if a hundred are taken."""
    for port in [*range(preferred, preferred + 100), 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise InvalidInput(f"No port is free on {LOOPBACK}.")


def _start(name: str, arguments: Sequence[str], port: int, scratch: str, environment: Mapping[str, str]) -> Server:
    """Start a server as a process group. Passwords go through `environment`, which other users cannot read."""
    output = (Path(scratch) / name).open("w+b")
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    return Server(name, f"http://{LOOPBACK}:{port}", process, output)


def _wait_until_they_answer(servers: Sequence[Server]) -> None:
    until = time.monotonic() + START_SECONDS
    for server in servers:
        while not server.answers():
            _check(server)
            if time.monotonic() > until:
                raise CommandFailed(f"{server.name} does not answer after {START_SECONDS} s:\n{server.last_words()}")
            time.sleep(0.2)


def _wait_for_an_end(servers: Sequence[Server]) -> None:
    while True:
        for server in servers:
            _check(server)
        time.sleep(0.5)


def _check(server: Server) -> None:
    if (code := server.process.poll()) is not None:
        raise CommandFailed(f"{server.name} ended (exit code {code}):\n{server.last_words()}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command like Ctrl-C, so that no server is left running."""
    handled = shutdown.not_ignored(signal.SIGTERM, *shutdown.HANGUP)
    before = {number: signal.signal(number, _interrupted) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _stop(servers: Sequence[Server]) -> None:
    """Stop the process groups of all servers, which have worker processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for server in servers:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, number)
        for server in servers:
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(STOP_SECONDS)
    for server in servers:
        server.output.close()
