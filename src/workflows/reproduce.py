"""Repeats a recorded training from its MLflow run, and compares every recorded number."""

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.config import compose
from src.config.settings import Recipe, Settings
from src.console.output import Column, Console
from src.core import own_code
from src.core.errors import CommandFailed, InvalidInput, NotReproduced
from src.core.formatting import plural
from src.core.paths import Paths
from src.core.records import Evaluation, State, StopDecision, TrainingResult
from src.core.texts import texts_of
from src.data import dataset
from src.tracking import environment, recorders, run_reader
from src.tracking.run_reader import Curves, RecordedAverage, RecordedRun
from src.tracking.store import TrackingStore, open_existing_store
from src.training import devices, distributed, matching, weight_average
from src.training.callbacks import Objective, TrainingCallback
from src.training.failures import failure_reason, reduce_micro_batch_to
from src.training.pretrained import BEST_DIR
from src.training.trainer_arguments import resolve_precision
from src.workers.context import WorkerContext, curve_metrics
from src.workflows.sweep.plan import machine_for

TEST_PREFIX = "test/"  # metrics on the test split are not computed again


class ReplayCallback(TrainingCallback):
    """Records a training's metrics, and stops it where the recorded training stopped."""

    def __init__(self, last_step: int | None) -> None:
        self.last_step = last_step
        self.curves: dict[str, dict[int, float]] = defaultdict(dict)

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values."""
        for name, value in values.items():
            self.curves[name][step] = value

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        """Record the metrics; stop where the recorded training stopped."""
        self.on_log(evaluation.step, curve_metrics(evaluation))
        if self.last_step is not None and evaluation.step >= self.last_step:
            return StopDecision(State.PRUNED, "as recorded")
        return None

    def should_stop(self, step: int) -> StopDecision | None:
        """Stop at the step at which the recorded training stopped."""
        over = self.last_step is not None and step >= self.last_step
        return StopDecision(State.PRUNED, "as recorded") if over else None


@dataclass(frozen=True)
class Difference:
    """One metric of the two runs: at how many of its steps they differ, and the largest difference."""

    metric: str
    steps: int
    differ: int
    missing: int
    largest: float


def reproduce(run_id: str | None, tracking_uri: str | None, code: Sequence[str], paths: Paths) -> None:
    """Train a recorded run again, or all members of an average.

    Args:
        run_id: of the MLflow run.
        tracking_uri: where it is recorded; None for the usual place.
        code: modules of the user's own that the command line names.
        paths: of the folder that the command is given in.

    Raises:
        NotReproduced: a number or an average's weights differ.
        InvalidInput: the run or its data are missing, or the user's own code is another.
    """
    if not run_id:
        raise InvalidInput("No run was given: python -m src.reproduce run=<MLflow run id>.")
    own_code.load(code, paths.root)
    store, console = open_existing_store(tracking_uri, paths.root), Console()
    average = run_reader.read_average(store, run_id)
    folder = paths.training_dir(f"reproduce-{run_id}-{time.strftime('%H-%M-%S')}")
    try:
        if average is None:
            same = _reproduce_training(run_id, store, paths, console, folder)
        else:
            same = _reproduce_average(average, store, paths, console, folder)
    except KeyboardInterrupt:
        raise CommandFailed("Stopped. Nothing was compared, and the record is unchanged.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _set_reproduced(store, run_id, same)
    if not same:
        raise NotReproduced(f"The run {run_id} did not come out the same (see above). Its record is unchanged.")


def _set_reproduced(store: TrackingStore, run_id: str, same: bool) -> None:
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    run_reader.set_tags(store, run_id, {"reproduced": "identical" if same else "differs", "reproduced.at": when})


def _reproduce_average(
    average: RecordedAverage, store: TrackingStore, paths: Paths, console: Console, folder: Path
) -> bool:
    """Train all members again, average their weights, and compare the average's. Returns whether it is the same."""
    console.print(f"Again: {average.name}, the average of {len(average.members)} trainings")
    for member in average.members:
        _set_reproduced(store, member, _reproduce_training(member, store, paths, console, folder / member))
    recorded = run_reader.read_run(store, average.members[0])
    settings = compose.restore_settings(recorded.yaml)
    prepared = dataset.prepare_dataset(settings.data, paths.cache_dir, lambda: recorded.data)
    members, texts = [folder / member / BEST_DIR for member in average.members], texts_of(prepared.frame("validation"))
    use_cpu = bool(settings.recipe.trainer.get("use_cpu"))
    answers = matching.answers_of(members, texts, prepared.task, use_cpu)
    matching.average_members(members, answers, texts, prepared.task, folder / BEST_DIR, use_cpu)
    same = weight_average.weights_sha256(folder / BEST_DIR) == average.sha256
    console.print("The average's weights are identical." if same else "The average's weights differ.")
    return same


