"""Every MLflow run of a study: its folder, its lasting key, and its parent.

study -> trials, baselines, contenders; contender -> its fresh-seed trainings.
"""

from collections.abc import Collection
from pathlib import Path

from src.core.errors import CommandFailed
from src.core.formatting import plural
from src.core.messages import notify
from src.core.record_files import read_record
from src.search import screening
from src.search.study import Study
from src.tracking.run_log import SENT_FILE, RunLog, read_run_id
from src.tracking.store import TrackingStore

SEED_SUFFIX = "-seed-"  # in the name of a seed run, between its contender and its seed


def study_run(study: Study) -> RunLog:
    """The study's run, the parent of the runs of its trials, baselines and contenders."""
    return RunLog(study.folder / "run", f"{_uid(study)}/study", study.name)


def trial_run(study: Study, number: int) -> RunLog:
    """The run of trial `number`, a child of the study's run; of an inherited trial, of the study that trained it."""
    if (source := study.sources.get(number)) is not None:
        folder = study.trial_folder(number)
        parent = read_run_id(folder.parent.parent / "run")
        return RunLog(folder / "run", f"{source.uid}/trial/{source.trial}", f"trial-{source.trial:04d}", parent)
    return RunLog(
        study.trial_folder(number) / "run", f"{_uid(study)}/trial/{number}", f"trial-{number:04d}", _study_run_id(study)
    )


def baseline_run(study: Study, name: str) -> RunLog:
    """The run of a baseline, a child of the study's run."""
    return RunLog(
        study.folder / "baselines" / name, f"{_uid(study)}/baseline/{name}", f"baseline-{name}", _study_run_id(study)
    )


def average_run(study: Study) -> RunLog:
    """The run of the average of the best trials' weights, a child of the study's run."""
    return RunLog(study.folder / "average" / "run", f"{_uid(study)}/average", "average", _study_run_id(study))


def screening_run(study: Study, place: int) -> RunLog:
    """The run of a short trial before the search, a child of the study's run. `place`: of the model in the space."""
    model = screening.searched_models(study)[place]
    folder = screening.folder_of(study, place) / "run"
    return RunLog(folder, f"{_uid(study)}/screening/{model}", f"screening-{model}", _study_run_id(study))


def contender_run(study: Study, comparison: Path, key: str, name: str) -> RunLog:
    """The run of a contender of a comparison; its fresh-seed trainings are children of it."""
    folder = comparison / "contenders" / key / "run"
    return RunLog(folder, f"{_uid(study)}/contender/{key}", f"contender-{name}", _study_run_id(study))


def seed_run(study: Study, comparison: Path, key: str, name: str, seed: int) -> RunLog:
    """The run of one fresh-seed training of a contender, whose own run must have been sent before."""
    folder = comparison / "repeats" / key / str(seed) / "run"
    parent = contender_run(study, comparison, key, name).known_run_id
    return RunLog(folder, f"{_uid(study)}/repeat/{key}/{seed}", f"{name}{SEED_SUFFIX}{seed}", parent)


def forget_lost_runs(study: Study, store: TrackingStore) -> None:
    """Let runs that MLflow does not have any more be created again, and say so.

    They were deleted in MLflow's UI, or with the whole database. Their logs are in the study's folder, so that all of
    them can be sent again.
    """
    files = [*study.folder.glob("run/run_id"), *study.folder.glob("trials/*/run/run_id"),
             *study.folder.glob("baselines/*/run_id"), *study.folder.glob("average/run/run_id"),
             *study.folder.glob("screening/*/run/run_id"),
             *study.folder.glob("comparison/*/*/run/run_id"),
             *study.folder.glob("comparison/*/*/*/run/run_id")]  # fmt: skip
    if not files:
        return
    experiments = {store.experiment_id, known_experiment(study.folder) or store.experiment_id}
    present = store.active_run_ids(sorted(experiments), f"tags.study = '{study.name}'")
    lost = [file for file in files if read_run_id(file.parent) not in present]
    for file in lost:
        file.with_name(SENT_FILE).unlink(missing_ok=True)  # before the id: a kill in between sends everything again
        file.unlink(missing_ok=True)  # another command may do the same
    if lost:
        notify(
            f"  note: MLflow has lost {plural(len(lost), 'run')} of the study {study.name} (deleted there, or with the "
            "whole store); they are sent again from the study's folder."
        )
        parent = study_run(study).ensure_run_id(store)
        for file in set(files) - set(lost):
            if file.parent != study.folder / "run" and "repeats" not in file.parts:
                store.client.set_tag(read_run_id(file.parent), "mlflow.parentRunId", parent)
        study_run(study).send_to(store, retry_now=True)
        for number in [trial.number for trial in study.trials() if not trial.is_inherited]:
            trial_run(study, number).send_to(store, retry_now=True)
        for name in study.baseline_results():
            baseline_run(study, name).send_to(store, retry_now=True)
        if (study.folder / "average" / "run").is_dir():
            average_run(study).send_to(store, retry_now=True)
        for file in [file for file in lost if file.parts[-4] == "screening"]:
            screening_run(study, int(file.parts[-3])).send_to(store, retry_now=True)
        _send_lost_contenders(study, store, lost)


def _send_lost_contenders(study: Study, store: TrackingStore, lost: Collection[Path]) -> None:
    """Send the runs of contenders among `lost` again, and make them the parents of their seed runs that are left."""
    comparison = study.folder / "comparison"
    for key in {file.parent.parent.name for file in lost if file.parent.parent.parent == comparison / "contenders"}:
        left = [read_run_id(f.parent) for f in comparison.glob(f"repeats/{key}/*/run/run_id") if f not in lost]
        if not left:  # compare sends all of them
            continue
        name = str(store.client.get_run(left[0]).info.run_name).rpartition(SEED_SUFFIX)[0]
        contender = contender_run(study, comparison, key, name)
        contender.send_to(store, retry_now=True)
        for run_id in left:
            store.client.set_tag(run_id, "mlflow.parentRunId", contender.ensure_run_id(store))


def known_experiment(study_folder: Path) -> str | None:
    """The id of the MLflow experiment that the study's runs were sent to; None if there is none yet."""
    return read_record(experiment_file(study_folder), lambda text: str(int(text)))


def experiment_file(study_folder: Path) -> Path:
    """The file with the id of the study's MLflow experiment."""
    return study_folder / "run" / "experiment_id"


def _study_run_id(study: Study) -> str:
    run_id = read_run_id(study.folder / "run")
    if run_id is None:
        raise CommandFailed(
            f"The study {study.name} has no run in MLflow on record ({study.folder / 'run' / 'run_id'}). Run its sweep "
            "again: it makes the run anew."
        )
    return run_id


def _uid(study: Study) -> str:
    return str(study.optuna_study.user_attrs["uid"])
