"""What trainings will cost, from the measured speed of the default recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from src.core.records import Calibration

CHECKPOINT = 3  # size of a checkpoint in sizes of the weights: the weights, and AdamW's two moments
TRAINING = 1 + 2 * CHECKPOINT  # a running training: its best weights, and an old and a new checkpoint
PAUSED = 1 + CHECKPOINT  # a paused trial: its best weights and its checkpoint


@dataclass(frozen=True)
class Speed:
    """Seconds per example on one worker, the mean over the workers that were measured."""

    training: float
    evaluation: float
    megabytes: float  # of the weights that a training saves
    whole_megabytes: float | None = None  # of a whole model, if that is more

    @classmethod
    def of(cls, measured: Sequence[Calibration]) -> "Speed":
        """The mean of at least one calibration."""
        return cls(
            fmean(c.seconds_per_example for c in measured),
            fmean(c.seconds_per_evaluated for c in measured),
            measured[0].megabytes,
            measured[0].whole_megabytes,
        )

    def training_seconds(self, sizes: Mapping[str, int], epochs: float, n_rungs: int) -> float:
        """Seconds of one training, with an evaluation of the whole validation split at every rung.

        Args:
            sizes: examples by split.
            epochs: of the training.
            n_rungs: evaluations.
        """
        return epochs * sizes["train"] * self.training + n_rungs * sizes["validation"] * self.evaluation

    def disk_gigabytes(self, weights: int, trainings: int, paused: int = 0, whole: int = 0) -> float:
        """Disk space in GB (10**9 bytes) of so many weights, running trainings, paused trials and whole models."""
        saved = (weights + TRAINING * trainings + PAUSED * paused) * self.megabytes
        return (saved + whole * (self.whole_megabytes or self.megabytes)) / 1e3
