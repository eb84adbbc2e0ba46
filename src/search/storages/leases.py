"""One lock per study, and leases that say which living process runs which trial.

They are files in the study's folder, which all its processes share. For a study in PostgreSQL they are advisory locks
of a database session: the server releases them when the process or its machine is gone, and no folder is shared.
"""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil
from filelock import FileLock, Timeout

from src.core.record_files import write_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 0.005  # between two attempts to take a lock that another process holds
MAX_SILENCE_SECONDS = 120.0  # after which a process on another host counts as dead
SESSION_TIMEOUT_SECONDS = 40  # after which PostgreSQL closes a session whose machine does not answer


class Leases(Protocol):
    """Locks and leases of one study. Names are paths below the study's folder."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The study's lock. A thread that holds it may take it again."""

    @property
    def needs_shared_folder(self) -> bool:
        """Whether all processes of a study must share one folder."""

    def acquire(self, name: str) -> None:
        """Take the lease `name`, which no living process holds. Call with the lock held."""

    def release(self, name: str) -> None:
        """Give the lease `name` back, if this process holds it."""

    def is_held(self, name: str) -> bool:
        """Whether a living process holds the lease `name`."""

    def held_names(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that living processes hold."""

    def keep_alive(self, name: str) -> AbstractContextManager[None]:
        """Renew this process's lease `name` during the block, for processes on other hosts."""

    def try_exclusive(self, name: str) -> AbstractContextManager[bool]:
        """Try to take `name` until the end of the block; yields whether this process has it."""


class FileLeases:
    """Leases in files of a shared folder; the lock is the kernel's."""

    needs_shared_folder = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = FileLock(folder / "study.lock", poll_interval=POLL_SECONDS)
        self._renewals: dict[str, tuple[float, float]] = {}  # of other hosts: modification time, and when first seen

    def acquire(self, name: str) -> None:
        """Write this process's host, id and start time into the lease's file."""
        path = self._file(name)
        lease = {"host": socket.gethostname(), "pid": os.getpid(), "started": _process_start(os.getpid())}
        write_json(path, lease, durable=False)

    def release(self, name: str) -> None:
        """Delete the lease's file."""
        self._file(name).unlink(missing_ok=True)

    def is_held(self, name: str) -> bool:
        """Whether the process that wrote the lease still runs. The start time tells a reused process id.

        Processes of other hosts cannot be seen. Their leases count as held while they are renewed.
        """
        path = self._file(name)
        try:
            lease = json.loads(path.read_text(encoding="utf-8"))
            if lease["host"] != socket.gethostname():
                return self._is_renewed(name, path.stat().st_mtime)
            process = psutil.Process(lease["pid"])
            running = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            return bool(running and _process_start(lease["pid"]) == lease["started"])
        except (OSError, json.JSONDecodeError, KeyError, IndexError, psutil.Error):
            return False

    def _is_renewed(self, name: str, renewed: float) -> bool:
        """Whether a process on another host renews its lease. Survives clocks that differ, or are set.

        It counts as dead if its last renewal is far from this host's time, and this process has seen none for a while.
        """
        if self._renewals.get(name, (None, 0.0))[0] != renewed:
            self._renewals[name] = (renewed, time.monotonic())
        unchanged = time.monotonic() - self._renewals[name][1]
        return abs(time.time() - renewed) < MAX_SILENCE_SECONDS or unchanged < 2 * HEARTBEAT_SECONDS

    def held_names(self, names: Sequence[str]) -> set[str]:
        """Those of `names` whose processes still run."""
        return {name for name in names if self.is_held(name)}

    @contextmanager
    def keep_alive(self, name: str) -> Iterator[None]:
        """Touch the lease's file every HEARTBEAT_SECONDS."""
        path, over = self._file(name), threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                with suppress(FileNotFoundError):
                    os.utime(path)

        thread = threading.Thread(target=beat, daemon=True, name="lease")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def try_exclusive(self, name: str) -> Iterator[bool]:
        """Try to take a file lock; yields whether this process has it."""
        lock = FileLock(self._file(name).with_name("lock"))
        with ExitStack() as held:
            try:
                held.enter_context(lock.acquire(blocking=False))
            except Timeout:
                yield False
                return
            yield True

    def _file(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "lease.json"


class PostgresLeases:
    """Advisory locks of one session with the server: https://www.postgresql.org/docs/current/explicit-locking.html.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the server is gone, and with it every lease.
    """

    needs_shared_folder = False

    def __init__(self, url: str, study: str) -> None:
        self.url, self.study = url, study
        self._one = threading.RLock()  # of the session's threads
        self._session: Connection | None = None
        self._pid = 0
        self._mine: set[str] = set()
        self._depth = 0  # how often the study's lock was entered
        self.lock = _Reentrant(self)

    def acquire(self, name: str) -> None:
        """Take an advisory lock. Raises OSError if another session has it."""
        with self._one:
            if name not in self._mine:
                if not self._ask("SELECT pg_try_advisory_lock(:key)", name):
                    raise OSError(f"{name} of {self.study} is held by another process")
                self._mine.add(name)

    def release(self, name: str) -> None:
        """Release the advisory lock, if this session has it."""
        with self._one:
            if name in self._mine:
                self._ask("SELECT pg_advisory_unlock(:key)", name)
                self._mine.discard(name)

    def is_held(self, name: str) -> bool:
        """Whether any session has the advisory lock."""
        return bool(self.held_names([name]))

    def held_names(self, names: Sequence[str]) -> set[str]:
        """One query for all names: hundreds of workers hold one each."""
        from sqlalchemy import text

        if not names:
            return set()
        with self._one:
            keys = set(self._connected().execute(text(_HELD_KEYS_QUERY)).scalars())
        return {name for name in names if self._key(name) in keys}

    @contextmanager
    def keep_alive(self, _name: str) -> Iterator[None]:
        """Nothing to do: the server notices when the session is gone."""
        yield  # the server sees to it

    @contextmanager
    def try_exclusive(self, name: str) -> Iterator[bool]:
        """Try to take an advisory lock; yields whether this session has it."""
        with self._one:
            got = f"sole {name}" not in self._mine and self._ask("SELECT pg_try_advisory_lock(:key)", f"sole {name}")
            if got:
                self._mine.add(f"sole {name}")
        try:
            yield bool(got)
        finally:
            if got:
                self.release(f"sole {name}")

    def enter(self) -> None:
        """Take the study's lock; a thread that has it may take it again."""
        self._one.acquire()
        try:
            if self._depth == 0:
                self._ask("SELECT pg_advisory_lock(:key)", "")
            self._depth += 1
        except BaseException:
            self._one.release()
            raise

    def leave(self) -> None:
        """Release the study's lock as often as it was taken."""
        try:
            self._depth -= 1
            if self._depth == 0 and self._session is not None and not self._session.invalidated:
                self._ask("SELECT pg_advisory_unlock(:key)", "")
        finally:
            self._one.release()

    def _ask(self, statement: str, name: str) -> Any:
        from sqlalchemy import text

        return self._connected().execute(text(statement), {"key": self._key(name)}).scalar()

    def _key(self, name: str) -> int:
        """The 64-bit number of the advisory lock."""
        digest = hashlib.sha256(f"trialbook/{self.study}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    def _connected(self) -> "Connection":
        """The session; a broken one is replaced unless it held a lease. A forked process opens its own."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        broke = self._session is not None and self._session.invalidated
        if broke and (self._mine or self._depth) and self._pid == os.getpid():
            raise OSError("the session with the database broke, and this process's leases went with it")
        if broke or self._session is None or self._pid != os.getpid():
            engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            self._session, self._pid, self._mine, self._depth = engine.connect(), os.getpid(), set(), 0
            quarter = SESSION_TIMEOUT_SECONDS // 4
            settings = {"idle": quarter, "interval": quarter, "count": 3}
            calls = [f"set_config('tcp_keepalives_{name}', '{value}', false)" for name, value in settings.items()]
            self._session.execute(text("SELECT " + ", ".join(calls)))
        return self._session


class _Reentrant:
    """The study's lock as a context manager that may be entered again."""

    def __init__(self, leases: PostgresLeases) -> None:
        self.leases = leases

    def __enter__(self) -> None:
        self.leases.enter()

    def __exit__(self, *_: object) -> None:
        self.leases.leave()


_HELD_KEYS_QUERY = """
SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _process_start(pid: int) -> str:
    """When a process started: on Linux, boot id and clock ticks, which a change of the clock does not alter."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return str(round(psutil.Process(pid).create_time()))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
    ticks = stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    return f"{boot.strip()}/{ticks}"
