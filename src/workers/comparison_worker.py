"""A worker of a comparison: trains recipes on fresh seeds, later predicts the opened test split."""

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from src.comparison import contenders, saved_study
from src.comparison.contenders import Contenders, SeedRun
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection
from src.core import shutdown
from src.core.paths import Paths
from src.core.texts import texts_of
from src.data import test_split
from src.training import devices
from src.verdict.records import AVERAGE, REFIT, STUDENT
from src.workers import comparison_predictions, comparison_training
from src.workers.context import WorkerContext, measure_speed_once
from src.workers.work_unit import WorkUnit

POLL_SECONDS = 0.5  # between two looks at what another worker does


def run_worker(
    study: str, index: int, of: int, paths: Paths, cpus: int | None = None, measure_only: bool = False
) -> None:  # fmt: skip
    """Do what is left of a comparison.

    First trainings on fresh seeds; when the winner is selected, its refits, and averages judged on validation; when the
    test split is opened, predictions on it.

    Any number of processes may do so at once.

    Args:
        study: its name.
        index: of this worker, from 0.
        of: how many workers the launching process has started.
        paths: of the folder that the command was started in.
        cpus: threads of this worker; None for its share of the machine.
        measure_only: measure the speed of training, and return.
    """
    saved = saved_study.load_study(study, paths)
    settings = saved.settings
    machine = devices.detect_machine(bool(settings.recipe.trainer.get("use_cpu")), settings.worker.devices_per_trial)
    threads = devices.set_worker_share(index, of, machine, cpus)
    context = WorkerContext(saved.settings, paths, begun_with=lambda: saved.dataset.fingerprint)
    measure_speed_once(context, index, of)
    if measure_only:
        return
    comparison = Contenders.read(saved.comparison_dir)
    selection = Selection.read(saved.comparison_dir, comparison)
    worker_tags = {"threads": threads, "worker": index}
    if selection is None:
        seed_runs = contenders.seed_runs(comparison, saved.comparison_dir)
        units = list(_training_units(context, saved, seed_runs, worker_tags))
    elif not selection.is_opened:
        refits = _training_units(context, saved, selection.trainings_of(REFIT), worker_tags)
        students = _training_units(context, saved, selection.trainings_of(STUDENT), worker_tags)
        taught = [_soft_labels_unit(context, saved, selection)] if STUDENT in selection.forms else []
        units = [*taught, *_average_units(context, saved, selection), *refits, *taught, *students]
    else:
        units = list(_test_units(context, saved, selection))
    for unit in units:
        if shutdown.requested():
            return
        unit.try_run()
        while unit.must_end_first and not unit.is_done() and not shutdown.requested():
            time.sleep(POLL_SECONDS)
            unit.try_run()


def _training_units(
    context: WorkerContext, saved: SavedStudy, seed_runs: Iterable[SeedRun], worker_tags: Mapping[str, int]
) -> Iterator[WorkUnit]:
    """A unit per training. `worker_tags`: say on the run which worker trained it."""
    for seed_run in seed_runs:
        yield WorkUnit(
            seed_run.folder,
            partial(_has_result, seed_run),
            partial(comparison_training.train, context, saved, seed_run, worker_tags),
        )


def _soft_labels_unit(context: WorkerContext, saved: SavedStudy, selection: Selection) -> WorkUnit:
    """The unit that makes the students' soft labels, which must be there before a student is trained."""
    file = selection.soft_labels_path
    do = partial(comparison_predictions.make_soft_labels, context, saved, selection)
    return WorkUnit(file.parent, file.exists, do, must_end_first=True)


def _has_result(seed_run: SeedRun) -> bool:
    return seed_run.result() is not None


def _average_units(context: WorkerContext, saved: SavedStudy, selection: Selection) -> Iterator[WorkUnit]:
    """A unit per average of seed runs, which is judged on validation."""
    for form in selection.averaged_forms:
        if form.contender.form == AVERAGE:
            yield WorkUnit(
                form.folder,
                form.validation_probabilities_path.exists,
                partial(comparison_predictions.judge_average, context, saved, form),
            )


def _test_units(context: WorkerContext, saved: SavedStudy, selection: Selection) -> Iterator[WorkUnit]:
    """A unit for each contender that predicts the test split."""
    ledger = saved.paths.test_openings_path(saved.dataset.fingerprints["test"])
    frame = test_split.read_test_split(
        context.dataset, ledger, test_split.SplitOpening(selection.opening, selection.key)
    )
    texts = texts_of(frame)
    for seed_run in selection.tested_seed_runs:
        yield WorkUnit(
            seed_run.folder,
            partial(comparison_predictions.has_predicted, seed_run, selection),
            partial(comparison_predictions.predict_with_seed_run, context, saved, seed_run, texts),
        )
    for form in selection.averaged_forms:
        yield WorkUnit(
            form.folder,
            partial(comparison_predictions.has_predicted, form, selection),
            partial(comparison_predictions.predict_with_average, context, saved, form, texts),
        )
    for contender in selection.without_training:
        file = contenders.fixed_probabilities_path(contender, saved.comparison_dir)
        do = partial(comparison_predictions.predict_with_fixed, context, contender, frame, file)
        yield WorkUnit(file.parent, file.exists, do)
