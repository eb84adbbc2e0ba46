"""Whether a fixed list of settings is a better start of a search than random ones.

    python -m benchmarks.portfolio --data <folder>     # train the same settings on every set, what is not on record
    python -m benchmarks.portfolio                     # what is on record

The settings are the default recipe and the first Sobol points of `space=default`, the same on every set: 600 training
texts, 1,000 validation texts, MiniLM. For each set, a portfolio is chosen from the results on the other sets: greedily,
each time the settings that lower the mean regret most. The regret is the difference between the best of all settings
and the best of those tried. The other arm tries the default recipe and settings drawn at random, as the sampler's first
ones are; its regret is the exact mean over all draws.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import common
from src.search.portfolio import choose_portfolio

SETS = ("sst2", "trec", "tweet_emotion", "sms_spam", "imdb")
FOLDER = common.RECORDS / "portfolio"
TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 600, 1_000, 200
POINTS = 21  # the default recipe and 20 others
MAX_TOKENS = 64
TRIED = (4, 8)  # settings, the default recipe included


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with a folder of parquet files per set")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets if arguments.data else ():
        if not (FOLDER / f"{name}.json").exists():
            with tempfile.TemporaryDirectory() as scratch:
                measure(name, arguments.data / name, Path(scratch))
    print("\n".join(summary()))


def measure(name: str, source: Path, place: Path) -> None:
    """Train all settings on one set, and write the record."""
    draw(name, source, place / "data")
    words = [
        *("data=files", "data.path=data", "data.text_column=text", f"model.max_tokens={MAX_TOKENS}"),
        *("sampler=qmc", "pruner=none", f"study.n_trials={POINTS}", "study.rungs=[1.0]", "study.rung_examples=null"),
        *("study.average=0", "study.report=false", "study.baselines=[]", "study.name=portfolio", "workers=1"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(common.HERE.parent)}
    subprocess.run([sys.executable, "-m", "src.sweep", "-m", *words], check=True, env=environment, cwd=place)
    shown = [sys.executable, "-m", "src.status", "portfolio", "--export", "trials.json"]
    subprocess.run(shown, check=True, env=environment, cwd=place)
    rows = json.loads((place / "trials.json").read_text())
    trials = [
        {
            "params": {k.removeprefix("params."): v for k, v in row.items() if k.startswith("params.")},
            "score": row["score"],
        }
        for row in rows
    ]
    common.write(f"portfolio/{name}", {"set": name, "metric": "accuracy", "trials": trials})


def draw(name: str, source: Path, folder: Path) -> None:
    """Write random parts of a set's labelled texts as train, validation and test."""
    labelled = ("train", "validation") if name == "sst2" else ("train", "test")  # sst2's test has no labels
    frames = [
        pd.read_parquet(source / f"{split}.parquet") for split in labelled if (source / f"{split}.parquet").exists()
    ]
    rows = pd.concat(frames).rename(columns={"sentence": "text"})[["text", "label"]]
    rows = rows.drop_duplicates("text").sample(frac=1.0, random_state=0).assign(label=lambda r: r["label"].astype(str))
    folder.mkdir(parents=True)
    begin = 0
    for split, size in (("train", TRAIN_ROWS), ("validation", VALIDATION_ROWS), ("test", TEST_ROWS)):
        rows[begin : begin + size].to_parquet(folder / f"{split}.parquet", index=False)
        begin += size


def records() -> dict[str, dict[str, Any]]:
    """The records by set."""
    names = [name for name in SETS if (FOLDER / f"{name}.json").exists()]
    return {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in names}


def summary() -> list[str]:
    """Regret of both arms on each set on record, and the mean difference with its standard error."""
    known = records()
    names = list(known)
    points = {json.dumps([t["params"] for t in record["trials"]]) for record in known.values()}
    if len(names) < 3 or len(points) > 1:
        return [f"{len(names)} sets are on record, with {len(points)} lists of settings: too few, or not comparable."]
    scores = np.array([[t["score"] for t in record["trials"]] for record in known.values()])  # [n_sets, n_points]
    lines = [f"| regret of accuracy | {' | '.join(f'{n} random | {n} portfolio' for n in TRIED)} |"]
    lines.append("|---|" + "---|" * (2 * len(TRIED)))
    lowered: dict[int, list[float]] = {n: [] for n in TRIED}
    for index, name in enumerate(names):
        cells = []
        for n in TRIED:
            others = np.delete(scores, index, axis=0)
            chosen = choose_portfolio(-others.T, n, first=(0,))
            by_chance = scores[index].max() - mean_best(scores[index], n)
            by_portfolio = scores[index].max() - scores[index][chosen].max()
            lowered[n].append(by_chance - by_portfolio)
            cells += [f"{by_chance:.4f}", f"{by_portfolio:.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    is_shown = True
    for n, values in lowered.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        is_shown = is_shown and np.mean(values) > 2 * error
        lines.append(
            f"\n{n} settings: the portfolio lowers the regret by {np.mean(values):.4f}, standard error {error:.4f}."
        )
    wanted = "A portfolio would be shipped if it lowered both by more than two standard errors"
    lines.append(f"\n{wanted}: {'it does' if is_shown else 'it does not, so there is none'}.")
    return lines


def mean_best(scores: Sequence[float], n: int) -> float:
    """The mean, over all draws, of the best score of the default recipe (the first) and n - 1 random others."""
    rest = sorted(scores[1:])
    draws = comb(len(rest), n - 1)
    # the best of a draw is the value at `rank` in as many draws as choose the others below it
    return sum(max(value, scores[0]) * comb(rank, n - 2) for rank, value in enumerate(rest)) / draws


if __name__ == "__main__":
    main()
