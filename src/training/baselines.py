"""Baselines on the same validation split: majority class, TF-IDF with logistic regression, untuned models.

Of numbers they are the mean, and TF-IDF with ridge regression.
"""

import io
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.config.settings import LossSettings, Recipe, Settings
from src.core import own_code
from src.core.records import State, TrainingResult
from src.core.task import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    are_numbers,
    has_several,
    kind_of,
    labels_of,
    present,
)
from src.core.texts import Text, joined, texts_of
from src.training import class_weights, devices, label_mapping, metrics
from src.training.callbacks import Objective
from src.training.classifier_trainer import TokenizedData
from src.training.own_baseline import OwnClassifier
from src.training.pretrained import PretrainedModel
from src.training.trainer import evaluate_untrained

Classifier = Any  # predict_proba(texts) -> [n_examples, n_labels], classes_
# the choice between words and characters is made on a part of train, or it would cost more than the baseline itself
CHOICE_TEXTS, CHOICE_CHARACTERS, CHOICE_FOLDS = 2000, 1000, 3
ANALYZERS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (1, 5), "max_features": 2**18},
}


def fit_majority(texts: Sequence[Text], labels: np.ndarray, _weights: np.ndarray | None = None) -> Classifier:
    """Always the labels' frequencies in train, whatever they weigh."""
    from sklearn.dummy import DummyClassifier

    if has_several(labels):
        return _Frequencies(labels.mean(axis=0))
    return DummyClassifier(strategy="prior").fit(texts, labels)


