"""The stopping criteria of a study: number of trials, budget, target, patience, failures in a row."""

from collections.abc import Sequence

from src.config.settings import EPOCHS_KEY, Recipe, StudySettings
from src.core.metric import gain
from src.core.records import State, TrialRecord


def rank_trials(trials: Sequence[TrialRecord], direction: str) -> list[TrialRecord]:
    """The COMPLETE trials within the constraints, best score first.

    Of equal scores, the better one in further objectives is first, or else the earlier trial.
    """
    return sorted(_complete_trials(trials), key=lambda t: _sort_key(t, direction))


def best_trial(trials: Sequence[TrialRecord], direction: str) -> TrialRecord | None:
    """The COMPLETE trial within the constraints with the best score, or None."""
    return min(_complete_trials(trials), key=lambda t: _sort_key(t, direction), default=None)


def _complete_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [t for t in trials if t.state == State.COMPLETE and t.score is not None and t.is_feasible]


def _sort_key(trial: TrialRecord, direction: str) -> tuple[float, ...]:
    return -gain(trial.score or 0.0, direction), *(-further for further in trial.further_gains), trial.number


def stop_reason(
    ended: Sequence[TrialRecord], study: StudySettings, direction: str, spent_seconds: float, spent_epochs: float = 0.0
) -> str | None:
    """The stopping criterion that is met, in words, or None.

    Inherited trials count as known results, and not as trials of the study.

    Args:
        ended: trials with a final state, in the order in which they ended.
        study: the criteria.
        direction: maximize or minimize.
        spent_seconds: of searching so far.
        spent_epochs: of all trials so far.
    """
    own = own_trials(ended)
    if len(own) >= study.n_trials:
        return f"all {study.n_trials} trials are done" if study.n_trials > 1 else "its only trial is done"
    if is_over_budget(study, spent_seconds):
        return f"the budget of {study.budget_minutes:g} minutes is spent"
    if study.budget_epochs is not None and spent_epochs >= study.budget_epochs:
        return f"the budget of {study.budget_epochs:g} epochs is spent"
    if reason := failure_streak(own, study):
        return reason
    if study.target is None and study.patience is None:
        return None
    best = best_trial(ended, direction)
    if best is None or best.score is None:
        return None
    if study.target is not None and _reaches(best.score, study.target, direction):
        inherited = f" ({best.note})" if best.is_inherited else ""
        return f"trial {best.number}{inherited} reached the target of {study.target:g} with {best.score:.4f}"
    numbers = [t.number for t in own]
    since = len(own) if best.is_inherited else len(own) - 1 - numbers.index(best.number)
    if study.patience is not None and since >= study.patience:
        return f"{since} trials in a row brought nothing better than trial {best.number} (study.patience)"
    return None


def own_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that the study has trained itself: without inherited ones."""
    return [t for t in trials if not t.is_inherited]


def epochs_spent(trials: Sequence[TrialRecord], recipe: Recipe) -> float:
    """Epochs that the study has trained, each trial as far as it got. `recipe`: has what is not searched."""
    return sum(float(t.params.get(EPOCHS_KEY, recipe.epochs)) * (t.result.share or 0.0) for t in own_trials(trials))


def is_over_budget(study: StudySettings, spent_seconds: float) -> bool:
    """Whether study.budget_minutes is spent."""
    return study.budget_minutes is not None and spent_seconds >= study.budget_minutes * 60


def failure_streak(ended: Sequence[TrialRecord], study: StudySettings) -> str | None:
    """In words, that the last study.max_failures trials all failed; None if they did not."""
    last = ended[-study.max_failures :]
    if len(last) < study.max_failures or any(t.state != State.FAIL for t in last):
        return None
    return (
        f"{len(last)} trials in a row failed (study.max_failures), the last, trial {last[-1].number}, because "
        f"{last[-1].result.reason}"
    )


def only_failures(ended: Sequence[TrialRecord]) -> str | None:
    """In words, that every trial failed, and why the first did; None if one did not, or if none has ended."""
    if not ended or any(t.state != State.FAIL for t in ended):
        return None
    first = min(ended, key=lambda t: t.number)
    if len(ended) == 1:
        return f"its only trial failed, because {first.result.reason}"
    return f"all {len(ended)} trials failed, the first, trial {first.number}, because {first.result.reason}"


def _reaches(score: float, target: float, direction: str) -> bool:
    return gain(score, direction) >= gain(target, direction)
