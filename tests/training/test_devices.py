"""The process that workers fork from."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.config.groups import ROOT

SCRIPT = """
from src.training.devices import forkserver_context
if __name__ == "__main__":
    context = forkserver_context(["interrupted"])
    process = context.Process(target=print, args=("works",))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_its_imports_is_left_to_the_process_that_started_it(tmp_path: Path, number: int) -> None:
    module = f"import os\nos.kill(os.getpid(), {int(number)})\n"
    (tmp_path / "interrupted.py").write_text(module)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "works\n", "")
