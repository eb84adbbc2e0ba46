"""What a training can be continued from: checkpoint folders, each whole once its progress file is there."""

import json
import shutil
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"  # written last into a checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of the training in `folder`."""
    whole = [f.parent for f in folder.glob(f"checkpoint-*/{PROGRESS}")]
    return max(whole, key=lambda f: int(f.name.rsplit("-", 1)[-1]), default=None)


def progress(checkpoint: Path) -> dict[str, Any]:
    """What was written with the checkpoint beside the Trainer's own files."""
    found: dict[str, Any] = json.loads((checkpoint / PROGRESS).read_text())
    return found


def rung_of(folder: Path) -> int | None:
    """The rung, in percent of the schedule, at which the last checkpoint in `folder` was written; None elsewhere."""
    checkpoint = last_checkpoint(folder)
    rung = progress(checkpoint)["rung"] if checkpoint else None
    return None if rung is None else round(rung * 100)


def complete(checkpoint: Path, values: dict[str, Any]) -> None:
    """Make a checkpoint that the Trainer has written a whole one; the older ones beside it go."""
    scratch = checkpoint / f"{PROGRESS}.part"
    scratch.write_text(json.dumps(values))
    scratch.rename(checkpoint / PROGRESS)
    for old in checkpoint.parent.glob("checkpoint-*"):
        if old != checkpoint:
            shutil.rmtree(old, ignore_errors=True)


def drop(folder: Path) -> None:
    """Delete what the training in `folder` could be continued from; its best weights stay."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def gigabytes(folder: Path) -> float:
    """Disk taken by the checkpoints in `folder` (10**9 bytes)."""
    return sum(f.stat().st_size for f in folder.glob("checkpoint-*/**/*") if f.is_file()) / 1e9
