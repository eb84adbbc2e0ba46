"""How many trainings a card holds at once: trials per hour with 1, 2, 4 ... processes on it.

    python -m benchmarks.packing --data <folder of SST-2's parquet files>

Needs torch, transformers and pandas only, so that it runs where Trialbook is not installed: `--weights` names a folder
with a model and its tokenizer (default: MiniLM's package). Every process trains the same recipe, all start together
once their models and batches are on the device, and each loads its model anew for each training. bf16 where the
device has it. Doubling ends when more processes get through less, or when their memory would not fit.
"""

import argparse
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.bare import Setting, load, train

EPOCHS, BATCH, EVAL_BATCH = 2, 32, 256
SAFE_SHARE = 0.85


def worker(index: int, asked: argparse.Namespace, ready: Any, answers: Any) -> None:
    """Train until the round's trainings are done; the first one, before the start, warms up."""
    import torch

    if asked.device == "cpu":
        torch.set_num_threads(1)
    splits = {name: frame[: asked.texts] for name, frame in common.sentences(asked.data).items()}
    rows = common.tokenised(splits, asked.weights)

    def once(number: int) -> None:
        setting = Setting(1e-4, EPOCHS, 0.01, 0.1, BATCH, EVAL_BATCH, seed=1000 * index + number)
        model = load(asked.weights, setting.dropout, setting.seed)
        train(model, setting, *rows["train"], [rows["validation"]] * 2, device=asked.device, bf16=asked.bf16)
        if asked.device != "cpu":
            torch.cuda.synchronize()

    once(0)
    ready.wait()
    began = time.time()
    for number in range(1, asked.trainings + 1):
        once(number)
    peak = torch.cuda.max_memory_reserved() / 1e6 if asked.device != "cpu" else 0.0
    answers.put((began, time.time(), peak))


def packed(count: int, asked: argparse.Namespace) -> dict[str, float]:
    """Trials per hour of `count` processes at once, and the most MB of the device's memory that one of them took."""
    context = get_context("spawn")
    ready, answers = context.Barrier(count), context.Queue()
    each = [context.Process(target=worker, args=(i, asked, ready, answers)) for i in range(count)]
    for process in each:
        process.start()
    result = [answers.get() for _ in each]
    for process in each:
        process.join()
    seconds = max(ended for _, ended, _ in result) - min(began for began, _, _ in result)
    return {"trials_per_hour": count * asked.trainings / seconds * 3600, "megabytes": max(m for _, _, m in result)}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.parquet and validation.parquet; default: the Hub")
    parser.add_argument("--weights", type=Path, help="folder of a model and its tokenizer")
    parser.add_argument("--trainings", type=int, default=4, help="of each process")
    parser.add_argument("--texts", type=int, default=common.TRAIN, help="most texts of each split")
    parser.add_argument("--most", type=int, default=64, help="processes at once")
    parser.add_argument("--name", default="packing", help="of the record")
    overrides = parser.parse_args(arguments)
    overrides.device = "cuda" if torch.cuda.is_available() else "cpu"
    overrides.bf16 = overrides.device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    overrides.weights = overrides.weights or common.minilm()
    memory = torch.cuda.get_device_properties(0).total_memory / 1e6 if overrides.device == "cuda" else float("inf")
    result: dict[str, dict[str, float]] = {}
    count = 1
    while count <= overrides.most:
        result[str(count)] = packed(count, overrides)
        print(count, result[str(count)], flush=True)
        best = max(f["trials_per_hour"] for f in result.values())
        if result[str(count)]["trials_per_hour"] < best:
            break
        if 2 * count * max(f["megabytes"] for f in result.values()) > SAFE_SHARE * memory:
            break
        count *= 2
    over_one = {n: f["trials_per_hour"] / result["1"]["trials_per_hour"] for n, f in result.items()}
    values = {"device": overrides.device, "bf16": overrides.bf16, "packed": result, "over_one": over_one}
    common.write(overrides.name, values)
    return values


if __name__ == "__main__":
    main()
