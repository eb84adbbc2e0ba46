"""When a study has had enough: the total, the budget, the target, patience, or failures in a row."""

from collections.abc import Sequence

from src.records import State, TrialRecord
from src.settings import StudySettings


def ranked(trials: Sequence[TrialRecord], direction: str) -> list[TrialRecord]:
    """The COMPLETE trials, the best score first; of equals the earlier one."""
    return sorted(_scored(trials), key=lambda t: _place(t, direction))


def best_of(trials: Sequence[TrialRecord], direction: str) -> TrialRecord | None:
    """The first of the ranking, if there is one."""
    return min(_scored(trials), key=lambda t: _place(t, direction), default=None)


def _scored(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [t for t in trials if t.state == State.COMPLETE and t.score is not None]


def _place(trial: TrialRecord, direction: str) -> tuple[float, int]:
    score = trial.score or 0.0
    return -score if direction == "maximize" else score, trial.number


def enough(ended: Sequence[TrialRecord], study: StudySettings, direction: str, spent_seconds: float) -> str | None:
    """Why no further trial is to start, or None. `ended`: the trials with a final state, in the order they ended."""
    if len(ended) >= study.n_trials:
        return f"all {study.n_trials} trials are done"
    if over_budget(study, spent_seconds):
        return f"the budget of {study.budget_minutes:g} minutes is spent"
    if reason := failing(ended, study):
        return reason
    if study.target is None and study.patience is None:
        return None
    best = best_of(ended, direction)
    if best is None or best.score is None:
        return None
    if study.target is not None and _reaches(best.score, study.target, direction):
        return f"trial {best.number} reached the target of {study.target:g} with {best.score:.4f}"
    since = next(passed for passed, t in enumerate(reversed(ended)) if t.number == best.number)
    if study.patience is not None and since >= study.patience:
        return f"{since} trials in a row brought nothing better than trial {best.number} (study.patience)"
    return None


def over_budget(study: StudySettings, spent_seconds: float) -> bool:
    return study.budget_minutes is not None and spent_seconds >= study.budget_minutes * 60


def failing(ended: Sequence[TrialRecord], study: StudySettings) -> str | None:
    """The last `max_failures` trials all failed: say so, with the last one's reason."""
    last = ended[-study.max_failures :]
    if len(last) < study.max_failures or any(t.state != State.FAIL for t in last):
        return None
    return (
        f"{len(last)} trials in a row failed (study.max_failures), the last, trial {last[-1].number}, because "
        f"{last[-1].reason}"
    )


def _reaches(score: float, target: float, direction: str) -> bool:
    return score >= target if direction == "maximize" else score <= target
