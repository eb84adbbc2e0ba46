"""A worker of a search: claims trials and trains them one after another, then evaluates the baselines."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src.config import compose
from src.config.settings import Settings
from src.core import own_code, shutdown
from src.core.errors import StorageUnavailable
from src.core.messages import notify
from src.core.paths import Paths, atomic_write
from src.core.records import DEFAULT_RECIPE, Calibration, Evaluation, State, StopDecision, TrainingResult
from src.search import space as spaces
from src.search import stopping, trial_lifecycle
from src.search.study import Study, data_fingerprint
from src.search.trial_lifecycle import ClaimedTrial
from src.tracking import recorders, run_tree
from src.tracking.run_log import RunLog
from src.tracking.store import TrackingStore
from src.training import baselines, devices, label_mapping, pretrained
from src.training.failures import failure_reason
from src.training.pretrained import PretrainedModel
from src.workers import remote, screening, timeline
from src.workers.context import TrackingCallback, WorkerContext, attempt_training, measure_speed_once, save_speed
from src.workers.model_speed import speed_lock, train_and_measure
from src.workers.remote import RemoteSync
from src.workers.speed_lock import SpeedLock
from src.workers.timeline import TimelineWriter

BUDGET_CHECK_SECONDS = 2.0  # how often a training looks at the study's budget
POLL_SECONDS = 0.3  # between two attempts to claim a trial, while other workers are busy


class TrialCallback(TrackingCallback):
    """A trial's training: its scores are reported to the study; a pruner, the budget or a signal may end it."""

    def __init__(
        self,
        run: RunLog,
        store: TrackingStore,
        study: Study,
        trial: ClaimedTrial,
        remote_sync: RemoteSync | None,
        *,
        save_speed: Callable[[Calibration], None] | None = None,
        lock: SpeedLock | None = None,
    ) -> None:
        super().__init__(run, store, lock)
        self.study, self.trial, self.remote, self._save_speed = study, trial, remote_sync, save_speed
        self._budget_checked = time.monotonic()

    def on_speed_measured(self, calibration: Calibration) -> None:
        """Save the speed of the default recipe's own trial."""
        if self._save_speed is not None:
            self._save_speed(calibration)

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        """Log the evaluation, and report its score to the study."""
        super().on_evaluation(evaluation)
        return trial_lifecycle.report_score(self.study, self.trial, evaluation)

    def on_checkpoint(self) -> None:
        """Upload the checkpoint for workers on other machines; if that fails, the next one is uploaded."""
        if self.remote is not None:
            with suppress(OSError):
                self.remote.upload_training(self.study, self.trial.number)
                self.remote.upload_run(self.study, self.trial.number)

    def should_stop(self, step: int) -> StopDecision | None:
        """After a signal, or once the study's budget is spent."""
        super().should_stop(step)
        if shutdown.requested():
            return StopDecision(State.PAUSED, shutdown.REASON)
        if time.monotonic() - self._budget_checked < BUDGET_CHECK_SECONDS:
            return None
        self._budget_checked = time.monotonic()
        with trial_lifecycle.storage_errors():
            spent, limits = self.study.seconds_spent(), self.study.limits()
        if stopping.is_over_budget(limits, spent):
            return StopDecision(State.PRUNED, f"the study's budget of {limits.budget_minutes:g} minutes was spent")
        return None


def run_worker(settings: Settings, index: int, n_workers: int, paths: Paths) -> None:
    """Run trials of the study until a stopping criterion is met. Any number of processes may do so at once.

    Args:
        settings: of the study, as composed for this worker.
        index: of this worker, from 0.
        n_workers: that the launching process has started, this one included.
        paths: of the folder that the command was started in.

    Raises:
        SystemExit: with code 1 where the study's records cannot be written (a full disk, a database that does not
            answer). The trial keeps its checkpoint.
    """
    own_code.load(settings.code, paths.root)
    worker, remote_sync = settings.worker, None
    machine = devices.detect_machine(bool(settings.recipe.trainer.get("use_cpu")), worker.devices_per_trial)
    threads = devices.set_worker_share(index, n_workers, machine, worker.cpus)
    if worker.home is not None:
        with exit_if_storage_fails(index):
            paths, remote_sync = remote.join_from_remote(settings)
    begun_with = partial(data_fingerprint, settings, paths.study_dir(settings.study.name))
    context = WorkerContext(settings, paths, begun_with=begun_with)
    measures_speed = remote_sync is None and settings.study.join is None
    if settings.study.plan_only:
        if measures_speed:
            measure_speed_once(context, index, n_workers)
        return
    with exit_if_storage_fails(index):
        default_runs_alone = worker.cpus is None and devices.default_recipe_runs_alone(
            machine, n_workers, settings.study.n_trials
        )
        search_worker = SearchWorker.create(
            context, index, remote_sync, threads, machine.cores if default_runs_alone else None
        )
        default_shows_speed = default_runs_alone and trial_lifecycle.default_pending(search_worker.study)
        if measures_speed and not default_shows_speed:
            measure_speed_once(context, index, n_workers)
        search_worker.run()


