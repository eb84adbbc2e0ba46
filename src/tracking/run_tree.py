"""Every MLflow run of a study: its folder, its lasting key, and its parent.

study -> trials, baselines, contenders; contender -> its fresh-seed trainings.
"""

from pathlib import Path

from src.search.study import Study
from src.tracking.run_log import RunLog


def study_run(study: Study) -> RunLog:
    """The study's run, the parent of the runs of its trials, baselines and contenders."""
    return RunLog(study.folder / "run", f"{_uid(study)}/study", study.name)


def trial_run(study: Study, number: int) -> RunLog:
    """The run of trial `number`, a child of the study's run."""
    return RunLog(
        study.trial_folder(number) / "run", f"{_uid(study)}/trial/{number}", f"trial-{number:04d}", _study_run_id(study)
    )


def baseline_run(study: Study, name: str) -> RunLog:
    """The run of a baseline, a child of the study's run."""
    return RunLog(
        study.folder / "baselines" / name, f"{_uid(study)}/baseline/{name}", f"baseline-{name}", _study_run_id(study)
    )


def contender_run(study: Study, comparison: Path, key: str, name: str) -> RunLog:
    """The run of a contender of a comparison; its fresh-seed trainings are children of it."""
    folder = comparison / "contenders" / key / "run"
    return RunLog(folder, f"{_uid(study)}/contender/{key}", f"contender-{name}", _study_run_id(study))


def seed_run(study: Study, comparison: Path, key: str, name: str, seed: int) -> RunLog:
    """The run of one fresh-seed training of a contender, whose own run must have been sent before."""
    folder = comparison / "repeats" / key / str(seed) / "run"
    parent = contender_run(study, comparison, key, name).known_run_id
    return RunLog(folder, f"{_uid(study)}/repeat/{key}/{seed}", f"{name}-seed-{seed}", parent)


def experiment_file(study_folder: Path) -> Path:
    """The file with the id of the study's MLflow experiment."""
    return study_folder / "run" / "experiment_id"


def _study_run_id(study: Study) -> str:
    return (study.folder / "run" / "run_id").read_text()


def _uid(study: Study) -> str:
    return str(study.optuna_study.user_attrs["uid"])
