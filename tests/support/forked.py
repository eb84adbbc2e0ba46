"""Commands that fork from this process, which has done the imports: half the time, where hundreds are run."""

import os
import runpy
import sys
import tempfile
import time
import traceback
from pathlib import Path

HEAVY = (
    "src.training", "src.tracking.store", "torch", "transformers", "transformers.trainer", "datasets", "mlflow",
    "mlflow.transformers", "mlflow.store.tracking.sqlalchemy_store", "optuna", "sklearn.metrics", "scipy.stats",
    "pandas", "pyarrow.parquet", "hydra", "accelerate", "evaluate",
)  # fmt: skip


def preload() -> None:
    """Import what commands import, once."""
    for name in HEAVY:
        __import__(name)


class ForkedCommand:
    """`python -m module arguments`, forked: what is needed of subprocess.Popen. POSIX only."""

    def __init__(self, module: str, arguments: list[str], folder: Path, env: dict[str, str]) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._run(module, arguments, folder, env)

    def _run(self, module: str, arguments: list[str], folder: Path, env: dict[str, str]) -> None:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(env)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor in (1, 2):
                os.dup2(self.output.fileno(), descriptor)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
            sys.argv = [module, *arguments]
            sys.path[0:0] = [""]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float = 600) -> int:
        """Wait for its end."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, f"{self.pid} did not end"
            time.sleep(0.05)
        assert self.returncode is not None
        return self.returncode

    def read(self) -> str:
        """What it has printed."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")
