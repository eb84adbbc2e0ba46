"""Who works on what: one lock for a study, and leases that name living processes and are void when those are gone.

Kept in the study's folder, which all its processes share, or, where the study lives in PostgreSQL, as advisory locks
of a session there: the server frees them when the session's process or its machine is gone, and no folder is shared.
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

if TYPE_CHECKING:
    from sqlalchemy import Connection

BEAT_SECONDS = 15.0
POLL_SECONDS = 0.005  # between two tries for a lock that another process has
SILENCE_SECONDS = 120.0  # after which a process on another host counts as dead
GONE_SECONDS = 40  # after which PostgreSQL gives up a session whose machine does not answer


class Leases(Protocol):
    """Names are paths below the study's folder."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The study's; a thread that has it may take it again."""

    @property
    def by_folder(self) -> bool:
        """Whether all processes of a study must see one folder."""

    @property
    def sure(self) -> bool:
        """Whether nobody can come to hold what a process holds that still gets the study's lock."""

    def take(self, name: str) -> None:
        """Hold `name`, which no living process holds. Call with the study's lock held."""

    def drop(self, name: str) -> None:
        """Let go of `name`, if it is held."""

    def alive(self, name: str) -> bool:
        """Whether a living process holds `name`."""

    def held(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that living processes hold."""

    def kept(self, name: str) -> AbstractContextManager[None]:
        """While it lasts, the lease of this process is seen to be alive, wherever one looks from."""

    def sole(self, name: str) -> AbstractContextManager[bool]:
        """Whether this process has `name` for itself, from here to the block's end."""


class InFolder:
    """Locks of the kernel, and leases in files, in a folder that all processes see."""

    by_folder = True
    sure = False  # of a host that has been silent for long nobody knows

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = FileLock(folder / "study.lock", poll_interval=POLL_SECONDS)

    def take(self, name: str) -> None:
        """Write this process's lease."""
        path = self._file(name)
        lease = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(lease))
        scratch.replace(path)

    def drop(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        """Whether the process that wrote the lease still runs; a process id used anew is another process.

        A lease from another host is alive while it is touched: that host's processes cannot be seen from here.
        """
        path = self._file(name)
        try:
            lease = json.loads(path.read_text())
            if lease["host"] != socket.gethostname():
                return time.time() - path.stat().st_mtime < SILENCE_SECONDS
            process = psutil.Process(lease["pid"])
            running = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            return bool(running and _started(lease["pid"]) == lease["started"])
        except (OSError, json.JSONDecodeError, KeyError, IndexError, psutil.Error):
            return False

    def held(self, names: Sequence[str]) -> set[str]:
        return {name for name in names if self.alive(name)}

    @contextmanager
    def kept(self, name: str) -> Iterator[None]:
        """Touch the lease every so often, for those on other hosts who cannot see this process."""
        path, over = self._file(name), threading.Event()

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

    @contextmanager
    def sole(self, name: str) -> Iterator[bool]:
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


class InPostgres:
    """Advisory locks of one session with the server: https://www.postgresql.org/docs/current/explicit-locking.html.

    Raises sqlalchemy.exc.SQLAlchemyError where the server is gone, and with it every lease.
    """

    by_folder = False
    sure = True  # the lock is asked for in the session that has the leases

    def __init__(self, url: str, study: str) -> None:
        self.url, self.study = url, study
        self._one = threading.RLock()  # of the session's threads
        self._session: Connection | None = None
        self._pid = 0
        self._mine: set[str] = set()
        self._depth = 0  # how often the study's lock was entered
        self.lock = _Reentrant(self)

    def take(self, name: str) -> None:
        with self._one:
            if name not in self._mine:
                if not self._ask("SELECT pg_try_advisory_lock(:key)", name):
                    raise OSError(f"{name} of {self.study} is in other hands")
                self._mine.add(name)

    def drop(self, name: str) -> None:
        with self._one:
            if name in self._mine:
                self._ask("SELECT pg_advisory_unlock(:key)", name)
                self._mine.discard(name)

    def alive(self, name: str) -> bool:
        return bool(self.held([name]))

    def held(self, names: Sequence[str]) -> set[str]:
        """Asked once for all names: hundreds of workers hold one each."""
        from sqlalchemy import text

        if not names:
            return set()
        with self._one:
            keys = set(self._connected().execute(text(_HELD)).scalars())
        return {name for name in names if self._key(name) in keys}

    @contextmanager
    def kept(self, _name: str) -> Iterator[None]:
        yield  # the server sees to it

    @contextmanager
    def sole(self, name: str) -> Iterator[bool]:
        with self._one:
            got = f"sole {name}" not in self._mine and self._ask("SELECT pg_try_advisory_lock(:key)", f"sole {name}")
            if got:
                self._mine.add(f"sole {name}")
        try:
            yield bool(got)
        finally:
            if got:
                self.drop(f"sole {name}")

    def enter(self) -> None:
        self._one.acquire()
        try:
            if self._depth == 0:
                self._ask("SELECT pg_advisory_lock(:key)", "")
            self._depth += 1
        except BaseException:
            self._one.release()
            raise

    def leave(self) -> None:
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
        """What the server calls it: 64 bits."""
        digest = hashlib.sha256(f"trialbook/{self.study}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    def _connected(self) -> "Connection":
        """The session; one that broke is replaced unless it held something. A forked process has its own."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        broke = self._session is not None and self._session.invalidated
        if broke and (self._mine or self._depth) and self._pid == os.getpid():
            raise OSError("the session with the database broke, and this process's leases went with it")
        if broke or self._session is None or self._pid != os.getpid():
            engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            self._session, self._pid, self._mine, self._depth = engine.connect(), os.getpid(), set(), 0
            quarter = GONE_SECONDS // 4
            settings = {"idle": quarter, "interval": quarter, "count": 3}
            asked = [f"set_config('tcp_keepalives_{name}', '{value}', false)" for name, value in settings.items()]
            self._session.execute(text("SELECT " + ", ".join(asked)))
        return self._session


class _Reentrant:
    """A study's lock as a context that may be entered again."""

    def __init__(self, leases: InPostgres) -> None:
        self.leases = leases

    def __enter__(self) -> None:
        self.leases.enter()

    def __exit__(self, *_: object) -> None:
        self.leases.leave()


_HELD = """
SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _started(pid: int) -> str:
    """When the process started, in words that no change of the clock alters: boot and clock ticks since, on Linux."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return str(round(psutil.Process(pid).create_time()))
    ticks = stat.read_text().rsplit(")", 1)[1].split()[19]
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{ticks}"
