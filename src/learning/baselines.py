"""What a fine-tuned model has to beat, judged on the same validation split. A YAML names them by their function."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.learning import devices, metrics, ready_made
from src.learning.checkpoints import Checkpoint
from src.learning.finetune import Lesson, evaluate_untrained
from src.learning.judge import Goal
from src.records import Outcome, State
from src.settings import Recipe, Settings

Classifier = Any  # fit(texts, labels), predict_proba(texts) -> [n_examples, n_labels]


def majority() -> Classifier:
    """The most frequent label of train, always."""
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="prior")


def tfidf_logreg() -> Classifier:
    """TF-IDF of words and word pairs (sublinear), then L2 logistic regression with C=10. Fixed, not searched."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0, max_iter=2000)
    )


CLASSIC: dict[str, Callable[[], Classifier]] = {"majority": majority, "tfidf_logreg": tfidf_logreg}


def judge_classic(name: str, train: pd.DataFrame, validation: pd.DataFrame, goal: Goal, n_labels: int) -> Outcome:
    """Fit the baseline `name` on `train` (columns text, label) and judge it on `validation`."""
    began = time.monotonic()
    model = CLASSIC[name]().fit(train["text"], train["label"])
    fitted = time.monotonic()
    chances = _chances(model, validation["text"], n_labels)
    seconds = time.monotonic() - fitted
    found = _judged(chances, validation, goal, seconds)
    return replace(found, seconds=time.monotonic() - began, megabytes=_size(model))


def answer_classic(name: str, train: pd.DataFrame, texts: pd.Series, n_labels: int) -> np.ndarray:
    """Fit the baseline `name` on `train`; its chances for `texts`, [n_texts, n_labels]."""
    return _chances(CLASSIC[name]().fit(train["text"], train["label"]), texts, n_labels)


def _chances(model: Classifier, texts: pd.Series, n_labels: int) -> np.ndarray:
    """[n_texts, n_labels]; none for a label that train does not have."""
    found = np.zeros((len(texts), n_labels))
    found[:, model.classes_] = model.predict_proba(texts)
    return found


def judge_ready_made(settings: Settings, found: Checkpoint, validation: pd.DataFrame, goal: Goal) -> Outcome:
    """A checkpoint with a head of its own (ready_made.py) on `validation`."""
    began = time.monotonic()
    chances = ready_made.chances(found, settings, validation["text"].tolist())
    seconds = time.monotonic() - began
    of_one = seconds * _hands(settings.recipe)
    return replace(_judged(chances, validation, goal, of_one), seconds=seconds, megabytes=found.megabytes)


def judge_untuned(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, goal: Goal, folder: Path) -> Outcome:
    """The model without fine-tuning. A checkpoint without a fitting head answers by a random one."""
    began = time.monotonic()
    evaluation = evaluate_untrained(recipe, checkpoint, lesson, folder)
    return Outcome(
        state=State.COMPLETE,
        score=evaluation.metrics[goal.metric],
        metrics=evaluation.metrics,
        seconds=time.monotonic() - began,
        megabytes=checkpoint.megabytes,
        ms_per_1000_texts=evaluation.seconds / len(lesson.validation) * 1e6 * _hands(recipe),
    )


def _hands(recipe: Recipe) -> int:
    return devices.hands(bool(recipe.trainer.get("use_cpu")))


def _judged(chances: np.ndarray, validation: pd.DataFrame, goal: Goal, seconds: float) -> Outcome:
    """Metrics of `chances` [n_examples, n_labels]; `seconds`: what the answers took, or would have taken one thread."""
    labels = validation["label"].to_numpy()
    found = metrics.compute(labels, chances)
    picked = chances[np.arange(len(labels)), labels]
    found["loss"] = float(-np.log(np.clip(picked, 1e-12, None)).mean())
    return Outcome(State.COMPLETE, found[goal.metric], found, ms_per_1000_texts=seconds / len(validation) * 1e6)


def _size(model: Classifier) -> float:
    """MB (10**6 bytes) of the fitted model as joblib would store it."""
    import joblib

    stream = io.BytesIO()
    joblib.dump(model, stream)
    return len(stream.getvalue()) / 1e6
