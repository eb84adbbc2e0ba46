"""Real servers for tests: MLflow, PostgreSQL, SLURM, nodes with addresses of their own, a proxy that makes one slow."""

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.commands import clean_environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    url: str, command: list[str], environment: dict[str, str] | None = None, page: str = "health"
) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it answers."""
    process = subprocess.Popen(
        command, env=clean_environment() | (environment or {}), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/{page}", timeout=1)
            return process
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not come up")


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 9)
    process.wait()


def command_for(
    folder: Path, host: str = "127.0.0.1", database: str | None = None, artifacts: str | None = None
) -> tuple[str, list[str]]:
    """The address and the command of an MLflow server that keeps everything in `folder`, or where it is told to."""
    port = free_port()
    allowed = ["--allowed-hosts", f"{host}:{port}"] if host != "127.0.0.1" else []
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1", *allowed,
        "--backend-store-uri", database or f"sqlite:///{folder}/server.db",
        "--artifacts-destination", artifacts or str(folder / "files"),
    ]  # fmt: skip
    return f"http://{host}:{port}", command


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


@contextmanager
def postgres(
    *databases: str, connections: int = 100, address: str = "127.0.0.1", lasting: bool = False
) -> Iterator[str]:
    """A PostgreSQL of its own, as Debian packages it, with these databases; yields their URLs' common part.

    `lasting`: what is committed survives a loss of power, as it is out of the box; tests do without.
    """
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:] or [None]
    assert programs, "PostgreSQL is not installed (Debian: apt install postgresql)"
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    as_user = []
    if os.getuid() == 0:  # which PostgreSQL does not run as
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, programs / program, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    options = f"-p {port} -c listen_addresses={address} -k {folder} -c max_connections={connections}"
    options += "" if lasting else " -c fsync=off"
    try:
        call("initdb", "-D", data, "-U", "trialbook", "--auth=trust")
        with Path(data, "pg_hba.conf").open("a") as rules:
            rules.write("host all all all trust\n")
        call("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
        for database in databases:
            call("createdb", "-h", str(folder), "-p", str(port), "-U", "trialbook", database)
        yield f"postgresql+psycopg://trialbook@{address}:{port}"
    finally:
        subprocess.run([*as_user, programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False, cwd="/",
                       capture_output=True)  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def slurm(cores: int) -> Iterator[dict[str, str]]:
    """A SLURM of one node, as Debian packages it; yields the environment that its commands want. Root only."""
    folder, host = Path(tempfile.mkdtemp(prefix="slurm-")), socket.gethostname()
    folder.chmod(0o755)
    secret = folder / "munge"
    secret.mkdir(mode=0o700)
    (secret / "key").write_bytes(os.urandom(1024))
    (secret / "key").chmod(0o400)
    run = folder / "run"
    run.mkdir(mode=0o755)
    for path in (secret, secret / "key", run):
        shutil.chown(path, "munge", "munge")
    config = f"""
        ClusterName=test
        SlurmctldHost={host}(127.0.0.1)
        AuthType=auth/munge
        AuthInfo=socket={run}/socket,cred_expire=5
        SlurmUser=root
        SlurmctldPort={free_port()}
        SlurmdPort={free_port()}
        StateSaveLocation={folder}/state
        SlurmdSpoolDir={folder}/spool
        SlurmctldPidFile={folder}/slurmctld.pid
        SlurmdPidFile={folder}/slurmd.pid
        SlurmctldLogFile={folder}/slurmctld.log
        SlurmdLogFile={folder}/slurmd.log
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core
        ReturnToService=2
        SchedulerParameters=sched_interval=2
        NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
        PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
    """
    (folder / "slurm.conf").write_text("\n".join(map(str.strip, config.splitlines())))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    munged = ["munged", f"--key-file={secret}/key", f"--socket={run}/socket", f"--pid-file={secret}/pid",
              f"--log-file={secret}/log", f"--seed-file={secret}/seed"]  # fmt: skip
    try:
        subprocess.run(["runuser", "-u", "munge", "--", *munged], check=True)
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon], check=True, env=os.environ | environment)
        answer = ["srun", "-n1", "--immediate=60", "true"]
        subprocess.run(answer, check=True, env=os.environ | environment, timeout=90)
        yield environment
    finally:
        with suppress(subprocess.SubprocessError):  # jobs of a test that failed would outlive their servers
            subprocess.run(["scancel", "--user=root"], check=True, env=os.environ | environment, timeout=30)
            time.sleep(2)
        for pid in (folder / "slurmd.pid", folder / "slurmctld.pid", secret / "pid"):
            if pid.exists():
                os.kill(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


NETWORK = "10.77.7"
OUTSIDE = f"{NETWORK}.254"  # the address of this machine, as its nodes see it


@contextmanager
def nodes(*names: str) -> Iterator[dict[str, str]]:
    """Machines in name only: network namespaces with an address each (yielded), on a bridge with this one.

    Root only; iproute2. A command runs on one of them with `ip netns exec <name> <command>`.
    """
    bridge, addresses = "trialbook0", {name: f"{NETWORK}.{i}" for i, name in enumerate(names, 1)}

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=not check)

    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{OUTSIDE}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for name, address in addresses.items():
            ip("netns", "add", name)
            ip("link", "add", f"{name}-out", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}-out", "master", bridge, "up")
            for words in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                          ["link", "set", "lo", "up"]):  # fmt: skip
                ip("-n", name, *words)
        yield addresses
    finally:
        for name in names:
            unplug(name)
            ip("netns", "del", name, check=False)
        ip("link", "del", bridge, check=False)


def unplug(name: str) -> None:
    """A node's power goes: first its network, so that nobody hears of it, then all its processes."""
    subprocess.run(["ip", "link", "del", f"{name}-out"], check=False, capture_output=True)
    result = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
    for pid in result.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
