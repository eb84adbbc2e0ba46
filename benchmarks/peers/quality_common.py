"""What the quality scripts share; needs pandas, torch and transformers only, and knows nothing of Trialbook."""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd


def arguments() -> argparse.Namespace:
    """The command line that every script takes."""
    parser = argparse.ArgumentParser()
    for name in ("splits", "model", "place", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="that the tool has at least")
    parser.add_argument("--tokens", type=int, required=True)
    return parser.parse_args()


def splits(asked: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """train, validation and test: columns text, label (a number from 0)."""
    return {split: pd.read_parquet(asked.splits / f"{split}.parquet") for split in ("train", "validation", "test")}


def deliver(asked: argparse.Namespace, predict, weights: Path, seconds_before: float = 0.0) -> None:
    """Write what the delivered model predicts on test, its size, and its speed on one thread.

    `predict`: from texts to probabilities, [n_texts, n_labels]. `weights`: the model's file or folder.
    `seconds_before`: that an earlier run took, which this one goes on from.
    """
    import torch

    texts = splits(asked)["test"]["text"].tolist()
    torch.set_num_threads(1)
    began = time.time()
    probabilities = np.asarray(predict(texts), dtype=np.float32)
    milliseconds = (time.time() - began) / len(texts) * 1e6
    files = [weights] if weights.is_file() else [f for f in weights.rglob("*") if f.suffix in (".safetensors", ".ckpt")]
    megabytes = sum(f.stat().st_size for f in files) / 1e6
    np.savez(asked.out, probabilities=probabilities, megabytes=megabytes, ms_per_1000_texts=milliseconds,
             seconds_before=seconds_before)  # fmt: skip
