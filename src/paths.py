"""Where things lie, below the folder that a command was started in; and writing a file whole or not at all."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from src.errors import Refusal


@dataclass(frozen=True)
class Paths:
    """`root` holds mlflow.db and mlruns/; everything generated is below mlruns/."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "mlruns" / "cache"

    def study(self, name: str) -> Path:
        return self.root / "mlruns" / "studies" / name

    def comparison(self, study: str) -> Path:
        """What `compare` trains and finds out about a study."""
        return self.study(study) / "comparison"

    def openings(self, fingerprint: str) -> Path:
        """The ledger of every opening of one test split."""
        return self.root / "mlruns" / "openings" / f"{fingerprint}.jsonl"

    def calibration(self, key: str) -> Path:
        return self.cache / "calibration" / key

    def training(self, name: str) -> Path:
        """A single training's scratch folder (python -m src.train)."""
        return self.root / "mlruns" / "trainings" / name


def check_writable(root: Path) -> None:
    """Raises Refusal if nothing can be written below `root`/mlruns."""
    folder = root / "mlruns"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(
            f"Nothing can be written to {folder} ({error.strerror}), where studies, checkpoints and caches go. Start "
            "the command in a folder that is yours, with room on its disk."
        ) from error


def write_whole(file: Path, content: str) -> None:
    """Write `content` to `file` through a scratch file: a reader, or a kill, finds the old content or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(content)
    scratch.replace(file)
