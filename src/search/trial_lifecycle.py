"""From a new trial to its end: claimed, judged at rungs, paused, continued, ended.

Every change of a trial's state happens here, with the study's lock held. So the number of trials is exact, no
parameters are handed out twice, and a process may be killed between any two lines:

- A claimed trial is RUNNING in the storage and has a lease. It is abandoned when the process that holds the lease dies.
- A trial is paused if it was judged at its last rung, was not promoted, and no process holds it. Either its pause was
  recorded, or its last checkpoint is of that rung.
- The result of a trial is stored before its state becomes final, so a process killed in between loses nothing.
"""

import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from src.core.errors import StorageUnavailable, first_line
from src.core.metric import gain
from src.core.records import DEFAULT_RECIPE, SAMPLER, Evaluation, Params, State, StopDecision, TrainingResult
from src.search import constraints, inheritance, stopping
from src.search.asha import PROMOTED_ATTR, Asha, last_rung, promoted_rungs
from src.search.sampler import FINAL_STATES, is_exhausted, pruners_view
from src.search.study import Study
from src.training import checkpoints

CLAIM_ATTR = "hold"  # attributes of a trial: when it started, how often it was claimed, how often without any progress
PAUSED_ATTR = "paused"  # attributes of a trial: the rung at which it was paused, and the size of its checkpoint


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this process works on."""

    number: int
    params: Params
    folder: Path
    trial: optuna.Trial
    origin: str
    starts: int  # how often a process began or continued it


def claim_trial(study: Study, default_alone: bool = False) -> ClaimedTrial | None:
    """Claim the next trial for this process.

    In this order: a trial whose process has died, a paused trial that is promoted, a new trial.

    Args:
        study: whose trials are claimed.
        default_alone: claim nothing while another process works on the default recipe.

    Returns:
        The trial, or None if there is nothing to do now.
    """
    _ = study.optuna_study  # finds the study and reads its trials before others have to wait for the lock
    with study.lock:
        if default_alone and default_in_progress(study):
            return None
        for frozen in _unclaimed_trials(study):
            # its process was killed after it stored the result and before it stored the final state
            if "outcome" in frozen.user_attrs:
                _store_final_state(study, frozen, TrainingResult(**frozen.user_attrs["outcome"]))
            elif not is_paused(study, frozen) and (claimed := _claim(study, frozen)):
                return claimed
        if study.stop_reason():
            _end_paused_trials(study, study.stop_reason() or "")
            return None
        if continued := _promote_next(study):
            return _claim(study, continued)
        if not _all_started(study):
            return _claim(study, _start_trial(study))
        if not others_are_working(study):
            _end_paused_trials(study, "not among the best of its rung")
        return None


def others_are_working(study: Study) -> bool:
    """Whether other processes work on trials: one of these may be promoted or abandoned later, so waiting can pay."""
    return bool(study.trials_in_progress())


def default_in_progress(study: Study) -> bool:
    """Whether a living process works on the default recipe."""
    running = study.trials_in_state(TrialState.RUNNING)
    return bool(study.leased([t.number for t in running if t.user_attrs.get("origin") == DEFAULT_RECIPE]))


def default_pending(study: Study) -> bool:
    """Whether the default recipe has a trial without an end: enqueued, running, or abandoned."""
    return any(
        t.user_attrs.get("origin") == DEFAULT_RECIPE
        for t in study.trials_in_state(TrialState.WAITING, TrialState.RUNNING)
    )


@contextmanager
def storage_errors(files_too: bool = True) -> Iterator[None]:
    """Raise StorageUnavailable for errors of the study's storage, whichever library raises them.

    Args:
        files_too: also for errors of the file system, such as a full disk.
    """
    try:
        yield
    except _storage_error_types(files_too) as error:
        # Optuna raises its own error from the database's
        cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        raise StorageUnavailable(f"{type(cause).__name__}: {first_line(cause)}") from error


def _storage_error_types(files_too: bool) -> tuple[type[Exception], ...]:
    proxy = sys.modules.get("grpc")  # imported where the storage is Optuna's proxy
    of_files = (OSError,) if files_too else ()
    return (SQLAlchemyError, StorageInternalError, *((proxy.RpcError,) if proxy else ()), *of_files)


def report_score(study: Study, claimed: ClaimedTrial, evaluation: Evaluation) -> StopDecision | None:
    """Store a trial's score at a rung.

    Returns:
        A decision to stop if the pruner prunes the trial, or if it has to wait at this rung; None if it goes on.

    Raises:
        StorageUnavailable: if the score cannot be stored.
    """
    with storage_errors():
        return _report_score(study, claimed, evaluation)


def _report_score(study: Study, claimed: ClaimedTrial, evaluation: Evaluation) -> StopDecision | None:
    score, percent = evaluation.metrics[study.study_settings.metric], round(evaluation.share * 100)
    with study.lock:
        frozen = _own_trial(study, claimed)
        if percent not in frozen.intermediate_values:  # Trial.report is for one objective only
            study.storage.set_trial_intermediate_value(study.trial_id(claimed.number), percent, score)
        if evaluation.share >= 1:
            return None
        if study.pauses_trials:
            if (
                percent in promoted_rungs(frozen)
                or _promote_default(study, claimed, percent)
                or _promote_next(study, claimed.number)
            ):
                return None
            return StopDecision(
                State.PAUSED, f"paused at {percent} % of its schedule with {study.study_settings.metric} {score:.4f}"
            )
        judged = study.frozen_trial(claimed.number)
        if not study.optuna_study.pruner.prune(pruners_view(study.optuna_study), judged):
            return None
        pruner = type(study.optuna_study.pruner).__name__
        return StopDecision(
            State.PRUNED, f"{pruner}: {study.study_settings.metric} {score:.4f} after {percent} % of its schedule"
        )


def pause_trial(study: Study, claimed: ClaimedTrial, result: TrainingResult) -> None:
    """Pause a trial that has a checkpoint. Beyond study.disk_budget_gb, the worst paused trials are pruned."""
    with study.lock:
        frozen = _own_trial(study, claimed)
        rung = last_rung(frozen)
        claimed.trial.set_user_attr("so_far", dataclasses.asdict(result))
        size = checkpoints.disk_gigabytes(study.training_folder(claimed.number))
        claimed.trial.set_user_attr(PAUSED_ATTR, {"rung": rung, "gigabytes": size})
        study.release(frozen)
        budget = study.limits().disk_budget_gb
        paused = [t for t in _unclaimed_trials(study) if is_paused(study, t)]
        rungs = {t.number: last_rung(t) or 0 for t in paused}
        gains = {t.number: gain(t.intermediate_values[rungs[t.number]], study.direction) for t in paused}
        worst_first = sorted(paused, key=lambda t: (rungs[t.number], gains[t.number]))
        sizes = {t.number: t.user_attrs.get(PAUSED_ATTR, {}).get("gigabytes", 0.0) for t in paused}
        while budget is not None and worst_first and sum(sizes[t.number] for t in worst_first) > budget:
            _end_as_pruned(study, worst_first.pop(0), f"its checkpoint was deleted for study.disk_budget_gb={budget:g}")


def release_trial(study: Study, claimed: ClaimedTrial) -> None:
    """Release a trial that was stopped by a signal: the next process continues it from its checkpoint."""
    with study.lock:
        frozen = _own_trial(study, claimed)
        claimed.trial.set_user_attr(CLAIM_ATTR, {**_claim_record(frozen), "at": None})
        study.release(frozen)


def finish_trial(study: Study, claimed: ClaimedTrial, result: TrainingResult) -> None:
    """End the trial that this process works on. Raises StorageUnavailable if another process has taken it over."""
    with study.lock:
        frozen = _own_trial(study, claimed)
        if result.state == State.COMPLETE:
            values = {name: result.value_of(name) for name in study.study_settings.measured[1:]}
            if missing := [name for name, value in values.items() if value is None or math.isnan(value)]:
                result = dataclasses.replace(result, state=State.FAIL, reason=f"it has no {' and no '.join(missing)}")
            for name, excess in constraints.excesses_of(result, study.study_settings.constraints).items():
                claimed.trial.set_constraint(name, excess)
        _end(study, frozen, result)


def end_trial(study: Study, number: int, result: TrainingResult) -> None:
    """End a trial; nothing happens if it has ended."""
    with study.lock:
        _end(study, study.frozen_trial(number), result)


def save_run_id(claimed: ClaimedTrial, run_id: str) -> None:
    """Store the id of the trial's MLflow run with it."""
    if claimed.trial.user_attrs.get("run_id") != run_id:
        claimed.trial.set_user_attr("run_id", run_id)


