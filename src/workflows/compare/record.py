"""Records a verdict in MLflow, keeps the weights that it registers, and deletes the others."""

import shutil
from pathlib import Path

from src.comparison import contenders, forms
from src.comparison.contenders import DEFAULT, TRAINING_DIR, TUNED
from src.comparison.saved_study import SavedStudy
from src.console.output import StudyConsole
from src.core.paths import atomic_write
from src.core.record_files import read_record
from src.core.records import State, TrainingResult
from src.core.task import threshold_text
from src.tracking import recorders, run_tree
from src.tracking.run_log import RunLog, read_run_id
from src.tracking.store import TrackingStore
from src.verdict.records import AVERAGE, SINGLE, ContenderRecord, Verdict

DELETED_DIR = "gone"  # a training's folder is renamed to this before it is deleted
RECORDED_FILE = "recorded"  # when the verdict was made that MLflow has


def is_recorded(saved: SavedStudy, verdict: Verdict) -> bool:
    """Whether MLflow has all of this verdict, as far as is known here: lost runs must have been forgotten before."""
    folder = saved.comparison_dir
    logs = [
        log
        for contender in verdict.contenders
        for log in (folder / "contenders" / contender.key / "run", *folder.glob(f"repeats/{contender.key}/*/run"))
    ]
    return read_record(folder / RECORDED_FILE, str) == verdict.made and all(read_run_id(log) for log in logs)


def registered_name(verdict: Verdict) -> str:
    """Names the weights that a verdict registers: the study, the winner's recipe and form, the seed or seeds."""
    winner = verdict.contender(verdict.winner)
    seeds = [winner.registered_seed] if winner.form == SINGLE else verdict.seeds
    decided = "" if winner.threshold is None else f"/{threshold_text(winner.threshold)}"
    form = "" if verdict.merge else "/adapter"
    return f"{verdict.uid}/{winner.key}/{'-'.join(map(str, seeds))}{decided}{form}"


def registered_training_dir(verdict: Verdict, folder: Path) -> Path:
    """The folder of the weights that a verdict registers, in the comparison's `folder`, laid out as a training's."""
    winner = verdict.contender(verdict.winner)
    return forms.registered_training_dir(winner.key, winner.form, winner.registered_seed, verdict.seeds, folder)


def registered_run(saved: SavedStudy, verdict: Verdict) -> RunLog:
    """The run of the weights that a verdict registers: of the median seed run, or of the average."""
    winner, folder = verdict.contender(verdict.winner), saved.comparison_dir
    if winner.form != SINGLE:
        return run_tree.contender_run(saved.study, folder, winner.key, winner.name)
    return run_tree.seed_run(saved.study, folder, winner.key, winner.name, winner.registered_seed or 0)


def record_verdict(saved: SavedStudy, verdict: Verdict, store: TrackingStore, console: StudyConsole) -> None:
    """Write everything to the MLflow runs, then delete the weights that are not registered."""
    problems: list[str | None] = []
    for row in verdict.contenders:
        run = run_tree.contender_run(saved.study, saved.comparison_dir, row.key, row.name)
        run.log_params(row.params)
        recorders.record_contender(run, row, verdict)
        seeds = verdict.seeds if row.kind in (DEFAULT, TUNED) and row.form != AVERAGE else ()
        problems += [_record_seed_run(saved, row, seed, store) for seed in seeds]
        run.set_status(State.FAIL if row.problem else State.COMPLETE)
        run.send_to(store, retry_now=True)
        problems.append(run.problem)
    study = run_tree.study_run(saved.study)
    recorders.record_verdict(study, verdict)
    study.send_to(store, retry_now=True)
    delete_other_weights(saved, verdict)
    if waiting := next((p for p in [*problems, study.problem] if p), None):
        console.print(f"  note: records wait in {saved.comparison_dir} ({waiting}); the same command delivers them.")
    else:
        atomic_write(saved.comparison_dir / RECORDED_FILE, verdict.made)


def delete_other_weights(saved: SavedStudy, verdict: Verdict) -> None:
    """Delete all weights but those to register, of earlier verdicts, too. Their predictions and records stay."""
    kept = registered_training_dir(verdict, saved.comparison_dir)
    for folder in (*saved.comparison_dir.glob("repeats/*/*"), *saved.comparison_dir.glob("averages/*/*")):
        if folder / TRAINING_DIR != kept and (folder / TRAINING_DIR).exists():
            (folder / TRAINING_DIR).rename(folder / DELETED_DIR)
        shutil.rmtree(folder / DELETED_DIR, ignore_errors=True)


def _record_seed_run(saved: SavedStudy, row: ContenderRecord, seed: int, store: TrackingStore) -> str | None:
    """Write the test metrics of one seed run, and its end if a killed worker could not write it."""
    folder = contenders.seed_run_dir(row.key, seed, saved.comparison_dir)
    run = run_tree.seed_run(saved.study, saved.comparison_dir, row.key, row.name, seed)
    result = read_record(folder / "outcome.json", TrainingResult.from_json)
    if result is None:
        return f"{folder / 'outcome.json'} is damaged"
    if not run.has_ended:
        recorders.record_result(run, result)
    test = next((r.test for r in row.repeats if r.seed == seed), {})
    run.log_metrics(result.steps or 0, {f"test/{name}": value for name, value in test.items()})
    run.send_to(store, retry_now=True)
    return run.problem