@contextmanager
def exit_if_storage_fails(index: int) -> Iterator[None]:
    """If the study's records cannot be written in the block, say so and exit with code 1."""
    try:
        with trial_lifecycle.storage_errors():
            yield
    except StorageUnavailable as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        notify(
            f"worker {index} ends: the study's records cannot be kept ({error}). Its trial keeps its last checkpoint; "
            "once there is room, or the database is back, the same command continues it.",
            important=True,
        )
        raise SystemExit(1) from None


@dataclass(frozen=True)
class SearchWorker:
    """Runs one study's trials and baselines in this process."""

    context: WorkerContext
    study: Study
    timeline: TimelineWriter
    overrides: Sequence[str]  # of the command; a trial's own come after them
    threads: int
    cores: int | None  # that the default recipe trains on, alone and first; None: it is a trial like the others
    remote: RemoteSync | None  # if the worker's machine does not see the launching machine's folder

    @classmethod
    def create(
        cls, context: WorkerContext, index: int, remote_sync: RemoteSync | None, threads: int, cores: int | None
    ) -> "SearchWorker":
        """A worker of the study that `context` has the settings of.

        Args:
            context: of this process.
            index: of this worker, from 0.
            remote_sync: if the launching machine's folder is not seen from here.
            threads: of a training.
            cores: of the default recipe's training, if it goes first and alone.
        """
        settings = context.settings
        study = Study(
            settings,
            spaces.build_space(settings),
            context.objective.direction,
            context.paths.study_dir(settings.study.name),
        )
        overrides = [o for o in compose.task_overrides() if not o.startswith(("worker.", "study.join="))]
        joined = settings.study.join is not None
        writer = TimelineWriter(study.folder, timeline.next_worker_number(study.folder) + index if joined else index)
        return cls(context, study, writer, overrides, threads, cores, remote_sync)

    def run(self) -> None:
        """Run trials, then baselines, until none is left that this worker could do."""
        study, default_runs_alone = self.study, self.cores is not None
        screening.screen_models(self.context, study, self.overrides, self.timeline.worker)
        while not shutdown.requested():
            if (trial := trial_lifecycle.claim_trial(study, default_runs_alone)) is not None:
                with self.timeline.record(f"trial {trial.number}") as states:
                    states.append(self._run_trial(trial))
                if self.remote is not None:
                    self.remote.upload_folder(study, self.timeline.path.parent)
            elif default_runs_alone and trial_lifecycle.default_in_progress(study):
                time.sleep(POLL_SECONDS)
            elif self._run_next_baseline():
                continue
            elif trial_lifecycle.others_are_working(study):
                time.sleep(POLL_SECONDS)
            else:
                return

    def _run_trial(self, trial: ClaimedTrial) -> str:
        """Train a claimed trial until it ends, pauses or is stopped by a signal, and release it; returns its state."""
        context, study, remote_sync = self.context, self.study, self.remote
        runs_alone = trial.origin == DEFAULT_RECIPE and self.cores is not None
        threads = devices.set_threads(self.cores if runs_alone else self.threads)
        if remote_sync is not None and trial.starts > 1:
            remote_sync.fetch_trial(study, trial.number)
        run = run_tree.trial_run(study, trial.number)
        if remote_sync is not None and trial.starts > 1:
            run.load_logged_steps(context.store)
        params = compose.to_overrides(trial.params)
        settings = compose.compose_trial(self.overrides, trial.params)
        run.set_status(State.RUNNING)
        trial_tags = {"trial.number": trial.number, "trial.state": State.RUNNING, "trial.origin": trial.origin}
        run.set_tags({**recorders.common_tags(context.dataset, study.name), "kind": "trial", **trial_tags})
        run.set_tags({"worker": self.timeline.worker, "threads": threads})
        if not run.has_params:
            recorders.record_training_config(run, settings, list(trial.params), [*self.overrides, *params])
        if run.send_to(context.store):
            trial_lifecycle.save_run_id(trial, run.ensure_run_id(context.store))
        folder = study.training_folder(trial.number)
        lock = speed_lock(context)
        saves_speed = partial(save_speed, context) if runs_alone else None
        callback = TrialCallback(run, context.store, study, trial, remote_sync, save_speed=saves_speed, lock=lock)
        with study.leases.keep_alive(study.lease_name(trial.number)):
            train = partial(attempt_training, settings.recipe, context, callback, folder)
            result = train_and_measure(context, folder, lock, train)
        if remote_sync is not None:
            remote_sync.upload_training(study, trial.number)
        self._record_end(trial, run, result)
        return result.state

    def _record_end(self, trial: ClaimedTrial, run: RunLog, result: TrainingResult) -> None:
        """Store in the study, then in MLflow, how the trial ended, or that it is paused."""
        context, study, remote_sync = self.context, self.study, self.remote
        if result.state != State.PAUSED:
            trial_lifecycle.finish_trial(study, trial, result)
            recorders.record_result(run, result)
            trial_lifecycle.delete_old_weights(study)
        else:
            recorders.record_result(run, result)
            run.send_to(context.store)
            if remote_sync is not None:
                remote_sync.upload_run(study, trial.number)
            if result.reason == shutdown.REASON:
                trial_lifecycle.release_trial(study, trial)
            else:
                trial_lifecycle.pause_trial(study, trial, result)
        run.send_to(context.store)
        if remote_sync is not None and result.state != State.PAUSED:
            remote_sync.upload_ended_trial(study, trial.number)

    def _run_next_baseline(self) -> bool:
        """Evaluate a baseline that has no result and that no other worker is evaluating; False if there is none."""
        study = self.study
        if self.remote is not None:
            self.remote.fetch_baselines(study)
        done = study.baseline_results()
        for name in study.study_settings.baselines:
            run = run_tree.baseline_run(study, name)
            with study.leases.try_exclusive(f"baselines/{name}") as claimed:
                if claimed and name not in done and not (run.folder / "outcome.json").exists():
                    lock = speed_lock(self.context)
                    with self.timeline.record(f"baseline {name}"), lock.training() if lock else nullcontext():
                        _run_baseline(self.context, name, run, self.timeline.worker)
                    if self.remote is not None:
                        self.remote.upload_folder(study, run.folder)
                    return True
        return False