def delete_old_weights(study: Study, most: int | None = None) -> None:
    """Delete the weights of all ended trials except the best `most`; None: those to keep until the study ends."""
    most = study.study_settings.keep_until_end if most is None else most
    with study.lock:
        ended = study.own_ended_trials()  # those of inherited ones belong to their own studies
        kept = {t.number for t in stopping.rank_trials(ended, study.direction)[:most]}
        for number in {t.number for t in ended} - kept - study.weights_deleted:
            shutil.rmtree(study.training_folder(number), ignore_errors=True)
            study.weights_deleted.add(number)


def is_paused(study: Study, frozen: FrozenTrial) -> bool:
    """Whether a trial is paused at its last rung: it has a checkpoint there and was not promoted."""
    rung = last_rung(frozen)
    if not study.pauses_trials or rung is None or rung >= 100 or rung in promoted_rungs(frozen):
        return False
    noted_rung = frozen.user_attrs.get(PAUSED_ATTR, {}).get("rung")
    return noted_rung == rung or checkpoints.last_rung(study.training_folder(frozen.number)) == rung


def _claim_record(frozen: FrozenTrial) -> dict[str, Any]:
    return dict(frozen.user_attrs.get(CLAIM_ATTR, {}))


def _own_trial(study: Study, claimed: ClaimedTrial) -> FrozenTrial:
    """The trial as it is stored. Raises StorageUnavailable if another process has taken it over."""
    frozen = study.frozen_trial(claimed.number)
    if _claim_record(frozen).get("starts") != claimed.starts:
        raise StorageUnavailable(f"trial {claimed.number} has been taken over by another process")
    return frozen