def _reproduce_training(run_id: str, store: TrackingStore, paths: Paths, console: Console, folder: Path) -> bool:
    """Train a recorded run again in `folder`, and print what differs. Returns whether everything is the same."""
    recorded = run_reader.read_run(store, run_id)
    settings = compose.restore_settings(recorded.yaml)
    own_code.check_recorded(recorded.code, settings.code, f"The run {run_id}")
    worker = replace(settings.worker, devices_per_trial=recorded.devices)
    settings = replace(settings, recipe=recorded_recipe(settings.recipe, recorded), worker=worker)
    prepared = dataset.prepare_dataset(settings.data, paths.cache_dir, lambda: recorded.data)
    if prepared.fingerprint != recorded.data:
        raise InvalidInput(
            f"The run {run_id} was trained on data with the fingerprint {recorded.data}; what {settings.data.name} "
            f"({settings.data.source}) has now has {prepared.fingerprint}. Put the old data back."
        )
    devices.set_worker_share(0, 1, machine_for(settings))
    threads = devices.set_threads(recorded.threads)
    console.print(
        f"Again: {recorded.name} ({recorded.kind}, {recorded.state}), {plural(threads, 'thread')}, "
        f"{resolve_precision(settings.recipe)}"
    )
    context = WorkerContext(settings, paths, store, lambda: recorded.data)
    callback = ReplayCallback(recorded.steps if recorded.state == State.PRUNED else None)
    objective = _recorded_objective(context.objective, recorded, paths)
    result = _train(settings, context, objective, callback, folder)
    differences = compare_curves(recorded, {**callback.curves, **_final_curves(result)})
    _print_differences(console, recorded, result, differences)
    return not any(d.differ or d.missing for d in differences) and result.state == recorded.state


def _recorded_objective(objective: Objective, recorded: RecordedRun, paths: Paths) -> Objective:
    """The objective of the recorded training. Raises InvalidInput if what a student has learned is gone."""
    soft_labels = paths.root / recorded.soft_labels if recorded.soft_labels else None
    if soft_labels is not None and not soft_labels.is_file():
        raise InvalidInput(
            f"The run {recorded.run_id} is a student's, and what it has learned, {soft_labels}, is not there: texts "
            "are not recorded in MLflow. Reproduce it in the project in which it was trained."
        )
    return replace(
        objective,
        refit_share=recorded.refit_share,
        trains_on_validation="validation" in recorded.trained_on,
        soft_labels=soft_labels,
    )


def recorded_recipe(recipe: Recipe, recorded: RecordedRun) -> Recipe:
    """The recipe with what its config left to the machine: the precision, and the batch size that fits into memory."""
    trainer = dict(recipe.trainer)
    if recorded.precision and trainer.get("bf16") == "auto":
        trainer |= {kind: recorded.precision == kind for kind in ("bf16", "fp16")}
    recipe = replace(recipe, trainer=trainer)
    return reduce_micro_batch_to(recorded.micro_batch, recipe, recorded.devices) if recorded.micro_batch else recipe


def compare_curves(recorded: RecordedRun, curves: Curves) -> list[Difference]:
    """Compare every recorded number, except timings and test metrics, with the new one at the same step."""
    differences = []
    for name, old in sorted(recorded.curves.items()):
        if name.startswith(TEST_PREFIX):
            continue
        new = curves.get(name, {})
        gaps = [abs(new[step] - value) for step, value in old.items() if step in new and not _equal(new[step], value)]
        missing = sum(step not in new for step in old)
        differences.append(Difference(name, len(old), len(gaps), missing, max(gaps, default=0.0)))
    return differences


def _equal(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124  (NaN)


def _train(
    settings: Settings, context: WorkerContext, objective: Objective, callback: ReplayCallback, folder: Path
) -> TrainingResult:
    try:
        checkpoint, data = context.tokenized_data(settings.recipe.model)
        each = settings.worker.devices_per_trial
        return distributed.fine_tune(each, settings.recipe, checkpoint, data, objective, callback, folder)
    except InvalidInput:
        raise
    except Exception as error:  # a training that failed is reproduced by failing again
        return TrainingResult(State.FAIL, reason=failure_reason(error))


def _final_curves(result: TrainingResult) -> Curves:
    """The metrics recorded at a training's end, as curves of one point."""
    numbers = {name: value for name, value in recorders.final_metrics(result).items() if value is not None}
    return {name: {result.steps or 0: value} for name, value in numbers.items()}


def _print_differences(
    console: Console, recorded: RecordedRun, result: TrainingResult, differences: list[Difference]
) -> None:
    """Print the differences and what may explain them, or that there are none."""
    numbers = sum(d.steps for d in differences)
    console.print(f"{result.state}{f': {result.reason}' if result.state == State.FAIL else ''}")
    wrong = [d for d in differences if d.differ or d.missing]
    if not wrong:
        same = f"All {numbers} recorded numbers of {len(differences)} metrics are identical"
        console.print(f"{same} (timings are not compared, and the test split stays sealed).")
    else:
        names = ("metric", "steps", "differ", "missing", "largest difference")
        rows = [(d.metric, str(d.steps), str(d.differ), str(d.missing), f"{d.largest:.3g}") for d in wrong]
        console.table([Column(name, right=name != "metric") for name in names], rows)
    changed = environment_changes(recorded)
    for line in changed:
        console.print(f"  {line}")
    if wrong and not changed:
        console.print("  Versions, machine, threads and precision are as recorded.")


def environment_changes(recorded: RecordedRun) -> list[str]:
    """Versions and machine properties that have changed since the recorded run."""
    now = environment.versions()
    changes = [
        f"{package} was {recorded.versions.get(package, 'absent')} and is {now.get(package, 'absent')}"
        for package in sorted({*recorded.versions, *now})
        if recorded.versions.get(package) != now.get(package)
    ]
    machine = environment.machine()
    return changes + ([f"machine was {recorded.machine} and is {machine}"] if recorded.machine != machine else [])
