"""Record learning curves once: two hundred configurations, each trained to its end and judged along its way.

    python -m benchmarks.curves

MiniLM on the shipped starter reviews (500 to learn from, 350 to be judged on): not the data of `benchmarks.search`,
whose figures must not profit from what is chosen here. The table feeds `benchmarks.schedulers`. Two cores make it in
about an hour; it goes on where it was stopped.
"""

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import qmc

import src
from benchmarks import common
from benchmarks.bare import Setting, load, train

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
TRAIN = 500
STARTER = Path(src.__file__).parent / "data" / "starter"
FILE = common.RECORDS / "curves.jsonl"


def settings(count: int) -> list[Setting]:
    """A Sobol sequence over the space of the search benchmark: the first n are the same for every `count`."""
    all_params = qmc.Sobol(4, seed=0).random(512)[:count]
    return [
        Setting(
            learning_rate=float(10 ** (-5 + 2 * a)),
            num_train_epochs=1 + min(3, int(4 * b)),
            weight_decay=float(0.1 * c),
            dropout=float(0.3 * d),
            seed=index,
            shares=SHARES,
        )
        for index, (a, b, c, d) in enumerate(all_params)
    ]


def record(index: int, of: int, count: int) -> None:
    """Train every `of`-th configuration that is not in the table yet."""
    torch.set_num_threads(1)
    splits = {name: pd.read_csv(STARTER / f"{name}.csv") for name in ("train", "validation")}
    splits["train"] = splits["train"].sample(TRAIN, random_state=0)
    rows = common.tokenised(splits, common.minilm(), "text")
    done = {line["index"] for line in common.lines(FILE)}
    for number, setting in enumerate(settings(count)):
        if number % of != index or number in done:
            continue
        began = time.perf_counter()
        model = load(common.minilm(), setting.dropout, setting.seed)
        result = train(model, setting, *rows["train"], [rows["validation"]] * 2)
        line = {
            "index": number,
            "learning_rate": setting.learning_rate,
            "num_train_epochs": setting.num_train_epochs,
            "weight_decay": setting.weight_decay,
            "dropout": setting.dropout,
            "correct": {str(s): np.packbits(c).tobytes().hex() for s, c in result.correct.items()},
            "loss": {str(s): round(v, 4) for s, v in result.loss.items()},
            "seconds": round(time.perf_counter() - began, 2),
        }
        with FILE.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    common.RECORDS.mkdir(exist_ok=True)
    common.write("curves", {"train": TRAIN, "shares": SHARES, "file": FILE.name})
    context = get_context("spawn")
    each = [
        context.Process(target=record, args=(i, arguments.processes, arguments.count))
        for i in range(arguments.processes)
    ]
    for process in each:
        process.start()
    for process in each:
        process.join()


if __name__ == "__main__":
    main()
