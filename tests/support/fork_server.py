"""Commands that fork from a process that has done the imports, which is most of what a short command costs.

A test process starts one such server when it runs its first command, by a private socket:

    python -m tests.support.fork_server <file descriptor of the socket>

Each request forks twice: the first process waits for the second, which becomes the command, and reports how it ended.
What a command does while it imports is not seen this way: tests of that start a Python of their own.
"""

import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import util
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO

from src.config.groups import ROOT

PRELOAD = (
    "src.training", "src.workers.search_worker", "src.workers.comparison_worker", "src.tracking.store",
    "transformers.trainer", "datasets", "mlflow.transformers", "mlflow.store.tracking.sqlalchemy_store", "optuna",
    "sklearn.metrics", "scipy.stats", "pandas", "pyarrow.parquet", "hydra", "accelerate", "evaluate",
)  # fmt: skip
MOST = 2**18  # bytes of a request
INHERITED: dict[str, str] = {}
"""Variables that the imports have set, and that they would set in a command, too."""


class ForkedCommand:
    """`python -m module arguments` in `folder`: what tests use of subprocess.Popen. POSIX only.

    Both outputs go into files, so that a command never waits for its reader.
    """

    def __init__(self, module: str, arguments: Sequence[str], folder: Path, env: dict[str, str]) -> None:
        self.args = [module, *arguments]
        self.returncode: int | None = None
        self._polled = threading.Lock()
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        with open(os.devnull, "rb") as nothing:
            streams = (nothing.fileno(), self._out.fileno(), self._err.fileno())
            self._reports = request(_own_server(env), self.args, str(folder), env, streams)
        self.pid = int(self._reports.readline())

    def poll(self) -> int | None:
        """The exit code once it has ended, -N if by signal N."""
        with self._polled:
            if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
                self.returncode = int(self._reports.readline())
                self._reports.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it has printed."""
        self.wait(timeout)
        return _text(self._out), _text(self._err)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


_servers: dict[tuple[object, ...], socket.socket] = {}


def _own_server(env: Mapping[str, str]) -> socket.socket:
    """The server of this process whose imports saw the same variables of the Hub's library. The last three are kept."""
    key = (os.getpid(), *sorted((name, value) for name, value in env.items() if name.startswith("HF_")))
    _servers[key] = _servers.pop(key, None) or start_server(ROOT, env)
    for old in list(_servers)[:-3]:
        _servers.pop(old).close()
    return _servers[key]


def start_server(project: Path, env: Mapping[str, str]) -> socket.socket:
    """A server that imports from `project`. It ends when the socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = theirs.fileno()
    subprocess.Popen(
        [sys.executable, "-m", "tests.support.fork_server", str(number)], cwd=project, env=env, pass_fds=[number],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()
    return ours


def request(
    server: socket.socket, argv: Sequence[str], folder: str, env: Mapping[str, str], streams: Sequence[int]
) -> TextIO:
    """Ask for a command: its module and arguments, its folder, its environment, and its three standard streams.

    Returns:
        A stream of two lines: the command's process id, and later its exit code, -N if signal N ended it.
    """
    content = json.dumps({"argv": list(argv), "folder": folder, "env": dict(env)}).encode()
    assert len(content) < MOST
    reader, writer = os.pipe()
    socket.send_fds(server, [content], [*streams, writer])
    os.close(writer)
    return open(reader, encoding="ascii")


def serve(requests: socket.socket) -> None:
    """Fork a command for each request; returns in the command's process, and when there are no more requests."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for commands are not waited for
    while True:
        content, descriptors, *_ = socket.recv_fds(requests, MOST, 4)
        if not content:
            return
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            wait_for_command(descriptors[:3], descriptors[3])
            command = json.loads(content)
            os.chdir(command["folder"])
            os.environ.clear()
            os.environ.update(INHERITED | command["env"])
            sys.path[0] = command["folder"]
            keep_spare()
            sys.argv = command["argv"]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def keep_spare() -> None:
    """Fork a process that becomes the fork server of multiprocessing, should this process start one.

    That one would do all imports once more, which takes longer than most commands. It gets the arguments, environment,
    folder, signal mask and file descriptors that a new process would have got. Call this with one thread only.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become_fork_server(theirs)
    theirs.close()
    original, unused = util.spawnv_passfds, [ours]

    def spawn(path: bytes, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
        code = arguments[-1]
        if not unused or "multiprocessing.forkserver" not in code:
            return int(original(path, arguments, descriptors))
        blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        content = {"code": code, "descriptors": list(descriptors), "env": dict(os.environ), "folder": os.getcwd()}
        with unused.pop() as spare:
            try:
                socket.send_fds(spare, [json.dumps({**content, "blocked": blocked}).encode()], descriptors)
            except OSError:  # it was killed
                return int(original(path, arguments, descriptors))
        return pid

    util.spawnv_passfds = spawn


def _become_fork_server(requests: socket.socket) -> NoReturn:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
    content, descriptors, *_ = socket.recv_fds(requests, MOST, 8)
    if not content:
        os._exit(0)
    requests.close()
    asked = json.loads(content)
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    signal.signal(signal.SIGINT, handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 200) for descriptor in descriptors]  # off the numbers to come
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(moved, asked["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    try:
        exec(asked["code"], {})  # as python -c does; what multiprocessing wrote
    finally:
        os._exit(0)


def wait_for_command(streams: Sequence[int], reports: int) -> None:
    """Fork the command's process, in which this returns. It reports its pid; the one that waits, its exit code."""
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(reports, f"{code}\n".encode())
        os._exit(0)
    os.setsid()
    os.write(reports, f"{os.getpid()}\n".encode())
    os.close(reports)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # those of the server knew other files: whether one can seek in a stream is asked once
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


def main() -> None:
    given = set(os.environ)
    for name in PRELOAD:
        importlib.import_module(name)
    INHERITED.update({name: value for name, value in os.environ.items() if name not in given})
    gc.freeze()  # the modules, which every fork would look through
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
