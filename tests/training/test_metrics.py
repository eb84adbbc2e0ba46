"""Every metric is scikit-learn's, whatever labels the examples have."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer

from src.core import metric as known
from src.core.metric import METRICS, MINIMIZE, known_metrics, metric_names
from src.core.task import MULTI_LABEL, Task
from src.training import metrics
from src.training.objectives import note_on_metric

SCORERS = {"loss": "neg_log_loss", "brier_score": "neg_brier_score"}  # by the metric; the others are named alike
TASKS = {n: Task(tuple("abcd"[:n])) for n in (2, 3, 4)}
SEVERAL = Task(("a", "b", "c"), kind=MULTI_LABEL)
ARGUMENTS = {"average_precision": {"average": "macro"}}


class FixedAnswers(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn that answers what it was given."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities, self.classes_ = probabilities, np.arange(probabilities.shape[1])

    def predict(self, _x: np.ndarray) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    def predict_proba(self, _x: np.ndarray) -> np.ndarray:
        return self.probabilities


def drawn(n_labels: int, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(n_labels)
    labels = generator.choice(n_labels, size, p=np.arange(n_labels, 0, -1) / (n_labels * (n_labels + 1) / 2))
    return labels, generator.dirichlet(np.ones(n_labels), size).round(2) * 0.98 + 0.02 / n_labels  # with equal scores


class FixedSets(FixedAnswers):
    """The same for texts with several labels, as scikit-learn's classifiers of several outputs answer."""

    def predict(self, _x: np.ndarray) -> np.ndarray:
        return (self.probabilities > 0.5).astype(int)


@pytest.mark.parametrize("name", known_metrics(SEVERAL))
def test_a_metric_of_several_labels_is_that_of_scikit_learns_scorer(name: str) -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random((200, 3)) < (0.5, 0.3, 0.1)).astype(int)
    probabilities = (generator.random((200, 3)) * 0.98 + 0.01).round(2)
    found = metrics.compute_metrics(labels, probabilities, name)
    found["loss"] = metrics.score_of("loss", labels, probabilities)
    assert set(found) == set(metric_names(3, name, MULTI_LABEL))
    if name == "loss":
        clipped = np.clip(probabilities, 1e-15, 1 - 1e-15)
        wanted = -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped)).mean()
    else:
        wanted = get_scorer(name)(FixedSets(probabilities), np.zeros((200, 1)), labels)
    assert found[name] == pytest.approx(wanted, rel=1e-6)
    assert np.isfinite(metrics.score_of(name, np.zeros((20, 3), dtype=int), probabilities[:20]))


@pytest.mark.parametrize(("n_labels", "name"), [(n, name) for n in (2, 4) for name in known_metrics(TASKS[n])])
def test_a_metric_is_that_of_scikit_learns_scorer(n_labels: int, name: str) -> None:
    labels, probabilities = drawn(n_labels)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    scorer = get_scorer(SCORERS.get(name, name))
    wanted = scorer(FixedAnswers(probabilities), np.zeros((len(labels), 1)), labels)
    found = metrics.compute_metrics(labels, probabilities, name)
    found["loss"] = metrics.score_of("loss", labels, probabilities)  # of trainings it is the Trainer's
    sign = -1 if name in SCORERS else 1
    assert found[name] == pytest.approx(sign * wanted, rel=1e-6)
    assert METRICS[name].direction == (MINIMIZE if name in SCORERS else known.MAXIMIZE)
    assert set(found) == set(metric_names(n_labels, name))


@pytest.mark.parametrize("n_labels", [2, 3])
def test_no_metric_fails_where_a_label_has_no_example(n_labels: int) -> None:
    _, probabilities = drawn(n_labels, 20)
    for name in known_metrics(TASKS[n_labels]):
        assert np.isfinite(metrics.score_of(name, np.zeros(20, dtype=int), probabilities)) or "d2" in name


def test_a_plan_says_what_accuracy_hides() -> None:
    spam = Task(("ham", "spam"))
    note = note_on_metric("accuracy", [87, 13], spam)
    assert note is not None
    assert "87% of the training texts have the label ham" in note
    assert "an accuracy of 0.87" in note
    assert "(of spam)" in note
    assert "study.metric=f1_macro" in note
    assert "loss.class_weights=balanced" in note
    assert note_on_metric("f1", [87, 13], spam) is None
    assert note_on_metric("accuracy", [70, 30], spam) is None
    assert note_on_metric("accuracy", [], spam) is None
    assert "exactly its labels" in str(note_on_metric("accuracy", [50, 50, 50], SEVERAL))
    assert note_on_metric("f1_micro", [50, 50, 50], SEVERAL) is None


def test_several_labels_are_no_numbers_as_a_training_has_them() -> None:
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 2, (40, 3)), generator.random((40, 3))
    as_floats = labels.astype(np.float32)  # that a loss reads
    assert metrics.compute_metrics(as_floats, probabilities) == metrics.compute_metrics(labels, probabilities)
