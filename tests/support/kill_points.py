"""Runs a command of Trialbook's again and again, and kills it once at each of some lines.

    python -m tests.support.kill_points <json>

A kill point is `module:function:before` or `module:function:after`. The imports are made once; every attempt is a
process forked from there, which patches the functions and runs the command as `python -m` does. The command must do
all its work in its own process (launcher=inline): what is killed is the whole of it.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.config.groups import ROOT
from tests.support.fork_server import keep_spare

PRELOAD = ("src.workers.search_worker", "src.workers.comparison_worker", "transformers.trainer", "mlflow.transformers")


def run_until_done(
    folder: Path, points: Sequence[str], marks: Path, module: str, *arguments: str, env: dict[str, str]
) -> None:
    """Run the command in `folder`, killed once at each point, until it ends by itself.

    `marks`: a new folder, in which a file for each point says that it was reached. `env`: of the command.
    """
    marks.mkdir()
    spec = {"folder": str(folder), "points": list(points), "marks": str(marks), "argv": [module, *arguments]}
    command = [sys.executable, "-m", "tests.support.kill_points", json.dumps(spec)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=800, check=False)
    reached = {mark.name for mark in marks.iterdir()}
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:], sorted(reached))
    assert reached == set(points), f"never reached: {sorted(set(points) - reached)}"


def main() -> int:
    spec = json.loads(sys.argv[1])
    for name in PRELOAD:
        importlib.import_module(name)
    gc.freeze()  # the modules, which every fork would look through at the end of every training
    for _ in range(len(spec["points"]) + 1):
        pid = os.fork()
        if pid == 0:
            os._exit(attempt(spec))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code >= 0:
            return code
        assert code == -signal.SIGKILL, f"the command ended by signal {-code}"
    return 1


def attempt(spec: dict[str, Any]) -> int:
    """The command in this process; returns its exit code."""
    os.chdir(spec["folder"])
    keep_spare()
    for point in spec["points"]:
        patch(point, Path(spec["marks"]) / point)
    module, *arguments = spec["argv"]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def patch(point: str, mark: Path) -> None:
    """Replace the function wherever it is known by its name, in the modules that have been imported."""
    module, function, moment = point.split(":")
    *holders, name = function.split(".")
    owner = functools.reduce(getattr, holders, importlib.import_module(module))
    original = getattr(owner, name)

    @functools.wraps(original)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            die_once(mark)
        result = original(*args, **kwargs)
        if moment == "after":
            die_once(mark)
        return result

    setattr(owner, name, deadly)
    for other in [m for key, m in sys.modules.items() if key.startswith("src.")]:
        if vars(other).get(name) is original:
            setattr(other, name, deadly)


def die_once(mark: Path) -> None:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