class _Frequencies:
    """Gives every text the same probabilities."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities, self.classes_ = probabilities, np.arange(len(probabilities))

    def predict_proba(self, texts: Sequence[Text]) -> np.ndarray:
        """The probabilities, [n_texts, n_labels]."""
        return np.tile(self.probabilities, (len(texts), 1))


def fit_mean(texts: Sequence[Text], numbers: np.ndarray, _weights: np.ndarray | None = None) -> Classifier:
    """Always the mean of the numbers in train."""
    from sklearn.dummy import DummyRegressor

    return DummyRegressor(strategy="mean").fit(texts, numbers)


def fit_tfidf(texts: Sequence[Text], labels: np.ndarray, weights: np.ndarray | None = None) -> Classifier:
    """TF-IDF (sublinear) of words and word pairs or of 1 to 5 characters, then a linear model with L2.

    The model is a logistic regression with C=10; of numbers a ridge regression with alpha=1. Cross-validation on train
    decides between words and characters, which suit scripts without blanks, and typing errors. For pairs see
    pair_features.
    """
    return _tfidf(choose_analyzer(texts, labels), _are_pairs(texts), kind_of(labels), weights).fit(texts, labels)


def choose_analyzer(texts: Sequence[Text], labels: np.ndarray) -> str:
    """The key of ANALYZERS with the higher accuracy (or R2) in cross-validation on at most CHOICE_TEXTS texts of train.

    Words, where both are as good or there are too few texts to tell; characters, where there are no words.
    """
    from sklearn.model_selection import KFold, cross_val_score

    kind_of_task = kind_of(labels)
    sample = pd.Series([_beginning(text) for text in texts], dtype=object)
    if len(sample) > CHOICE_TEXTS:
        sample = sample.sample(CHOICE_TEXTS, random_state=0)
    answers = labels[sample.index]
    if not _has_words(texts):
        return "characters"
    few = kind_of_task == SINGLE_LABEL and np.bincount(answers).max() < CHOICE_FOLDS
    if len(answers) < CHOICE_FOLDS or few:
        return "words"
    scores = {}
    for kind in ANALYZERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fold without any word, whose score is then the least
            folds = cross_val_score(
                _tfidf(kind, _are_pairs(texts), kind_of_task),
                sample.tolist(),
                answers,
                cv=KFold(CHOICE_FOLDS, shuffle=True, random_state=0) if kind_of_task == REGRESSION else CHOICE_FOLDS,
                error_score=-np.inf,
            )
        scores[kind] = float(folds.mean())
    return "characters" if scores["characters"] > scores["words"] else "words"


def _beginning(text: Text) -> Text:
    if isinstance(text, str):
        return text[:CHOICE_CHARACTERS]
    return text[0][:CHOICE_CHARACTERS], text[1][:CHOICE_CHARACTERS]


def _are_pairs(texts: Sequence[Text]) -> bool:
    return isinstance(texts[0], tuple)


def _has_words(texts: Sequence[Text]) -> bool:
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyze = TfidfVectorizer(**ANALYZERS["words"]).build_analyzer()
    return any(analyze(joined(text)) for text in texts)


def _tfidf(analyzer: str, are_pairs: bool, task: str, weights: np.ndarray | None = None) -> Classifier:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    from src.training.one_vs_rest import OneVsRest
    from src.training.pair_features import PairFeatures

    regression = LogisticRegression(C=10.0, max_iter=2000)
    if task == SINGLE_LABEL and weights is not None:
        regression.set_params(class_weight=dict(enumerate(weights.tolist())))
    models = {SINGLE_LABEL: regression, MULTI_LABEL: OneVsRest(regression, weights), REGRESSION: Ridge()}
    tfidf = TfidfVectorizer(sublinear_tf=True, **ANALYZERS[analyzer])
    return make_pipeline(PairFeatures(tfidf) if are_pairs else tfidf, models[task])


CLASSIC: dict[str, Callable[[Sequence[Text], np.ndarray, np.ndarray | None], Classifier]] = {
    "majority": fit_majority,
    "tfidf_logreg": fit_tfidf,
    "mean": fit_mean,
    "tfidf_ridge": fit_tfidf,
}


def is_fitted(name: str) -> bool:
    """Whether the baseline is fitted here on texts and labels: it is no transformer."""
    return name in CLASSIC or own_code.is_own(name)


def evaluate_classic(
    name: str,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    objective: Objective,
    label_names: Sequence[str],
    loss: LossSettings,
) -> TrainingResult:
    """Fit a baseline and evaluate it on validation.

    Args:
        name: majority, tfidf_logreg, mean, tfidf_ridge, or one of your own.
        train: columns text, text_pair (of pairs), label.
        validation: the same.
        objective: whose metric is the score.
        label_names: of the data, by label index.
        loss: its class weights are used; there is no focal loss of a logistic regression.
    """
    began = time.monotonic()
    model = _fit(name, train, label_names, loss)
    fitted = time.monotonic()
    probabilities = _probabilities(model, texts_of(validation), len(label_names))
    seconds = time.monotonic() - fitted
    result = _result(probabilities, validation, objective, seconds)
    return replace(result, seconds=time.monotonic() - began, megabytes=_megabytes(model))


def predict_classic(
    name: str, train: pd.DataFrame, texts: Sequence[Text], label_names: Sequence[str], loss: LossSettings
) -> np.ndarray:
    """Fit a baseline on `train`; its probabilities for `texts`, [n_texts, n_labels], or numbers, [n_texts, 1]."""
    return _probabilities(_fit(name, train, label_names, loss), texts, len(label_names))


def _fit(name: str, train: pd.DataFrame, label_names: Sequence[str], loss: LossSettings) -> Classifier:
    labels = labels_of(train)
    weights = None if are_numbers(labels) else _weights(labels, label_names, loss)
    if own_code.is_own(name):
        return OwnClassifier(name, texts_of(train), labels, len(label_names))
    return CLASSIC[name](texts_of(train), labels, weights)


def _weights(labels: np.ndarray, label_names: Sequence[str], loss: LossSettings) -> np.ndarray | None:
    counts = present(labels, len(label_names)).sum(axis=0).tolist()
    if has_several(labels):
        return class_weights.positive_weights(loss, counts, len(labels), label_names)
    return class_weights.class_weights(loss, counts, label_names)


def _probabilities(model: Classifier, texts: Sequence[Text], n_labels: int) -> np.ndarray:
    """Probabilities [n_texts, n_labels]; 0 for a label that train does not have. Of numbers these, [n_texts, 1]."""
    if not hasattr(model, "predict_proba") or getattr(model, "predicts_numbers", False):
        return np.asarray(model.predict(texts), dtype=np.float64)[:, None]
    probabilities = np.zeros((len(texts), n_labels))
    probabilities[:, model.classes_] = model.predict_proba(texts)
    return probabilities


def evaluate_ready_made(
    settings: Settings,
    checkpoint: PretrainedModel,
    label_names: tuple[str, ...],
    validation: pd.DataFrame,
    objective: Objective,
) -> TrainingResult:
    """Evaluate a model with a classification head of its own, without training (see label_mapping).

    Args:
        settings: of the study.
        checkpoint: the model.
        label_names: of the data, by index.
        validation: columns text, text_pair (of pairs), label.
        objective: whose metric is the score.
    """
    began = time.monotonic()
    probabilities = label_mapping.predict_probabilities(checkpoint, settings, label_names, texts_of(validation))
    seconds = time.monotonic() - began
    of_one = seconds * _compute_units(settings.recipe)
    return replace(
        _result(probabilities, validation, objective, of_one), seconds=seconds, megabytes=checkpoint.megabytes
    )


def evaluate_untuned(
    recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, objective: Objective, folder: Path
) -> TrainingResult:
    """Evaluate the model without fine-tuning. A head that it lacks is random, from the recipe's seed.

    Args:
        recipe: the default recipe.
        checkpoint: the pretrained model.
        data: tokenized.
        objective: whose metric is the score.
        folder: for the Trainer's files.
    """
    began = time.monotonic()
    evaluation = evaluate_untrained(recipe, checkpoint, data, folder, objective.metrics)
    return TrainingResult(
        state=State.COMPLETE,
        score=evaluation.metrics[objective.metric],
        metrics=evaluation.metrics,
        seconds=time.monotonic() - began,
        megabytes=checkpoint.megabytes,
        ms_per_1000_texts=evaluation.seconds / len(data.validation) * 1e6 * _compute_units(recipe),
    )


def _compute_units(recipe: Recipe) -> int:
    return devices.compute_units(bool(recipe.trainer.get("use_cpu")))


def _result(
    probabilities: np.ndarray, validation: pd.DataFrame, objective: Objective, seconds: float
) -> TrainingResult:
    """The result for `probabilities` [n_examples, n_labels]; `seconds`: of predicting them with one thread."""
    labels = labels_of(validation)
    values = metrics.compute_metrics(labels, probabilities, *objective.metrics)
    ms = seconds / len(validation) * 1e6
    if are_numbers(labels):
        return TrainingResult(State.COMPLETE, values[objective.metric], values, ms_per_1000_texts=ms)
    true = present(labels, probabilities.shape[1])
    of_truth = np.where(true, probabilities, 1 - probabilities) if has_several(labels) else probabilities[true]
    values["loss"] = float(-np.log(np.clip(of_truth, 1e-12, None)).mean())
    return TrainingResult(State.COMPLETE, values[objective.metric], values, ms_per_1000_texts=ms)


def _megabytes(model: Classifier) -> float | None:
    """Size of the fitted model in MB (10**6 bytes), as joblib stores it; None if it cannot store your own."""
    import joblib

    stream = io.BytesIO()
    try:
        joblib.dump(model, stream)
    except (pickle.PicklingError, AttributeError, TypeError):
        if isinstance(model, OwnClassifier):
            return None
        raise
    return len(stream.getvalue()) / 1e6
