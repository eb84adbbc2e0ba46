"""Checkpoints that a training continues from. One is complete once its progress file is there."""

import shutil
from pathlib import Path
from typing import Any

from src.core.record_files import read_json, write_json

PROGRESS_FILE = "progress.json"  # written last into a checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint in `folder`, or None."""
    complete = [f.parent for f in folder.glob(f"checkpoint-*/{PROGRESS_FILE}") if "rung" in read_json(f, {})]
    return max(complete, key=lambda f: int(f.name.rsplit("-", 1)[-1]), default=None)


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """What was saved with a checkpoint beside the Trainer's own files."""
    progress: dict[str, Any] = read_json(checkpoint / PROGRESS_FILE, {})
    return progress


def last_rung(folder: Path) -> int | None:
    """The rung (percent of the schedule) of the last checkpoint in `folder`; None if it was not written at a rung."""
    checkpoint = last_checkpoint(folder)
    rung = read_progress(checkpoint)["rung"] if checkpoint else None
    return None if rung is None else round(rung * 100)


def mark_complete(checkpoint: Path, values: dict[str, Any]) -> None:
    """Write the progress file of a checkpoint, which makes it complete, and delete older checkpoints."""
    write_json(checkpoint / PROGRESS_FILE, values)
    for old in checkpoint.parent.glob("checkpoint-*"):
        if old != checkpoint:
            shutil.rmtree(old, ignore_errors=True)


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints in `folder`; its best weights stay."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def disk_gigabytes(folder: Path) -> float:
    """Disk space of the checkpoints in `folder`, in GB (10**9 bytes)."""
    return sum(f.stat().st_size for f in folder.glob("checkpoint-*/**/*") if f.is_file()) / 1e9
