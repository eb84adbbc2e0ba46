"""What the contenders of a comparison predict: on validation to choose a form, and on the opened test split."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.comparison.contenders import BASELINE, Contender, SeedRun, beside_test_probabilities
from src.comparison.forms import AveragedForm
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection
from src.core.paths import atomic_write, replacing
from src.core.texts import Text, texts_of
from src.tracking import registry
from src.training import baselines, inference, label_mapping, matching, pretrained, soft_labels, weight_average
from src.training.pretrained import PROBABILITIES_FILE
from src.workers.comparison_training import train_again
from src.workers.context import WorkerContext


def has_predicted(predictor: SeedRun | AveragedForm, selection: Selection) -> bool:
    """Whether the test split was predicted, and the weights are there if they are to be registered."""
    files = [predictor.test_probabilities_path]
    if isinstance(predictor, AveragedForm):
        files.append(predictor.leave_one_out_path)
    registered = predictor.training_dir == selection.registered_training_dir
    return all(file.exists() for file in files) and (not registered or predictor.weights_dir.is_dir())


def predict_with_seed_run(context: WorkerContext, saved: SavedStudy, seed_run: SeedRun, texts: Sequence[Text]) -> None:
    """Predict the test split with a seed run; its weights are trained again if they are gone."""
    if _have_weights(context, saved, [seed_run]):
        _save_probabilities(seed_run.test_probabilities_path, _predict(context, seed_run.weights_dir, texts))


def make_average(context: WorkerContext, saved: SavedStudy, form: AveragedForm) -> bool:
    """Average the members' weights, unless that is done. Returns False if a signal has stopped it."""
    if form.weights_dir.is_dir() and form.sha256_path.exists():
        return True
    if not _have_weights(context, saved, form.members):
        return False
    folders, (answers, texts) = [m.weights_dir for m in form.members], _to_match(context, form)
    matching.average_members(folders, answers, texts, context.dataset.task, form.weights_dir, _use_cpu(context))
    atomic_write(form.sha256_path, weight_average.weights_sha256(form.weights_dir))
    return True


def judge_average(context: WorkerContext, saved: SavedStudy, form: AveragedForm) -> None:
    """Average the members' weights, and predict the validation split with the average; keep what the members say."""
    if not make_average(context, saved, form) or not _have_weights(context, saved, form.members):
        return
    texts = texts_of(context.dataset.frame("validation"))
    if not form.members_validation_path.exists():
        _save_probabilities(
            form.members_validation_path,
            np.stack([matching.answers_on_validation(m.weights_dir, texts, _use_cpu(context)) for m in form.members]),
        )
    probabilities = _predict(context, form.weights_dir, texts)
    _save_probabilities(form.weights_dir / PROBABILITIES_FILE, probabilities)
    _save_probabilities(form.validation_probabilities_path, probabilities)


def make_soft_labels(context: WorkerContext, saved: SavedStudy, selection: Selection) -> None:
    """Let the winner's seed runs answer the unlabelled texts, and write the means of their probabilities."""
    assert saved.unlabelled is not None
    texts = list(saved.unlabelled.texts)
    runs = [run for run in selection.tested_seed_runs if run.contender.name == selection.winner]
    if not _have_weights(context, saved, runs):
        return
    answers = [_predict(context, run.weights_dir, texts) for run in runs]
    temperature = selection.contenders.temperature
    kind = context.dataset.task.kind
    soft_labels.write_soft_labels(selection.soft_labels_path, texts, np.mean(answers, axis=0), temperature, kind)


def predict_with_average(context: WorkerContext, saved: SavedStudy, form: AveragedForm, texts: Sequence[Text]) -> None:
    """Predict the test split with the average, and with the averages that leave one member out."""
    if not make_average(context, saved, form):
        return
    scratch = form.folder / "without-one"
    if not form.leave_one_out_path.exists():
        if not _have_weights(context, saved, form.members):
            return
        answers, (of_members, validation) = [], _to_match(context, form)
        for i in range(len(form.members)):
            others = [m.weights_dir for m in (*form.members[:i], *form.members[i + 1 :])]
            of_others, task = np.delete(of_members, i, axis=0), context.dataset.task
            matching.average_members(others, of_others, validation, task, scratch, _use_cpu(context))
            answers.append(_predict(context, scratch, texts))
        shutil.rmtree(scratch, ignore_errors=True)
        _save_probabilities(form.leave_one_out_path, np.stack(answers))
    _save_probabilities(form.test_probabilities_path, _predict(context, form.weights_dir, texts))


def predict_with_fixed(context: WorkerContext, contender: Contender, frame: pd.DataFrame, file: Path) -> None:
    """Predict with a baseline, or with the champion as it is registered."""
    names = context.dataset.label_names
    if contender.kind == BASELINE and baselines.is_fitted(contender.name):
        train, validation = context.dataset.frame("train"), texts_of(context.dataset.frame("validation"))
        texts = [*validation, *texts_of(frame)]
        answers = baselines.predict_classic(contender.name, train, texts, names, context.settings.recipe.loss)
        _save_probabilities(beside_test_probabilities(file), answers[: len(validation)])
        _save_probabilities(file, answers[len(validation) :])
        return
    if contender.name == "ready_made":
        ready_made = label_mapping.check_ready_made(context.settings, names, context.paths.cache_dir)
        answers = label_mapping.predict_probabilities(ready_made, context.settings, names, texts_of(frame))
        _save_probabilities(file, answers)
        return
    if contender.kind == BASELINE:
        recipe = context.settings.recipe
        checkpoint = pretrained.resolve(recipe.model, context.paths.cache_dir)
        classifier = inference.untuned_classifier(
            checkpoint, recipe.model, context.dataset.task, recipe.seed, context.dataset.labels("train")
        )
    else:
        classifier = registry.load_pipeline(context.store, contender.uri)
    probabilities = inference.predict_probabilities(classifier, texts_of(frame))
    order = inference.label_names(classifier)
    _save_probabilities(file, probabilities[:, [order.index(name) for name in names]])


def _have_weights(context: WorkerContext, saved: SavedStudy, runs: Sequence[SeedRun]) -> bool:
    """Train those runs again that have lost their weights. Returns False if a signal has stopped it."""
    return all(run.weights_dir.is_dir() or train_again(context, saved, run) for run in runs)


def _to_match(context: WorkerContext, form: AveragedForm) -> tuple[np.ndarray, list[Text]]:
    """What the members say on validation, if the average is matched with them, and the texts."""
    texts = texts_of(context.dataset.frame("validation"))
    folders = [m.weights_dir for m in form.members]
    return matching.answers_of(folders, texts, context.dataset.task, _use_cpu(context)), texts


def _use_cpu(context: WorkerContext) -> bool:
    return bool(context.settings.recipe.trainer.get("use_cpu"))


def _predict(context: WorkerContext, weights: Path, texts: Sequence[Text]) -> np.ndarray:
    """Probabilities [n_texts, n_labels] of the weights in a folder."""
    return inference.predict_probabilities(inference.load_classifier(weights, _use_cpu(context)), texts)


def _save_probabilities(file: Path, answers: np.ndarray) -> None:
    with replacing(file) as scratch, scratch.open("wb") as stream:
        np.save(stream, answers.astype(np.float32))
