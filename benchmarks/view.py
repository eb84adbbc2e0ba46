"""What the live view of a terminal costs: a study with it and one without, each in a terminal of its own.

    python -m benchmarks.view

CPU seconds of the launching process alone, where the view is drawn, beside those of everything the study did.
"""

import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import common

ROUNDS = 2
STUDY = ["data.max_examples={train: 600, validation: 150, test: 100}", "study.n_trials=4", "workers=2",
         "study.baselines=[majority]", "study.report=false", "space.trainer.num_train_epochs.high=2",
         "trainer.num_train_epochs=2"]  # fmt: skip


def study(progress: str) -> dict[str, float]:
    """CPU seconds of the launching process, and of it with all its workers."""
    with tempfile.TemporaryDirectory() as place:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "src.sweep", "-m", *STUDY, f"progress={progress}"]
        environment = {**os.environ, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = str(Path(common.HERE).parent)
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=place, env=environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        threading.Thread(target=_read, args=(master,), daemon=True).start()
        own, others = 0.0, dict[int, float]()
        while process.poll() is None:
            try:
                main = psutil.Process(process.pid)
                own = _seconds(main)
                others |= {child.pid: _seconds(child) for child in main.children(recursive=True)}
            except psutil.Error:
                pass
            time.sleep(0.2)
        assert process.returncode == 0
        return {"own": own, "all": own + sum(others.values()), "seconds": time.perf_counter() - began}


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _read(master: int) -> None:
    """A terminal that is looked at by nobody."""
    while True:
        try:
            os.read(master, 65536)
        except OSError:
            return


def main() -> None:
    rounds: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        rounds.append({progress: study(progress) for progress in ("lines", "auto")})
        print(rounds[-1], flush=True)
    share = sum((r["auto"]["own"] - r["lines"]["own"]) / r["auto"]["all"] for r in rounds) / len(rounds)
    print(f"the view took {100 * share:.2f} % of all CPU time")
    common.write("view", {"rounds": rounds, "share": share})


if __name__ == "__main__":
    main()
