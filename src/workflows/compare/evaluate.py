"""The verdict: computed from the predictions on the test split, and written to records, MLflow and the terminal."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from src.comparison import contenders
from src.comparison.contenders import DEFAULT, TRAINING_DIR, TUNED, Contender, SeedRun
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection, is_complete, scores
from src.console import data_summary
from src.console.output import Column, StudyConsole
from src.core.metric import gain
from src.core.paths import atomic_write
from src.core.record_files import read_record, without_schema, write_json
from src.core.records import State, TrainingResult
from src.data import test_split
from src.data.dataset import PreparedDataset
from src.reports.error_analysis import ErrorAnalysis, analyze_errors
from src.tracking import recorders, run_tree
from src.tracking.run_log import read_run_id
from src.tracking.store import TrackingStore
from src.verdict import decision, estimates, tables
from src.verdict.records import VERDICT_FILE, ContenderRecord, SeedRunRecord, Verdict, load_verdict

ANALYSIS_FILE = "analysis.json"
DELETED_DIR = "gone"  # a training's folder is renamed to this before it is deleted
RARE_EXAMPLES = 30  # test examples of a label below which the verdict says that they are few
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
    """Names the training that a verdict registers: the study, the winner's recipe, the seed."""
    winner = verdict.contender(verdict.winner)
    return f"{verdict.uid}/{winner.key}/{winner.registered_seed}"


def all_answered(selection: Selection) -> bool:
    """Whether every seed run that the test split was opened for has predicted it, and there are weights to register."""
    files = [r.test_probabilities_path for r in selection.tested_seed_runs] + [
        contenders.fixed_probabilities_path(c, selection.folder) for c in selection.without_training
    ]
    return all(f.exists() for f in files) and selection.registered_seed_run.weights_dir.is_dir()


def evaluate(saved: SavedStudy, selection: Selection, margin: float, registry: str) -> Verdict:
    """Compute the verdict from the predictions and labels of the opened test split, and write it to disk.

    Args:
        saved: the study.
        selection: the winner, and the seed runs that have predicted the test split.
        margin: of the metric, which a difference must exceed.
        registry: name of the registered model.
    """
    comparison, rules = selection.contenders, saved.settings.study
    ledger = saved.paths.test_openings_path(saved.dataset.fingerprints["test"])
    frame = test_split.read_test_split(saved.dataset, ledger, test_split.SplitOpening(selection.opening, selection.key))
    labels = frame["label"].to_numpy()
    answers = {name: np.stack(each) for name, each in _probabilities(selection).items()}
    draws = decision.draw_bootstrap(labels, answers)
    rows = [_contender_record(saved, selection, c, labels, answers.get(c.name)) for c in comparison.contenders]
    n_labels = len(saved.dataset.label_names)
    rows = [
        replace(row, test=decision.intervals(draws, row.name, n_labels)) if row.name in answers else row for row in rows
    ]
    others = tuple(name for name in answers if name != selection.winner)
    question = decision.Hypothesis(selection.winner, others, rules.metric, margin, len(comparison.candidates))
    registered = {row.name: answers[row.name][_registered_index(row)] for row in rows if row.name in answers}
    before = load_verdict(selection.folder)
    verdict = Verdict(
        number=before.number + 1 if before else 1,
        study=saved.name,
        uid=saved.uid,
        key=comparison.key_without_champion,
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        data=saved.dataset.name,
        fingerprints=dict(saved.dataset.fingerprints),
        registry=registry,
        metric=rules.metric,
        direction=saved.study.direction,
        margin=margin,
        seeds=comparison.seeds,
        test_examples=len(labels),
        chosen_among=len(comparison.candidates),
        contenders=tuple(rows),
        winner=selection.winner,
        best_baseline=selection.best_baseline,
        against=decision.compare_with_others(draws, question, labels, registered),
        opening=selection.opening,
        openings=len(test_split.opening_keys(ledger)),
        champion=comparison.champion.version if comparison.champion else None,
        champion_key=comparison.champion.key if comparison.champion else "",
        notes=comparison.notes,
        not_judged=comparison.not_judged,
        limits=tuple(data_limits(saved.dataset, rules.metric)),
    )
    baseline = answers[selection.best_baseline][0] if selection.best_baseline else None
    # data that the analysis does not expect: a verdict without an analysis is better than none
    with suppress(Exception):
        errors = analyze_errors("test", frame, registered[selection.winner], saved.dataset.label_names, baseline)
        write_json(selection.folder / ANALYSIS_FILE, {"made": verdict.made, "analysis": asdict(errors)})
    atomic_write(selection.folder / VERDICT_FILE, verdict.to_json())
    return verdict


def data_limits(dataset: PreparedDataset, metric: str) -> list[str]:
    """What the data cannot show, in words: labels with few or no test examples, rows that were dropped."""
    counts, limits = dataset.label_counts, []
    tested = dict(zip(dataset.label_names, counts.get("test", []), strict=False))
    trained = dict(zip(dataset.label_names, counts.get("train", []), strict=False))
    if none := [name for name, n in tested.items() if n == 0]:
        limits.append(f"No test example has the {_labels(none)}: nothing is said of it")
    if rare := [f"{name} ({n})" for name, n in tested.items() if 0 < n < RARE_EXAMPLES]:
        limits.append(f"Few test examples have the {_labels(rare)}: what {metric} says of it rests on those few")
    if untrained := [name for name, n in trained.items() if n == 0 and tested.get(name)]:
        limits.append(f"No training text has the {_labels(untrained)}")
    if dropped := data_summary.not_used(dataset):
        limits.append(f"Of the rows read, these are in no split: {dropped}")
    return limits


