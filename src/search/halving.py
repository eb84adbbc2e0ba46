"""Asynchronous successive halving whose trials pause at rungs and continue from their checkpoints.

The rule is ASHA's (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020): of all trials that
reached a rung, the best 1/reduction_factor go on. Rungs are shares of a trial's own schedule, in percent.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

PROMOTED = "promoted"  # user attribute: the rungs, in percent, that a trial was let past


class Asha(BasePruner):
    """Named by conf/pruner/asha.yaml. It never ends a trial: the study pauses and continues them (see Book)."""

    def __init__(self, reduction_factor: int = 3) -> None:
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor is {reduction_factor}; it is at least 2.")
        self.reduction_factor = reduction_factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:  # noqa: ARG002
        return False

    def promotable(
        self,
        trials: Sequence[FrozenTrial],
        rungs: Sequence[int],
        direction: str,
        waits: Callable[[FrozenTrial], bool],
        closing: bool,
    ) -> tuple[FrozenTrial, int] | None:
        """The trial to continue, and the rung it is let past; the furthest rung first, the best score first.

        `waits` says whether a trial stands at its last rung. `closing`: nothing else is to come, so the best trial of
        every rung goes on even where the third is less than one.
        """
        sign = -1.0 if direction == "maximize" else 1.0
        for rung in sorted((r for r in rungs if r < 100), reverse=True):
            reached = [t for t in trials if rung in t.intermediate_values and t.state != TrialState.FAIL]
            quota = len(reached) // self.reduction_factor
            if closing and not any(rung in promoted(t) for t in reached):
                quota = max(quota, 1)
            ranked = sorted(reached, key=lambda t: (sign * t.intermediate_values[rung], t.number))
            for trial in ranked[:quota]:
                if rung not in promoted(trial) and rung == last_rung(trial) and waits(trial):
                    return trial, rung
        return None

    def expected(self, rung: int, rungs: Sequence[int]) -> float:
        """How much of its schedule a trial at `rung` is trained in all, if one in reduction_factor passes each rung."""
        total, odds = float(rung), 1.0
        for here, there in pairwise(sorted({rung, *(r for r in (*rungs, 100) if r > rung)})):
            odds /= self.reduction_factor
            total += odds * (there - here)
        return total / 100


def promoted(trial: FrozenTrial) -> list[int]:
    return list(trial.user_attrs.get(PROMOTED, []))


def last_rung(trial: FrozenTrial) -> int | None:
    """The furthest rung at which the trial was judged."""
    return max(trial.intermediate_values, default=None)
