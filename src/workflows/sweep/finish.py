"""Finishes a study after its workers have ended: delivers records and the best model, and prints the result."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from src.comparison.saved_study import SavedStudy
from src.config import compose
from src.console.output import StudyConsole
from src.core.errors import CommandFailed, first_line, mask_secrets, with_full_stop
from src.core.paths import atomic_write
from src.core.record_files import read_record
from src.core.records import AverageRecord, State, TrialRecord
from src.search import constraints, stopping, trial_lifecycle
from src.search.study import Study
from src.tracking import logged_model, recorders, run_tree, ui_views
from src.tracking.run_log import RunLog, RunTail
from src.tracking.store import TrackingStore
from src.training.pretrained import BEST_DIR
from src.workers import remote
from src.workflows.sweep import average, report
from src.workflows.sweep.plan import SweepPlan


def finish_study(plan: SweepPlan, study: Study, run: RunLog, store: TrackingStore, console: StudyConsole) -> None:
    """Complete the records, log the best model and print the result.

    If workers of another command still run trials, that command finishes the study.

    Raises:
        CommandFailed: the study has failed, or its trials are not done.
    """
    trials = study.trials()
    if elsewhere := study.trials_in_progress():
        console.print(
            f"\nTrials {', '.join(map(str, elsewhere))} are run by another command, which will finish the study."
        )
        return
    if plan.settings.worker.home is not None:
        try:
            remote.collect_results(study, store)
        except OSError as error:
            raise CommandFailed(
                f"What the workers of {study.name} have stored cannot be read from {store.address}: "
                f"{first_line(error)}. The same command continues once it can."
            ) from error
    waiting = _end_runs(study, store, trials)
    trial_lifecycle.delete_old_weights(study)
    reason = study.end_reason()
    _print_result(study, store, console, trials, reason)
    best = study.best_trial()
    if best is not None and not _deliver_model(plan, study, run, store, console, best):
        waiting = "its model could not be logged"
    run.set_tags({"study.state": "ENDED" if reason else "INTERRUPTED", "study.ending": reason or ""})
    run.set_status(State.COMPLETE if reason else State.PAUSED)
    if not run.send_to(store, retry_now=True) or waiting:
        console.print(
            f"  note: records wait in {study.folder} ({run.problem or waiting}); the same command delivers them."
        )
    if problem := report.try_write_report(SavedStudy(plan.settings, study, plan.paths), store):
        console.print(f"  note: {problem}")
    _raise_if_failed(study, reason)
    if not reason:
        console.print(
            f"\nAnother command has changed the limits of {study.name}, and it is not over with the new ones. The same "
            "command continues it."
        )
    elif best is not None:
        console.print(f"\nNext: {plan.settings.compare_command}")


def _print_result(
    study: Study, store: TrackingStore, console: StudyConsole, trials: list[TrialRecord], reason: str | None
) -> None:
    """Print the best trials, the front of several objectives, and why the study is over."""
    console.result(trials, study.baseline_results(), study.direction)
    if study.study_settings.has_several_objectives and (front := study.front()):
        console.front(front)
        _tag_front(study, store, front)
    own = stopping.own_trials(trials)
    counts = Counter(str(t.state) for t in own) | Counter({"inherited": len(trials) - len(own)})
    console.ending(reason, counts, study.seconds_spent())


def _raise_if_failed(study: Study, reason: str | None) -> None:
    """Raise CommandFailed if trials failed, if none is within the constraints, or if the study is not over.

    It may be not over because another command has raised its limits meanwhile.

    `reason`: why the study is over; None if it is not.
    """
    ended = study.own_ended_trials()
    if failing := stopping.failure_streak(ended, study.limits()) or stopping.only_failures(ended):
        why = with_full_stop(f"The study {study.name} ended: {failing}")
        raise CommandFailed(f"{why} Tracebacks are on the runs (error.txt).")
    if reason and study.best_trial() is None and (nearest := _nearest_infeasible(study)):
        raise CommandFailed(
            f"No trial of {study.name} is within study.constraints. Of trial {nearest.number}, which is nearest, "
            f"{' and '.join(nearest.violates)}. Loosen the constraints, or search elsewhere."
        )
    if not reason and study.limits() == study.study_settings:
        raise CommandFailed(
            f"The study {study.name} is not done: its workers ended early. The same command continues it."
        )


def _nearest_infeasible(study: Study) -> TrialRecord | None:
    """The complete trial that is out of its bounds by the least."""
    bounds = study.study_settings.constraints
    complete = [t for t in study.trials() if t.state == State.COMPLETE and t.violates]
    return min(complete, key=lambda t: constraints.relative_excess(t.result, bounds), default=None)


def _tag_front(study: Study, store: TrackingStore, front: Sequence[TrialRecord]) -> None:
    """Tag the runs of trials with whether they are on the front, for its view in MLflow's UI."""
    numbers = {t.number for t in front}
    for trial in stopping.own_trials(study.trials()):
        if trial.state == State.COMPLETE:
            run, on_front = run_tree.trial_run(study, trial.number), str(trial.number in numbers).lower()
            if RunTail(run.folder).read().tags.get("trial.front") != on_front:
                run.set_tags({"trial.front": on_front})
                run.send_to(store, retry_now=True)


def _end_runs(study: Study, store: TrackingStore, trials: list[TrialRecord]) -> str | None:
    """Write run ends that a killed worker could not write, and deliver waiting records. Returns the problem, if any."""
    problem = None
    for trial in stopping.own_trials(trials):
        if State(trial.state).is_final:
            run = run_tree.trial_run(study, trial.number)
            if not run.has_ended:
                recorders.record_result(run, trial.result)
            run.send_to(store, retry_now=True)
            problem = run.problem or problem
    for name in study.study_settings.baselines:
        run = run_tree.baseline_run(study, name)
        run.send_to(store, retry_now=True)
        problem = run.problem or problem
    return problem


