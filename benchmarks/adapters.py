"""LoRA and DoRA beside full fine-tuning of all-mpnet-base-v2: accuracy, seconds, memory and size of checkpoints.

    python -m benchmarks.adapters --data <folder> --mpnet <folder>

SST-2, 1,000 training and 872 validation sentences, the default recipe of each, one training after the other. `--data`
holds SST-2's parquet files; `--mpnet` the packages of all-mpnet-base-v2 (see benchmarks/quality.py).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import common
from benchmarks.quality import unpack_mpnet

EPOCHS, TOKENS = 3, 128
EVERY = 0.05  # seconds between two looks
WORDS = [
    *("data=files", "data.path=data", "data.text_column=sentence", "data.label_column=label", "trainer=cpu"),
    *("model=mpnet_local", f"model.max_tokens={TOKENS}", f"trainer.num_train_epochs={EPOCHS}", "study.report=false"),
]
METRICS = {"accuracy": "validation/accuracy", "seconds": "training_seconds", "merged_megabytes": "model/megabytes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's parquet files")
    parser.add_argument("--mpnet", type=Path, required=True, help="folder with the packages of all-mpnet-base-v2")
    parser.add_argument("--adapters", nargs="+", default=["none", "lora", "dora"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rates", nargs="+", default=[], help="learning rates instead of those of the default recipes")
    parser.add_argument("--name", default="adapters", help="of the record")
    arguments = parser.parse_args()
    trainings = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        splits = common.sentences(str(arguments.data))
        (place / "data").mkdir()
        for split, rows in {**splits, "test": splits.pop("held_out")[:200]}.items():
            rows.to_parquet(place / "data" / f"{split}.parquet", index=False)
        conf = unpack_mpnet(place, arguments.mpnet)
        for seed in arguments.seeds:
            for adapter in arguments.adapters:
                for rate in arguments.rates or [None]:
                    words = [f"adapter={adapter}", f"seed={seed}", *([f"optimizer.learning_rate={rate}"] * bool(rate))]
                    trainings.append(train(place, conf, words))
                    print(trainings[-1], flush=True)
    common.write(arguments.name, {"words": WORDS[4:], "trainings": trainings})


def train(place: Path, conf: Path, words: list[str]) -> dict[str, Any]:
    """One training; what its run says, and what was seen from outside: peak memory, and the largest checkpoint."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(common.HERE.parent)}
    command = [sys.executable, "-m", "src.train", "--config-dir", str(conf), *WORDS, *words]
    before = set(_runs(place))
    process = subprocess.Popen(command, env=environment, cwd=place, stdout=subprocess.DEVNULL)
    memory, checkpoint = 0, 0
    while process.poll() is None:
        memory = max(memory, _resident(process.pid))
        checkpoint = max([checkpoint, *map(_size, place.glob("mlruns/trainings/*/training/checkpoint-*"))])
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    best = max(place.glob("mlruns/trainings/*/training/best"), key=lambda folder: folder.stat().st_mtime)
    (run,) = (run for run_id, run in _runs(place).items() if run_id not in before)
    return {
        "words": words,
        "learning_rate": float(run.data.params["optimizer.learning_rate"]),
        **{name: round(run.data.metrics[metric], 4) for name, metric in METRICS.items()},
        "ms_per_1000_texts": round(run.data.metrics["model/ms_per_1000_texts"]),
        "peak_memory_gigabytes": round(memory / 1e9, 2),
        "checkpoint_megabytes": round(checkpoint / 1e6, 2),
        "kept_megabytes": round(_size(best) / 1e6, 2),
    }


def _runs(place: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    if not (place / "mlflow.db").exists():
        return {}
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_id: run for run in client.search_runs(experiments)}


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _size(folder: Path) -> int:
    """Bytes of the weights and states in a folder."""
    try:
        return sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".safetensors", ".pt", ".bin"))
    except OSError:  # deleted meanwhile
        return 0


if __name__ == "__main__":
    main()
