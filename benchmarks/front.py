"""A front of accuracy and speed: MiniLM against all-mpnet-base-v2, and how many tokens of a text are read.

    python -m benchmarks.front --data <folder> --mpnet <folder>

One study on SST-2, 1,000 training and 872 validation sentences: `study.metric=[accuracy,ms_per_1000_texts]`. `--data`
holds SST-2's parquet files; `--mpnet` the packages of all-mpnet-base-v2 (see benchmarks/quality.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import common
from benchmarks.quality import unpack_mpnet

STUDY = "front"
METRICS = ("accuracy", "ms_per_1000_texts")
WORDS = [
    *("data=files", "data.path=data", "data.text_column=sentence", "data.label_column=label"),
    *("space=empty", "+space.model.choices=[minilm,mpnet_local]", "+space.model.max_tokens.choices=[8,16,32,64]"),
    "+space.optimizer.learning_rate={low:2e-5,high:3e-4,log:true}",
    "+space.trainer.num_train_epochs={low:1,high:3}",
    *("study.n_trials=20", "sampler=tpe", "pruner=none", "study.rungs=[1.0]", "study.rung_examples=null"),
    *("study.baselines=[]", "study.report=false", f"study.name={STUDY}", "model.max_tokens=64"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's parquet files")
    parser.add_argument("--mpnet", type=Path, required=True, help="folder with the packages of all-mpnet-base-v2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments, Path(scratch))


def measure(arguments: argparse.Namespace, place: Path) -> None:
    """Search, and write the record."""
    splits = common.sentences(str(arguments.data))
    (place / "data").mkdir()
    for split, rows in {**splits, "test": splits.pop("held_out")[:200]}.items():
        rows.to_parquet(place / "data" / f"{split}.parquet", index=False)
    conf = unpack_mpnet(place, arguments.mpnet)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(common.HERE.parent)}
    words = ["--config-dir", str(conf), *WORDS, f"study.metric=[{','.join(METRICS)}]"]
    subprocess.run([sys.executable, "-m", "src.sweep", "-m", *words], check=True, env=environment, cwd=place)
    exported = [sys.executable, "-m", "src.status", STUDY, "--export", "trials.json"]
    subprocess.run(exported, check=True, env=environment, cwd=place)
    rows = json.loads((place / "trials.json").read_text())
    trials = [
        {
            "number": row["number"],
            "params": {key.removeprefix("params."): v for key, v in row.items() if key.startswith("params.")},
            "accuracy": row["score"],
            "ms_per_1000_texts": row["ms_per_1000_texts"],
            "on_front": row["on_front"],
        }
        for row in rows
        if row["state"] == "COMPLETE"
    ]
    common.write("front", {"metrics": METRICS, "words": WORDS[4:], "trials": trials})


if __name__ == "__main__":
    main()