def _deliver_model(
    plan: SweepPlan, study: Study, run: RunLog, store: TrackingStore, console: StudyConsole, best: TrialRecord
) -> bool:
    """Average weights if the study has ended, log the study's model, and print both. False: it could not be logged."""
    run.set_tags({"best.trial": best.number, "best.score": best.score})
    console.best(best, compose.to_overrides(dict(best.params)))
    averaging = study.study_settings.average_most > 0 and study.end_reason() is not None
    averaged = _average(plan, study, store, console) if averaging else None
    uri = _log_model(study, run, store, _model_of(study, best, averaged, run, console))
    console.rows(_where_to_look(plan, study, store, run, best, uri))
    return uri is not None


def _average(plan: SweepPlan, study: Study, store: TrackingStore, console: StudyConsole) -> AverageRecord | None:
    """Average the best trials' weights, and print how good that is. None: there is no average.

    Once it is made, only the best study.keep_checkpoints trials keep their weights.
    """
    try:
        with FileLock(study.folder / "average.lock"):  # two commands may finish a study at the same time
            made = average.make_average(study, plan.dataset, store)
    except Exception as error:  # damaged weights, a full disk: a study without an average is better than none
        console.print(
            f"  note: the weights of the best trials could not be averaged ({type(error).__name__}: "
            f"{first_line(error)}); the best trial is the study's model. The same command tries again."
        )
        return None
    console.average(made, study.direction)
    kept = study.study_settings.keep_checkpoints
    trial_lifecycle.delete_old_weights(study, kept)
    if plan.settings.worker.home is not None:
        with suppress(OSError):  # the next command deletes them
            remote.delete_old_weights(study, store, kept)
    return made


@dataclass(frozen=True)
class _StudyModel:
    """The weights that are logged as the study's model."""

    key: str  # changes with the weights: a trial's number, or the average with its members
    run: RunLog
    training: Path


def _model_of(
    study: Study, best: TrialRecord, averaged: AverageRecord | None, study_run: RunLog, console: StudyConsole
) -> _StudyModel:
    """The average, if it is not worse than its members are on average; else the best trial.

    If the best trial is inherited, its model is logged on this study's run, so that it stays whatever the study that
    trained it does; if that study has deleted the weights, the model is the best trial with weights.
    """
    if averaged is not None and averaged.is_delivered(study.direction):
        key = "average:" + ",".join(map(str, averaged.members))
        return _StudyModel(key, run_tree.average_run(study), average.training_folder(study))
    if best.is_inherited and not _has_weights(study, best):
        with_weights = [t for t in stopping.rank_trials(study.trials(), study.direction) if _has_weights(study, t)]
        if with_weights:
            console.print(
                f"  note: the weights of trial {best.number} ({best.note}) are not there any more, so the study's "
                f"model is trial {with_weights[0].number}, the best one with weights."
            )
            best = with_weights[0]
    run = study_run if best.is_inherited else run_tree.trial_run(study, best.number)
    return _StudyModel(str(best.number), run, study.training_folder(best.number))


def _run_id(study: Study, trial: TrialRecord) -> str | None:
    return run_tree.trial_run(study, trial.number).known_run_id or trial.run_id


def _has_weights(study: Study, trial: TrialRecord) -> bool:
    return (study.training_folder(trial.number) / BEST_DIR).is_dir()


def _log_model(study: Study, run: RunLog, store: TrackingStore, model: _StudyModel) -> str | None:
    """Log the study's model, once, and delete the one that an earlier command logged. None: not yet."""
    file = study.folder / "delivered-model"
    with FileLock(study.folder / "delivered-model.lock"):  # two commands may finish a study at the same time
        return _log_model_once(run, store, model, file)


def _log_model_once(run: RunLog, store: TrackingStore, model: _StudyModel, file: Path) -> str | None:
    key, _, uri = (read_record(file, str) or "").partition(" ")
    if key == model.key and logged_model.exists(store, uri):
        return uri
    try:
        new = recorders.log_best_model(store, model.run, model.training, outdated=uri)
        atomic_write(file, f"{model.key} {new}")
        run.set_tags({"best.model": new, "best.model.of": model.key})
        if uri and uri != new and logged_model.exists(store, uri):
            logged_model.delete_model(store, uri)
    except Exception as error:  # a store that is down or full: the weights stay where they are until the next command
        run.set_tags({"best.model.problem": str(error)[:500] or type(error).__name__})
        return None
    return new


def _ui_address(store: TrackingStore) -> str:
    """The address of MLflow's UI: the server's, or how to start one on a local store."""
    return (
        store.address
        if store.uri.startswith("http")
        else "python -m src.ui    or: mlflow ui, and http://127.0.0.1:5000"
    )


def _where_to_look(
    plan: SweepPlan, study: Study, store: TrackingStore, run: RunLog, best: TrialRecord, uri: str | None
) -> Mapping[str, str]:
    return {
        **({"model": uri, "load it": recorders.load_snippet(uri, plan.dataset.task)} if uri else {}),
        "its run": f"{_run_id(study, best) or 'not delivered yet'} in {store.address}"
        + (f", of {best.source_study}" if best.is_inherited else ""),
        "study's run": run.known_run_id or "not delivered yet",
        **({"report": "report/report.html on the study's run"} if plan.settings.study.report else {}),
        "browse": f"{_ui_address(store)}/{ui_views.view_path(store, recorders.trials_view_key(study))}",
        "train it again": "python -m src.train "
        + mask_secrets(shlex.join(report.trial_overrides(plan.settings.overrides, best))),
    }
