"""Real MLflow servers for tests, and a proxy that makes one slow and faulty."""

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import clean_environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(url: str, command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command, env=clean_environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            return process
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not come up")


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 9)
    process.wait()


def command_for(folder: Path) -> tuple[str, list[str]]:
    """The address and the command of an MLflow server that keeps everything in `folder`."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files"),
    ]  # fmt: skip
    return f"http://127.0.0.1:{port}", command


@contextmanager
def faulty_proxy(target: str, faults: float, seed: int = 0) -> Iterator[str]:
    """An address that hands requests on to `target`; of a share of them, half answer 500, half come late."""
    rng, lock = random.Random(seed), threading.Lock()
    host = target.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        def hand_on(self) -> None:
            with lock:
                fault = rng.random() < faults
                late = rng.random() < 0.5
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fault and not late:
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault:
                time.sleep(2)
            connection = http.client.HTTPConnection(host, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = hand_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
