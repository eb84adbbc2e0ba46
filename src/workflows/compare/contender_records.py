"""What a verdict says of each contender, apart from the intervals: trainings, validation scores, cost."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from src.comparison import contenders
from src.comparison.contenders import Contender, SeedRun
from src.comparison.forms import AveragedForm
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection, is_complete, scores
from src.core.metric import gain
from src.core.record_files import read_record
from src.core.records import State, TrainingResult
from src.tracking import run_tree
from src.verdict import decision, estimates
from src.verdict.bootstrap import Predictions
from src.verdict.records import AVERAGE, ContenderRecord, SeedRunRecord


def contender_records(
    saved: SavedStudy, selection: Selection, labels: np.ndarray, answers: Mapping[str, Predictions]
) -> list[ContenderRecord]:
    """The records of all contenders, the forms of a recipe after it. Intervals on the test split are not in them yet.

    Args:
        saved: the study.
        selection: the winner, and what has predicted the test split.
        labels: of the test split, [n_examples].
        answers: predictions on it, by contender.
    """
    rows = []
    for contender in selection.contenders.contenders:
        predicted = answers.get(contender.name)
        row = _contender_record(saved, selection, contender, labels, predicted.probabilities if predicted else None)
        of_recipe = [form for form in selection.averaged_forms if form.contender.recipe_key == contender.key]
        rows += [row, *(_form_record(saved, row, form) for form in of_recipe)]
    return rows


def _form_record(saved: SavedStudy, recipe: ContenderRecord, form: AveragedForm) -> ContenderRecord:
    """The record of an average. Its size and speed are those of the recipe's trainings, which are as large."""
    contender = form.contender
    run = run_tree.contender_run(saved.study, saved.comparison_dir, contender.key, contender.name)
    trained = () if contender.form == AVERAGE else form.members
    return replace(
        recipe,
        name=contender.name,
        key=contender.key,
        form=contender.form,
        recipe=recipe.name,
        run_id=run.known_run_id,
        sha256=read_record(form.sha256_path, str),
        search_score=None,
        validation=_validation_score(saved, form),
        spread=None,
        optimism=None,
        registered_seed=None,
        repeats=tuple(_seed_run_record(saved, member, None) for member in trained),
    )


def _validation_score(saved: SavedStudy, form: AveragedForm) -> float | None:
    """The average's score on validation; None for a refit or a student, which may be trained on it."""
    if not form.validation_probabilities_path.exists():
        return None
    labels = saved.dataset.labels("validation")
    probabilities, metric = np.load(form.validation_probabilities_path), saved.settings.study.metric
    return float(estimates.metrics_per_seed(labels, probabilities[None], metric)[metric][0])


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
    metric = saved.settings.study.metric
    points = None if answers is None else estimates.metrics_per_seed(labels, answers, metric)
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


def registered_index(row: ContenderRecord) -> int:
    """The index of the seed run that would be registered: the only one, if the contender has no seeds."""
    return next((i for i, r in enumerate(row.repeats) if r.seed == row.registered_seed), 0)


def _seed_run_record(saved: SavedStudy, seed_run: SeedRun, test: dict[str, float] | None) -> SeedRunRecord:
    result = seed_run.result()
    assert result is not None
    run = run_tree.seed_run(
        saved.study, saved.comparison_dir, seed_run.contender.key, seed_run.contender.name, seed_run.seed
    )
    return SeedRunRecord(seed_run.seed, run.known_run_id, dict(result.metrics), test or {}, result.seconds)