def _labels(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    return f"{'label' if len(names) == 1 else 'labels'} {shown}"


def test_errors(folder: Path, verdict: Verdict) -> ErrorAnalysis | None:
    """The error analysis of the weights to register, on the test split, as it was made with this verdict."""

    def parse(text: str) -> ErrorAnalysis | None:
        stored = without_schema(json.loads(text))
        ours = stored["made"] == verdict.made
        return TypeAdapter(ErrorAnalysis).validate_python(stored["analysis"]) if ours else None

    return read_record(folder / ANALYSIS_FILE, parse)


def record_verdict(saved: SavedStudy, verdict: Verdict, store: TrackingStore, console: StudyConsole) -> None:
    """Write everything to the MLflow runs, then delete the weights that are not registered."""
    problems: list[str | None] = []
    for row in verdict.contenders:
        run = run_tree.contender_run(saved.study, saved.comparison_dir, row.key, row.name)
        run.log_params(row.params)
        recorders.record_contender(run, row, verdict)
        seeds = verdict.seeds if row.kind in (DEFAULT, TUNED) else ()
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
    """Delete the weights of all seed runs but the one to register. Their predictions and records stay."""
    winner = verdict.contender(verdict.winner)
    kept = contenders.seed_run_dir(winner.key, winner.registered_seed or 0, saved.comparison_dir)
    for row in verdict.contenders:
        for seed in verdict.seeds:
            folder = contenders.seed_run_dir(row.key, seed, saved.comparison_dir)
            if folder != kept and (folder / TRAINING_DIR).exists():
                (folder / TRAINING_DIR).rename(folder / DELETED_DIR)
            shutil.rmtree(folder / DELETED_DIR, ignore_errors=True)


def print_verdict(verdict: Verdict, console: StudyConsole) -> None:
    """Print the tables, the verdict, and the command to type next."""
    for names, rows in tables.all_tables(verdict):
        console.print()
        console.table(
            [Column(n, right=i > 0 and n != "settings", wrap=n == "settings") for i, n in enumerate(names)], rows
        )
    console.print()
    for sentence in tables.sentences(verdict):
        console.print(sentence)
    console.print(f"\nNext: python -m src.promote study.name={verdict.study}")


def _probabilities(selection: Selection) -> Mapping[str, list[np.ndarray]]:
    """Predicted probabilities by contender, one array per seed run, in the order of the contenders."""
    probabilities: dict[str, list[np.ndarray]] = {}
    tested = {(r.contender.name, r.seed): r for r in selection.tested_seed_runs}
    for contender in selection.contenders.contenders:
        if not contender.is_recipe:
            probabilities[contender.name] = [np.load(contenders.fixed_probabilities_path(contender, selection.folder))]
            continue
        predicted = [tested[contender.name, s] for s in selection.contenders.seeds if (contender.name, s) in tested]
        if predicted:
            probabilities[contender.name] = [np.load(seed_run.test_probabilities_path) for seed_run in predicted]
    return probabilities


def _contender_record(
    saved: SavedStudy, selection: Selection, contender: Contender, labels: np.ndarray, answers: np.ndarray | None
) -> ContenderRecord:
    comparison, keys = selection.contenders, [p.key for p in saved.study.space.parameters]
    if not contender.is_recipe:
        result = saved.study.baseline_results().get(contender.name, TrainingResult(State.COMPLETE))
        return ContenderRecord(
            contender.name, contender.kind, contender.key, contender.about, params={}, search_score=None,
            validation=result.score, spread=None, optimism=None, registered_seed=None, repeats=(), test={},
            megabytes=result.megabytes, ms_per_1000_texts=result.ms_per_1000_texts,
        )  # fmt: skip
    done = [contenders.seed_run(contender, seed, selection.folder) for seed in comparison.seeds]
    done = [r for r in done if is_complete(r.result())]
    validation_scores = scores(contender, comparison, selection.folder)
    points = None if answers is None else estimates.metrics_per_seed(labels, answers)
    test = [None if points is None else {m: float(v[i]) for m, v in points.items()} for i in range(len(done))]
    repeats = tuple(_seed_run_record(saved, seed_run, metrics) for seed_run, metrics in zip(done, test, strict=True))
    failed = len(comparison.seeds) - len(done)
    mean = float(np.mean(validation_scores)) if validation_scores else None
    searched = contender.search_score
    median = decision.median_index(validation_scores) if done else 0
    registered = done[median].result() if done else None
    return ContenderRecord(
        name=contender.name,
        kind=contender.kind,
        key=contender.key,
        about=contender.about,
        params=contenders.params_of(contender, keys),
        search_score=searched,
        validation=mean,
        spread=float(np.std(validation_scores, ddof=1)) if len(validation_scores) > 1 else None,
        optimism=None if searched is None or mean is None else gain(searched - mean, saved.study.direction),
        registered_seed=done[median].seed if done else None,
        repeats=repeats,
        test={},
        megabytes=registered.megabytes if registered else None,
        ms_per_1000_texts=registered.ms_per_1000_texts if registered else None,
        problem=f"{failed} of {len(comparison.seeds)} seeds failed" if failed else None,
    )


def _registered_index(row: ContenderRecord) -> int:
    """The index of the seed run that would be registered: the only one, if the contender has no seeds."""
    return next((i for i, r in enumerate(row.repeats) if r.seed == row.registered_seed), 0)


def _seed_run_record(saved: SavedStudy, seed_run: SeedRun, test: dict[str, float] | None) -> SeedRunRecord:
    result = seed_run.result()
    assert result is not None
    run = run_tree.seed_run(
        saved.study, saved.comparison_dir, seed_run.contender.key, seed_run.contender.name, seed_run.seed
    )
    return SeedRunRecord(seed_run.seed, run.known_run_id, dict(result.metrics), test or {}, result.seconds)


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
