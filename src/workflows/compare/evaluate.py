"""The verdict: computed from the predictions on the test split, and written to records, MLflow and the terminal."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from src.comparison import contenders
from src.comparison.contenders import DEFAULT, TUNED
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection
from src.console import data_summary
from src.console.output import Column, StudyConsole
from src.core.paths import atomic_write
from src.core.record_files import read_record, without_schema, write_json
from src.core.task import Threshold, has_several, labels_of
from src.data import test_split
from src.data.dataset import PreparedDataset
from src.reports.error_analysis import ErrorAnalysis, analyze_errors
from src.training.pretrained import BEST_DIR
from src.verdict import decision, tables, threshold
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.records import (
    AVERAGE,
    VERDICT_FILE,
    ContenderRecord,
    PairwiseResult,
    Verdict,
    load_verdict,
)
from src.workflows.compare import contender_records

ANALYSIS_FILE = "analysis.json"
DEFAULT_NAME = "default"  # of the default recipe, trained once
RARE_EXAMPLES = 30  # test examples of a label below which the verdict says that they are few


def all_answered(selection: Selection) -> bool:
    """Whether everything that the test split was opened for has predicted it, and there are weights to register."""
    files = [r.test_probabilities_path for r in selection.tested_seed_runs] + [
        contenders.fixed_probabilities_path(c, selection.folder) for c in selection.without_training
    ]
    for form in selection.averaged_forms:
        files += [form.test_probabilities_path, form.leave_one_out_path]
    return all(f.exists() for f in files) and (selection.registered_training_dir / BEST_DIR).is_dir()


def evaluate(saved: SavedStudy, selection: Selection, margin: float, registry: str) -> Verdict:
    """Compute the verdict from the predictions and labels of the opened test split, and write it to disk.

    Args:
        saved: the study.
        selection: the winner, and what has predicted the test split.
        margin: of the metric, which a difference must exceed.
        registry: name of the registered model.
    """
    comparison, rules = selection.contenders, saved.settings.study
    ledger = saved.paths.test_openings_path(saved.dataset.fingerprints["test"])
    frame = test_split.read_test_split(saved.dataset, ledger, test_split.SplitOpening(selection.opening, selection.key))
    labels = labels_of(frame)
    thresholds = {**selection.thresholds, **_baseline_thresholds(saved, selection)}
    answers = {
        name: _decided(p, thresholds.get(name), has_several(labels)) for name, p in _predictions(selection).items()
    }
    draws = PairedBootstrap(labels, answers, metric=rules.metric)
    rows = contender_records.contender_records(saved, selection, labels, answers)
    registered = {
        row.name: answers[row.name].probabilities[contender_records.registered_index(row)]
        for row in rows
        if row.name in answers
    }
    question = decision.Hypothesis(selection.delivered, (), rules.metric, margin, len(comparison.candidates))
    rows = [
        replace(
            row,
            test=decision.intervals(draws, row.name),
            over_default=_over_default(draws, row, question, labels, registered),
            threshold=thresholds.get(row.name),
        )
        if row.name in answers
        else row
        for row in rows
    ]
    question = replace(question, others=tuple(name for name in answers if name != selection.delivered))
    before = load_verdict(selection.folder)
    verdict = Verdict(
        number=before.number + 1 if before else 1,
        study=saved.name,
        uid=saved.uid,
        key=comparison.key_without_champion,
        made=datetime.now().astimezone().isoformat(timespec="milliseconds"),  # tells a verdict from the one before
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
        winner=selection.delivered,
        best_baseline=selection.best_baseline,
        against=decision.compare_with_others(draws, question, labels, registered),
        opening=selection.opening,
        openings=len(test_split.opening_keys(ledger)),
        champion=comparison.champion.version if comparison.champion else None,
        champion_key=comparison.champion.key if comparison.champion else "",
        notes=comparison.notes,
        not_judged=comparison.not_judged,
        limits=tuple(data_limits(saved.dataset, rules.metric)),
        form_reason=selection.form_reason,
        task=saved.dataset.task.kind,
        pick=comparison.pick,
        merge=comparison.merge,
    )
    baseline = answers[selection.best_baseline].probabilities[0] if selection.best_baseline else None
    # data that the analysis does not expect: a verdict without an analysis is better than none
    with suppress(Exception):
        of_winner = registered[verdict.winner], saved.dataset.label_names, baseline, answers[verdict.winner]
        errors = analyze_errors("test", frame, *of_winner)
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


def print_verdict(verdict: Verdict, errors: ErrorAnalysis | None, console: StudyConsole) -> None:
    """Print the tables, the verdict, and the command to type next.

    Args:
        verdict: to print.
        errors: on the test split, of the weights to register, if they were analysed.
        console: to print on.
    """
    of_labels = [tables.per_label_table(errors.per_label)] if errors and errors.per_label else []
    for names, rows in [*tables.all_tables(verdict), *of_labels]:
        console.print()
        console.table(
            [Column(n, right=i > 0 and n != "settings", wrap=n == "settings") for i, n in enumerate(names)], rows
        )
    console.print()
    for sentence in tables.sentences(verdict):
        console.print(sentence)
    console.print(f"\nNext: python -m src.promote study.name={verdict.study}")


def _predictions(selection: Selection) -> Mapping[str, Predictions]:
    """What each contender predicts on the test split, in the order of the contenders; the averages come last."""
    predictions: dict[str, Predictions] = {}
    tested = [recipe.name for recipe in selection.tested_recipes]
    for contender in selection.contenders.contenders:
        if contender.name in tested:
            runs = [r for r in selection.tested_seed_runs if r.contender.name == contender.name]
            answers = np.stack([np.load(r.test_probabilities_path) for r in runs])
            predictions[contender.name] = Predictions(answers, trainings=contender.key)
        elif not contender.is_recipe:
            file = contenders.fixed_probabilities_path(contender, selection.folder)
            predictions[contender.name] = Predictions(np.load(file)[None])
    for form in selection.averaged_forms:
        average = np.load(form.test_probabilities_path)[None]
        of_seed_runs = form.contender.form == AVERAGE  # whose trainings are those of the recipe's seed runs
        key = form.contender.recipe_key if of_seed_runs else form.contender.key
        predictions[form.contender.name] = Predictions(average, np.load(form.leave_one_out_path), trainings=key)
    return predictions


def _baseline_thresholds(saved: SavedStudy, selection: Selection) -> dict[str, Threshold]:
    """The thresholds of the baselines that were fitted, by their answers on validation."""
    if not selection.contenders.has_thresholds:
        return {}
    labels, metric = saved.dataset.labels("validation"), saved.settings.study.metric
    files = {c.name: contenders.fixed_validation_path(c, selection.folder) for c in selection.without_training}
    return {
        name: threshold.choose_threshold(labels, np.load(file)[None], metric, selection.contenders.thresholds_per_label)
        for name, file in files.items()
        if file.exists()
    }


def _decided(predictions: Predictions, chosen: Threshold | None, several: bool) -> Predictions:
    """The predictions of a model that has this threshold in it."""
    without_one = predictions.leave_one_out
    return replace(
        predictions,
        probabilities=threshold.with_threshold(predictions.probabilities, chosen, several),
        leave_one_out=None if without_one is None else threshold.with_threshold(without_one, chosen, several),
    )


def _over_default(
    draws: PairedBootstrap,
    row: ContenderRecord,
    question: decision.Hypothesis,
    labels: np.ndarray,
    registered: Mapping[str, np.ndarray],
) -> PairwiseResult | None:
    """A recipe's form against the default recipe trained once; None for others, and if the default recipe failed."""
    if row.kind not in (DEFAULT, TUNED) or row.name == DEFAULT_NAME or DEFAULT_NAME not in registered:
        return None
    asked = replace(question, winner=row.name, others=(DEFAULT_NAME,))
    return decision.compare_with_others(draws, asked, labels, registered)[0]
