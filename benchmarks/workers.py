"""How many workers pay, each with its share of the processors: whole studies of trials of one length.

python -m benchmarks.workers --data <folder of SST-2's parquet files> [--record workers-<machine>]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import common, trial

TRIALS = 4


def trials_per_hour(data: str | None, place: Path, name: str, workers: int) -> float:
    """From the first trial's beginning to the last one's end, as the study's own sheets have it."""
    from src.workers import timeline

    more = [f"workers={workers}", f"study.n_trials={TRIALS}"]
    environment = {**os.environ, "PYTHONPATH": str(common.HERE.parent), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "src.sweep", "-m", *trial.overrides(data, name), *more]
    subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    sheet = [s for s in timeline.read_timeline(place / "mlruns" / "studies" / name) if s.what.startswith("trial")]
    return TRIALS / (max(s.ended for s in sheet) - min(s.began for s in sheet)) * 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.parquet and validation.parquet; default: the Hub")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", default="workers", help="begins with workers; another one for another machine")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    counts = [n for n in (1, 2, 4, 8, 16) if n <= cores]
    with tempfile.TemporaryDirectory() as place:
        trials_per_hour(arguments.data, Path(place), "warm", counts[-1])
        rounds = [
            {str(n): trials_per_hour(arguments.data, Path(place), f"round-{r}-workers-{n}", n) for n in counts}
            for r in range(arguments.rounds)
        ]
    over_one = {str(n): statistics.median(r[str(n)] / r["1"] for r in rounds) for n in counts}
    threads = {str(n): max(1, cores // n) for n in counts}
    file = common.write(arguments.record, {"threads": threads, "trials_per_hour": rounds, "over_one": over_one})
    print(file.read_text())


if __name__ == "__main__":
    main()