def _start_trial(study: Study) -> FrozenTrial:
    """Start an enqueued trial, or else a new one."""
    for frozen in study.trials_in_state(TrialState.WAITING):
        study.acquire(frozen)
        study.storage.set_trial_state_values(study.trial_id(frozen.number), TrialState.RUNNING)
        return study.frozen_trial(frozen.number)
    trial_id = study.storage.create_new_trial(study.storage.get_study_id_from_name(study.name))
    return study.frozen_trial(study.storage.get_trial_number_from_id(trial_id))


def _claim(study: Study, frozen: FrozenTrial) -> ClaimedTrial | None:
    """Take the trial's lease. A trial whose processes died too often fails instead, and None is returned."""
    study.acquire(frozen)
    trial = optuna.Trial(study.optuna_study, study.trial_id(frozen.number))
    attributes = frozen.user_attrs
    reached = [attributes.get("so_far", {}).get("steps"), len(frozen.intermediate_values)]
    before = attributes.get(CLAIM_ATTR, {})
    deaths = before["deaths"] + 1 if before and before["at"] == reached else 0
    if deaths > study.study_settings.max_restarts:
        end_trial(
            study, frozen.number, TrainingResult(State.FAIL, reason=f"its worker died {deaths} times at the same place")
        )
        return None
    starts = before.get("starts", 0) + 1
    began = before.get("began", time.time())
    trial.set_user_attr(CLAIM_ATTR, {"at": reached, "deaths": deaths, "starts": starts, "began": began})
    params: Params = {}
    for parameter in study.space.parameters:
        if parameter in study.space.active_parameters(params):
            params[parameter.key] = parameter.suggest(trial)
    origin = str(attributes.get("origin", SAMPLER))
    return ClaimedTrial(frozen.number, params, study.trial_folder(frozen.number), trial, origin, starts)


