"""MLflow's UI and optuna-dashboard, started on what is here, on free ports of this machine, until Ctrl-C."""

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

from src import drain
from src.errors import Refusal, StudyEnded
from src.evidence.store import existing_store
from src.paths import Paths
from src.runner import studies
from src.search import dashboard

LOOPBACK = "127.0.0.1"
PORTS = {"MLflow": 5000, "optuna-dashboard": 8080}  # where they are at home; taken ones are passed over
START_SECONDS = 60  # that a server may take until it answers
STOP_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """One that was started: a process group of its own, and what it says."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def last_words(self) -> str:
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-5:])


def browse(study: str | None, open_browser: bool, tracking_uri: str | None, paths: Paths) -> None:
    """Start both, say where they are, and wait. Raises Refusal if there is nothing to browse."""
    store = existing_store(tracking_uri, paths.root)
    named = study or _last_searched(paths)
    with tempfile.TemporaryDirectory() as scratch, _ended_by_signals():
        servers: list[Server] = []
        try:
            if store.uri.startswith("http"):
                mlflow = store.address
            else:
                port = free_port(PORTS["MLflow"])
                command = ["-m", "mlflow", "ui", "--host", LOOPBACK, "--port", str(port)]
                servers.append(_start("MLflow", command, port, scratch, {"MLFLOW_BACKEND_STORE_URI": store.uri}))
                mlflow = servers[-1].address
            if named is not None and dashboard.available():
                settings = studies.load(named, paths).settings
                port = free_port(PORTS["optuna-dashboard"])
                command = ["-m", "src.search.dashboard", str(paths.study(named)), str(port)]
                given = {dashboard.STORAGE: settings.storage.url} if settings.storage.url else {}
                servers.append(_start("optuna-dashboard", command, port, scratch, given))
            _wait_until_they_answer(servers)
            print(f"MLflow            {mlflow}")
            if named is not None and dashboard.available():
                print(f"optuna-dashboard  {servers[-1].address}   ({named})")
            elif named is not None:
                print("optuna-dashboard  is not installed: pip install -e '.[ui]'")
            if not servers:
                return
            print("Ctrl-C stops what was started here.", flush=True)
            if open_browser:
                webbrowser.open(mlflow)
            _wait_for_an_end(servers)
        except KeyboardInterrupt:
            print("\nStopped.")
        finally:
            _stop(servers)


def _last_searched(paths: Paths) -> str | None:
    """The study whose records were written last."""
    there = studies.known(paths)
    return max(there, key=lambda name: max(f.stat().st_mtime for f in paths.study(name).iterdir()), default=None)


def free_port(wanted: int) -> int:
    """`wanted`, or the next one after it that nobody listens on; any at all if a hundred are taken."""
    for port in [*range(wanted, wanted + 100), 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise Refusal(f"No port is free on {LOOPBACK}.")


def _start(name: str, arguments: Sequence[str], port: int, scratch: str, given: Mapping[str, str]) -> Server:
    """`given` goes through the environment, where nobody else reads the passwords in it."""
    said = (Path(scratch) / name).open("w+b")
    process = subprocess.Popen(
        [sys.executable, *arguments], env=os.environ | given, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        start_new_session=True,
    )  # fmt: skip
    return Server(name, f"http://{LOOPBACK}:{port}", process, said)


def _wait_until_they_answer(servers: Sequence[Server]) -> None:
    until = time.monotonic() + START_SECONDS
    for server in servers:
        while not server.answers():
            _check(server)
            if time.monotonic() > until:
                raise StudyEnded(f"{server.name} does not answer after {START_SECONDS} s:\n{server.last_words()}")
            time.sleep(0.2)


def _wait_for_an_end(servers: Sequence[Server]) -> None:
    while True:
        for server in servers:
            _check(server)
        time.sleep(0.5)


def _check(server: Server) -> None:
    if (code := server.process.poll()) is not None:
        raise StudyEnded(f"{server.name} ended (exit code {code}):\n{server.last_words()}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end like Ctrl-C, so that nothing is left running."""
    heeded = drain.heeded(signal.SIGTERM, *drain.HANG_UP)
    before = {number: signal.signal(number, _interrupted) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _stop(servers: Sequence[Server]) -> None:
    """Every process of theirs: servers have workers of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for server in servers:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, number)
        for server in servers:
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(STOP_SECONDS)
    for server in servers:
        server.said.close()
