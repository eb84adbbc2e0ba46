"""Asynchronous successive halving whose trials pause at rungs and continue from their checkpoints.

The rule is ASHA's (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020): of all trials that
reached a rung, the best 1/reduction_factor go on. Rungs are shares of a trial's own schedule, in percent.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from src.core.metric import gain

PROMOTED_ATTR = "promoted"  # user attribute: the rungs, in percent, that a trial was promoted past


class Asha(BasePruner):
    """The pruner of pruner=asha: it selects the paused trials that continue.

    It never prunes a trial: the study pauses and continues trials (trial_lifecycle).
    """

    def __init__(self, reduction_factor: int = 3) -> None:
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor is {reduction_factor}; it is at least 2.")
        self.reduction_factor = reduction_factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:  # noqa: ARG002
        """Never prunes; see next_promotion."""
        return False

    def next_promotion(
        self,
        trials: Sequence[FrozenTrial],
        rungs: Sequence[int],
        direction: str,
        waits: Callable[[FrozenTrial], bool],
        closing: bool,
    ) -> tuple[FrozenTrial, int] | None:
        """The paused trial to continue next, and the rung that it passes: the highest rung first, then the best score.

        Args:
            trials: all that have started.
            rungs: in percent of a trial's schedule.
            direction: maximize or minimize.
            waits: tells whether a trial is paused at its last rung.
            closing: True if no other trial will reach a rung any more. Then the best of each rung is promoted even
                if 1/reduction_factor of the trials is less than one.

        Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, algorithm 2.
        """
        for rung in sorted((r for r in rungs if r < 100), reverse=True):
            reached = [t for t in trials if rung in t.intermediate_values and t.state != TrialState.FAIL]
            quota = len(reached) // self.reduction_factor
            if closing and not any(rung in promoted_rungs(t) for t in reached):
                quota = max(quota, 1)
            ranked = sorted(reached, key=lambda t: (-gain(t.intermediate_values[rung], direction), t.number))
            for trial in ranked[:quota]:
                if rung not in promoted_rungs(trial) and rung == last_rung(trial) and waits(trial):
                    return trial, rung
        return None

    def expected_fraction(self, rung: int, rungs: Sequence[int]) -> float:
        """The fraction of its schedule that a trial at `rung` is expected to train.

        1/reduction_factor of the trials are assumed to pass each rung.
        """
        total, odds = float(rung), 1.0
        for here, there in pairwise(sorted({rung, *(r for r in (*rungs, 100) if r > rung)})):
            odds /= self.reduction_factor
            total += odds * (there - here)
        return total / 100


def promoted_rungs(trial: FrozenTrial) -> list[int]:
    """The rungs, in percent, that a trial was promoted past."""
    return list(trial.user_attrs.get(PROMOTED_ATTR, []))


def last_rung(trial: FrozenTrial) -> int | None:
    """The furthest rung at which the trial was judged."""
    return max(trial.intermediate_values, default=None)
