"""Screens the models of a study before its search, so that the search need not try them all.

Each model's default recipe is trained to the first rung on some training texts, and judged on validation. The models
that are not shown to be worse than the best one are searched, at most screening.keep of them.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from src.config import compose
from src.config.settings import Settings
from src.core import shutdown
from src.core.metric import gain
from src.core.paths import atomic_write
from src.core.record_files import read_record
from src.core.records import Evaluation, Params, ScreeningResult, State, StopDecision, nested_from_json
from src.search import screening
from src.search.sampler import SCREENED_KEY
from src.search.space import Space
from src.search.study import Study
from src.tracking import recorders, run_tree
from src.training.callbacks import Objective
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE
from src.training.trainer import stratified_subset
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.workers.context import TrackingCallback, WorkerContext, attempt_training
from src.workers.work_unit import WorkUnit

OUTCOME_FILE = "outcome.json"  # in a model's folder
POLL_SECONDS = 0.5  # between two looks at what other workers do


class ScreeningCallback(TrackingCallback):
    """A training that ends at its first evaluation, or after a signal."""

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        """Log the evaluation, and end the training."""
        super().on_evaluation(evaluation)
        return StopDecision(State.PRUNED, "a screening ends at the first rung")

    def should_stop(self, step: int) -> StopDecision | None:  # noqa: ARG002
        """After a signal."""
        return StopDecision(State.PAUSED, shutdown.REASON) if shutdown.requested() else None


def screen_models(context: WorkerContext, study: Study, overrides: Sequence[str], worker: int) -> None:
    """Screen the study's models together with its other workers, until it is known which of them are searched.

    Args:
        context: of this worker.
        study: that may need a screening.
        overrides: of the command.
        worker: the number of this worker, for the runs.
    """
    while (models := screening.models_to_screen(study)) and not shutdown.requested():
        folders = [screening.folder_of(study, place) for place in range(len(models))]
        for place, folder in enumerate(folders):
            do = partial(_screen, context, study, overrides, place, worker)
            WorkUnit(folder, partial(_has_result, folder), do).try_run()
            if shutdown.requested():
                return
        results = [_result_in(folder) for folder in folders]
        if all(results):
            _choose(context, study, overrides, [r for r in results if r], folders)
        else:
            time.sleep(POLL_SECONDS)


def choose_models(
    labels: np.ndarray,
    results: Sequence[ScreeningResult],
    probabilities: Sequence[np.ndarray],
    objective: Objective,
    keep: int,
) -> list[int]:
    """Which models are searched, the best first: those that are not shown to be worse than the best one.

    Args:
        labels: of the validation split, [n_examples].
        results: of the models.
        probabilities: of each model on validation, [n_examples, n_labels]; only those with a score are used.
        objective: the metric and its direction.
        keep: so many at most.
    """
    scored = [i for i, r in enumerate(results) if r.result.score is not None]
    if not scored:
        return list(range(len(results)))[:keep]
    ranked = sorted(scored, key=lambda i: -gain(results[i].result.score or 0.0, objective.direction))
    answers = {str(i): Predictions(probabilities[i][None]) for i in scored}
    bootstrap = PairedBootstrap(labels, answers, metric=objective.metric)
    best = str(ranked[0])

    def is_shown_worse(i: int) -> bool:
        difference = bootstrap.difference(str(i), best, objective.metric)
        return max(gain(difference.low, objective.direction), gain(difference.high, objective.direction)) < 0

    return [i for i in ranked if str(i) == best or not is_shown_worse(i)][:keep]


def _has_result(folder: Path) -> bool:
    return _result_in(folder) is not None


def _result_in(folder: Path) -> ScreeningResult | None:
    return read_record(folder / OUTCOME_FILE, partial(nested_from_json, ScreeningResult))


def _screen(context: WorkerContext, study: Study, overrides: Sequence[str], place: int, worker: int) -> None:
    """Train one model's default recipe to the first rung, judge it, and record it."""
    folder, run = screening.folder_of(study, place), run_tree.screening_run(study, place)
    model = screening.searched_models(study)[place]
    settings = compose.compose_trial(overrides, {SCREENED_KEY: model})
    run.set_tags({**recorders.common_tags(context.dataset, study.name), "kind": "screening", "worker": worker})
    run.set_status(State.RUNNING)
    if not run.has_params:
        recorders.record_training_config(run, settings, [SCREENED_KEY], settings.overrides)
    run.send_to(context.store)
    examples, first = settings.screening.examples, min(settings.study.rungs)
    objective = replace(context.objective, rungs=(first,), rung_examples=None, train_examples=examples)
    training = folder / "training"
    result = attempt_training(settings.recipe, context, ScreeningCallback(run, context.store), training, objective)
    recorders.record_result(run, result)
    if result.state == State.PAUSED:
        run.send_to(context.store)
        return
    judged = ScreeningResult(model, result, probe=_probe(context, settings, examples))
    file = training / BEST_DIR / PROBABILITIES_FILE
    if result.score is not None:
        np.save(folder / PROBABILITIES_FILE, np.load(file))
        answers, metric = {"model": Predictions(np.load(file)[None])}, settings.study.metric
        bootstrap = PairedBootstrap(context.dataset.labels("validation"), answers, metric=metric)
        interval = bootstrap.estimate("model", metric)
        judged = replace(judged, low=interval.low, high=interval.high)
    recorders.record_screening(run, judged)
    atomic_write(folder / OUTCOME_FILE, judged.to_json())
    shutil.rmtree(training, ignore_errors=True)
    run.send_to(context.store)


def _probe(context: WorkerContext, settings: Settings, examples: int) -> float | None:
    """The score of a linear probe; None if it cannot be computed, since it is for information only."""
    from src.training import linear_probe

    with suppress(Exception):
        checkpoint, data = context.tokenized_data(settings.recipe.model)
        data = replace(data, train=stratified_subset(data.train, examples, "screening.examples"))
        return linear_probe.evaluate_probe(settings.recipe, checkpoint, data, settings.study.metric)
    return None


def _choose(
    context: WorkerContext, study: Study, overrides: Sequence[str], results: list[ScreeningResult], folders: list[Path]
) -> None:
    """Choose the models that are searched, and store that in the study. Every worker comes to the same choice."""
    keep = study.settings.screening.keep or len(results)
    files = [folder / PROBABILITIES_FILE for folder in folders]
    probabilities = [np.load(file) if file.exists() else np.zeros(0) for file in files]
    chosen = choose_models(context.dataset.labels("validation"), results, probabilities, context.objective, keep)
    for i in range(len(folders)):
        run = run_tree.screening_run(study, i)
        run.set_tags({"screening.kept": str(i in chosen).lower()})
        run.send_to(context.store)
    marked = [replace(result, kept=i in chosen) for i, result in enumerate(results)]
    screening.write_results(study.folder, marked)
    kept = {}
    for i in chosen:
        settings = compose.compose_trial(overrides, {SCREENED_KEY: results[i].model})
        kept[results[i].model] = _own_recipe(study.space, settings)
    screening.keep_models(study, kept)


def _own_recipe(space: Space, settings: Settings) -> Params:
    """The default recipe of a model as a point of the space, without values that lie outside of it."""
    values = settings.flatten()
    params: Params = {}
    for parameter in space.parameters:
        active = parameter in space.active_parameters(params)
        if active and parameter.key in values and parameter.contains(values[parameter.key]):
            params[parameter.key] = values[parameter.key]
    return params
