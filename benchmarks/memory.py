"""Whether a worker grows: one worker, trial after trial, its resident memory read from outside.

python -m benchmarks.memory
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import common

EARLY = 5  # the first trials fill caches; growth is counted from this one
EVERY = 0.05  # seconds between two looks


def watched(process: subprocess.Popen[bytes], study: Path) -> dict[int, tuple[float, float]]:
    """Trial -> the least and the most memory (MB of 10**6 bytes) that the worker had while it held its lease."""
    result: dict[int, tuple[float, float]] = {}
    while process.poll() is None:
        for lease in study.glob("trials/*/lease.json"):
            try:
                worker = psutil.Process(json.loads(lease.read_text())["pid"])
                megabytes = worker.memory_info().rss / 1e6
            except (OSError, ValueError, psutil.Error):
                continue
            number = int(lease.parent.name)
            least, most = result.get(number, (megabytes, megabytes))
            result[number] = min(least, megabytes), max(most, megabytes)
        time.sleep(EVERY)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    arguments = parser.parse_args()
    settings = [
        "data=starter", "data.max_examples=128", "study.name=memory", "workers=1", f"study.n_trials={arguments.trials}",
        "pruner=none", "study.baselines=[]", "study.report=false", "space.trainer.num_train_epochs.high=1",
        "trainer.num_train_epochs=1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(common.HERE.parent), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "src.sweep", "-m", *settings]
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL)
        result = watched(process, Path(place) / "mlruns" / "studies" / "memory")
    if process.returncode:
        raise SystemExit(process.returncode)
    least, most = ([result[number][side] for number in sorted(result)] for side in (0, 1))
    growth = max(most[EARLY - 1 :]) / most[EARLY - 1] - 1
    file = common.write("memory", {"megabytes": most, "least": least, "early": EARLY, "growth": growth})
    print(file.read_text())


if __name__ == "__main__":
    main()
