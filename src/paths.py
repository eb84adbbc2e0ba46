"""Where things lie, below the folder that a command was started in."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """`root` holds mlflow.db and mlruns/; everything generated is below mlruns/."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "mlruns" / "cache"

    def study(self, name: str) -> Path:
        return self.root / "mlruns" / "studies" / name

    def calibration(self, key: str) -> Path:
        return self.cache / "calibration" / key

    def training(self, name: str) -> Path:
        """A single training's scratch folder (python -m src.train)."""
        return self.root / "mlruns" / "trainings" / name
