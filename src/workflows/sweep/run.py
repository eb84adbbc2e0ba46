"""Runs a search in the launching process: plan, launch, monitor, finish."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from src.comparison import saved_study
from src.console import data_summary
from src.console.output import StudyConsole
from src.core.errors import InvalidInput, mask_secrets
from src.core.formatting import duration, plural
from src.core.paths import atomic_write
from src.core.records import DEFAULT_RECIPE, State
from src.search import trial_lifecycle
from src.search.study import Study
from src.tracking import recorders, run_tree
from src.tracking.run_log import RunLog
from src.tracking.store import TrackingStore, open_store, tracking_uri
from src.training import devices
from src.workers import remote, worker_count
from src.workflows import join
from src.workflows.sweep import finish, memory_plan
from src.workflows.sweep.monitor import SearchMonitor
from src.workflows.sweep.plan import SweepPlan, machine_for, plan_rows, print_price

Launch = Callable[[int], object]  # starts so many workers on the study, and returns when they have ended


def search(plan: SweepPlan, launch: Launch) -> None:
    """Run the study, or what is left of it. Raises CommandFailed if it has failed or its trials are not done."""
    settings = plan.settings
    console = StudyConsole(settings)
    begun = plan.existing_study()
    ended = begun.own_ended_trials() if begun else []
    console.plan(plan.space, plan.workers, {**plan_rows(plan), **(progress_rows(begun) if begun else {})}, len(ended))
    data_summary.print_labels(plan.dataset, console, every=settings.study.plan_only)
    left_out = [f"not taken over, {note}" for note in plan.inheritance.notes()] if plan.inheritance else []
    for warning in (*plan.warnings, *left_out, *(ignored_values(plan, begun) if begun else ())):
        console.print(f"  note: {warning}")
    if not saved_study.study_names(plan.paths):  # so that a command in the wrong folder is noticed
        where = mask_secrets(tracking_uri(settings.tracking, plan.paths.root))
        console.print(f"  note: no study is here yet; this one goes to {plan.folder.parents[1]}, its runs to {where}")
    if settings.study.plan_only:
        print_price(_with_measured_workers(plan, console, launch), console, ended)
        console.print("  study.plan_only=true: nothing was trained.")
        return
    store = open_store(settings.tracking, plan.paths.root, run_tree.known_experiment(plan.folder))
    study = plan.open_study()
    study.create(plan.definition, plan.inheritance.trials if plan.inheritance else (), plan.learned)
    saved_study.save_config(settings, study.folder)
    memory_plan.save_estimate(plan.memory, study.folder)
    join.save_overrides(study, settings)
    run_tree.forget_lost_runs(study, store)
    run = _start_study_run(plan, study, store)
    if not (study.end_reason() and not study.unfinished_trials() and _baselines_done(study)):
        if settings.worker.home is not None:
            remote.send_material(settings, plan.dataset, plan.models, study, run, store)
        try:
            with trial_lifecycle.storage_errors(files_too=False), SearchMonitor(plan, study, run, store, console):
                launch(plan.workers)
        except KeyboardInterrupt:
            run.set_tags({"study.state": "INTERRUPTED"})
            run.set_status(State.PAUSED)
            run.send_to(store, retry_now=True)
            raise
    with trial_lifecycle.storage_errors(files_too=False):
        finish.finish_study(plan, study, run, store, console)


def progress_rows(study: Study) -> dict[str, str]:
    """The progress of a study that the command continues: paused trials, and trials that other workers hold."""
    in_progress, rows = study.trials_in_progress(), {}
    if study.sources:
        names = ", ".join(sorted({source.study for source in study.sources.values()}))
        rows["inherited"] = f"{plural(len(study.sources), 'trial')} of {names}"
    waiting = [t for t in study.trials() if not State(t.state).is_final and t.number not in in_progress]
    if waiting:
        where = [f"{t.number} after {t.rung} %" if t.rung else f"{t.number} from its beginning" for t in waiting]
        rows["goes on"] = (
            f"{'trial' if len(where) == 1 else 'trials'} {', '.join(where)}; "
            f"{duration(study.seconds_spent())} searched so far"
        )
    if in_progress:
        trials = f"{'trial' if len(in_progress) == 1 else 'trials'} {', '.join(map(str, in_progress))}"
        rows["in work"] = (
            f"{trials}, held by other workers: the study is being searched, and this command adds workers to it"
        )
    return rows


def ignored_values(plan: SweepPlan, study: Study) -> Iterator[str]:
    """Warnings about values given for searched settings: they belong to the default recipe, which was tried already."""
    first = next((t.params for t in study.trials() if t.origin == DEFAULT_RECIPE), {})
    for key, value in plan.space.default_params().items():
        if key in first and first[key] != value:
            yield (
                f"{key}={value} changes nothing here: it is searched, and the default recipe has been tried with "
                f"{first[key]}. To try it: study.enqueue, or another study.name."
            )


def _with_measured_workers(plan: SweepPlan, console: StudyConsole, launch: Launch) -> SweepPlan:
    """The plan with measured speed; with workers=auto, with the number of workers that trains the most examples."""
    settings = plan.settings
    if settings.worker.home is not None:
        return plan
    if settings.workers:
        if not worker_count.complete_calibrations(settings, plan.paths, plan.dataset, plan.workers):
            launch(plan.workers)
        return plan
    machine = devices.with_gpu_memory(machine_for(settings))
    most = memory_plan.workers_that_fit(plan.memory, machine, machine.cores)
    machine = replace(machine, cores=most)
    speeds = worker_count.measure_worker_counts(settings, plan.paths, plan.dataset, machine, launch)
    workers = worker_count.best_count(speeds)
    console.worker_counts(speeds, workers)
    return replace(plan, workers=workers)


def _start_study_run(plan: SweepPlan, study: Study, store: TrackingStore) -> RunLog:
    """Create the study's run, the parent of all its runs."""
    study_settings = plan.settings.study
    run = run_tree.study_run(study)
    if not run.has_params:
        recorders.record_config(run, plan.settings)
        run.log_params({f"space.{k}": v for k, v in plan.space.describe().items()})
        run.log_params(
            {
                "study.metric": ", ".join(study_settings.objectives),
                "study.direction": plan.direction,
                "study.seed": study_settings.seed,
            }
        )
    run.set_tags(
        {**recorders.common_tags(plan.dataset, study_settings.name), "kind": "study", "study.state": "RUNNING"}
    )
    if study.sources:
        recorders.record_inheritance(run, study)
    run.set_tags(recorders.weights_tags(plan.pretrained))
    run.set_status(State.RUNNING)
    if not run.send_to(store, retry_now=True):
        raise InvalidInput(f"The MLflow store at {store.address} does not take records: {run.problem}")
    atomic_write(run_tree.experiment_file(study.folder), store.experiment_id)
    with suppress(Exception):  # a store that takes runs but no views: the study goes on without them
        recorders.save_trials_view(store, study)
    return run


def _baselines_done(study: Study) -> bool:
    return set(study.baseline_results()) == set(study.study_settings.baselines)
