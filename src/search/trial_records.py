"""Makes records of the trials in Optuna's storage."""

from bisect import insort
from dataclasses import replace
from datetime import datetime

from optuna.trial import FrozenTrial

from src.config.settings import StudySettings
from src.core.metric import direction_of, gain
from src.core.records import SAMPLER, State, TrainingResult, TrialRecord
from src.search import inheritance
from src.search.asha import last_rung
from src.search.constraints import violations


class EndedTrials:
    """Caches the records of ended trials, which do not change. Threads may share it."""

    def __init__(self, study: StudySettings) -> None:
        self._study = study
        self.records = dict[int, TrialRecord]()
        self.order = list[tuple[datetime, int]]()  # when they ended, and their numbers

    def record_of(self, trial: FrozenTrial) -> TrialRecord:
        """The record of an ended trial; made once."""
        if (known := self.records.get(trial.number)) is not None:
            return known
        assert trial.datetime_complete is not None
        record = to_record(trial, self._study)
        if (first := self.records.setdefault(trial.number, record)) is record:
            insort(self.order, (trial.datetime_complete, trial.number))
        return first


def to_record(trial: FrozenTrial, study: StudySettings) -> TrialRecord:
    """The record of a trial in Optuna's storage. `study`: has the objectives and constraints."""
    state = State[trial.state.name]
    result = replace(TrainingResult(**{"state": state, **trial.user_attrs.get("outcome", {})}), state=state)
    violates: tuple[str, ...] = ()
    further: list[float] = []
    if state == State.COMPLETE:
        objectives = trial.values or []  # none, if one of them was no number
        result = replace(result, score=next(iter(objectives), None))
        violates = violations({name: result.value_of(name) for name in study.constraints}, study.constraints)
        further = [gain(v, direction_of(m)) for m, v in zip(study.further_metrics, objectives[1:], strict=False)]
    rung, source = last_rung(trial), inheritance.source_of(trial) or inheritance.learned_from(trial)
    return TrialRecord(
        number=trial.number,
        params=dict(trial.params),
        result=result,
        rung=rung,
        rung_score=None if rung is None else trial.intermediate_values[rung],
        run_id=trial.user_attrs.get("run_id"),
        origin=str(trial.user_attrs.get("origin", SAMPLER)),
        source_study=source.study if source else None,
        source_trial=source.trial if source else None,
        violates=violates,
        further_gains=tuple(further),
    )