def _promote_default(study: Study, claimed: ClaimedTrial, rung: int) -> bool:
    """Promote the default recipe past its rung whatever its score, so that a study has one complete result early."""
    if claimed.origin == DEFAULT_RECIPE:
        _mark_promoted(study, study.frozen_trial(claimed.number), rung)
        return True
    return False


def _mark_promoted(study: Study, frozen: FrozenTrial, rung: int) -> None:
    study.storage.set_trial_user_attr(study.trial_id(frozen.number), PROMOTED_ATTR, [*promoted_rungs(frozen), rung])


def _promote_next(study: Study, claimed: int | None = None) -> FrozenTrial | None:
    """Promote the next trial past its rung. With `claimed`, only that one, which then continues in this process."""
    pruner = study.optuna_study.pruner
    if not isinstance(pruner, Asha):
        return None
    begun = study.trials_in_state(TrialState.RUNNING, *FINAL_STATES)
    held = study.leased([t.number for t in begun if t.state == TrialState.RUNNING])
    promotion = pruner.next_promotion(
        begun,
        study.rungs,
        study.direction,
        waits=lambda t: (
            t.number == claimed or (t.number not in held and t.state == TrialState.RUNNING and is_paused(study, t))
        ),
        closing=_all_started(study) and not [n for n in held if n != claimed],
    )
    if promotion is None or (claimed is not None and promotion[0].number != claimed):
        return None
    frozen, rung = promotion
    _mark_promoted(study, frozen, rung)
    return study.frozen_trial(frozen.number)


def _all_started(study: Study) -> bool:
    """Whether no new trial is to start: n_trials is reached, or all points of the space have been tried."""
    begun = inheritance.own_trials(study.trials_in_state(TrialState.RUNNING, *FINAL_STATES))
    return len(begun) >= study.limits().n_trials or is_exhausted(study.space, study.optuna_study)


def _unclaimed_trials(study: Study) -> list[FrozenTrial]:
    running = study.trials_in_state(TrialState.RUNNING)
    held = study.leased([t.number for t in running])
    return [t for t in running if t.number not in held]


def _end_paused_trials(study: Study, reason: str) -> None:
    for frozen in _unclaimed_trials(study):
        if is_paused(study, frozen):
            rung = last_rung(frozen)
            _end_as_pruned(study, frozen, f"paused at {rung} % of its schedule, and {reason}")


def _end_as_pruned(study: Study, frozen: FrozenTrial, reason: str) -> None:
    so_far = (
        TrainingResult(**frozen.user_attrs["so_far"]) if "so_far" in frozen.user_attrs else TrainingResult(State.PAUSED)
    )
    end_trial(study, frozen.number, dataclasses.replace(so_far, state=State.PRUNED, reason=reason))


def _end(study: Study, frozen: FrozenTrial, result: TrainingResult) -> None:
    """Store the result of a trial, then its final state."""
    if frozen.state in FINAL_STATES:
        return
    elapsed = time.time() - _claim_record(frozen).get("began", time.time())
    final = dataclasses.replace(result, seconds=elapsed)
    study.storage.set_trial_user_attr(study.trial_id(frozen.number), "outcome", dataclasses.asdict(final))
    _store_final_state(study, frozen, final)


def _store_final_state(study: Study, frozen: FrozenTrial, result: TrainingResult) -> None:
    """Make the stored result final, and delete the checkpoints that the trial could have continued from."""
    state = TrialState[result.state]
    values: list[float | None] = []
    if state == TrialState.COMPLETE:
        further = study.study_settings.further_metrics
        values = [result.score, *(result.value_of(name) for name in further)]
    elif state == TrialState.PRUNED and not study.study_settings.has_several_objectives:
        # the last one, as by Optuna's tell, which reads the trial before and after
        values = [frozen.intermediate_values.get(last_rung(frozen) or 0)]
    known = [value for value in values if value is not None and not math.isnan(value)]
    complete = known if known and len(known) == len(values) else None
    study.storage.set_trial_state_values(study.trial_id(frozen.number), state, complete)
    checkpoints.delete_checkpoints(study.training_folder(frozen.number))
    study.release(frozen)