def _run_baseline(context: WorkerContext, name: str, run: RunLog, worker: int) -> None:
    run.set_status(State.RUNNING)
    facts = recorders.common_tags(context.dataset, context.settings.study.name)
    run.set_tags({**facts, "kind": "baseline", "baseline": name, "worker": worker})
    if not baselines.is_fitted(name):
        run.set_tags(recorders.weights_tags(_baseline_weights(context, name)))
    result = _evaluate_baseline(context, name, run.folder / "scratch")
    if not run.has_params:
        recorders.record_config(run, context.settings)
        run.log_params({"baseline": name, "data.name": context.settings.data.name})
    run.log_metrics(0, {f"validation/{k}": v for k, v in result.metrics.items()})
    recorders.record_result(run, result)
    atomic_write(run.folder / "outcome.json", result.to_json())
    run.send_to(context.store)


def _baseline_weights(context: WorkerContext, baseline: str) -> PretrainedModel:
    if baseline == "ready_made":
        return label_mapping.check_ready_made(context.settings, context.dataset.label_names, context.paths.cache_dir)
    return pretrained.resolve(context.settings.recipe.model, context.paths.cache_dir)


def _evaluate_baseline(context: WorkerContext, name: str, scratch: Path) -> TrainingResult:
    try:
        if baselines.is_fitted(name):
            train, validation = context.dataset.frame("train"), context.dataset.frame("validation")
            names, loss = context.dataset.label_names, context.settings.recipe.loss
            return baselines.evaluate_classic(name, train, validation, context.objective, names, loss)
        if name == "ready_made":
            ready_made = _baseline_weights(context, name)
            names, validation = context.dataset.label_names, context.dataset.frame("validation")
            return baselines.evaluate_ready_made(context.settings, ready_made, names, validation, context.objective)
        checkpoint, data = context.tokenized_data(context.settings.recipe.model)
        return baselines.evaluate_untuned(context.settings.recipe, checkpoint, data, context.objective, scratch)
    except Exception as error:  # recorded as a failed baseline; the study goes on
        return TrainingResult(State.FAIL, reason=failure_reason(error))
