"""A metric of your own has the interval and the threshold that a metric of scikit-learn has."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from src.core import own_code
from src.core.errors import InvalidInput
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.threshold import choose_threshold
from tests.support.own_code import nothing_loaded, write_module

SCORES = """
from sklearn.metrics import f1_score

@metric(direction="maximize", low=0, high=1)
def right(true, predicted):
    return (true == predicted).mean()

@metric(direction="minimize", low=0, high=2)
def wrong_twice(true, predicted):
    return 2 * (true != predicted).mean()

@metric(direction="maximize", low=0, high=1)
def micro(true, predicted):
    return f1_score(true, predicted, average="micro", zero_division=0)

@metric(direction="minimize", low=0, high=5)
def cost(true, predicted):
    return (5 * ((true == 1) & (predicted == 0)) + ((true == 0) & (predicted == 1))).mean()

@metric(direction="minimize", low=0, high=np.inf)
def largest(true, predicted):
    return np.abs(true - predicted).max()

@metric(direction="maximize", low=0, high=1)
def of_one(true, predicted):
    return (predicted[true == 1] == 1).mean() if (true == 1).any() else np.nan
"""


@pytest.fixture(autouse=True)
def scores(tmp_path: Path) -> Iterator[None]:
    with nothing_loaded():
        write_module(tmp_path, SCORES)
        own_code.load(["my_module"], tmp_path)
        yield


def contenders(labels: np.ndarray, n_seeds: int) -> dict[str, Predictions]:
    """Two classifiers of three labels, or of texts with three labels or fewer; one of them is the better one."""
    generator, found = np.random.default_rng(1), {}
    true = labels if labels.ndim > 1 else np.eye(3)[labels]
    for name, sure in (("good", 2.0), ("poor", 1.0)):
        values = expit(sure * (2 * true - 1) + generator.normal(0, 1.5, (n_seeds, *true.shape)))
        found[name] = Predictions(values if labels.ndim > 1 else values / values.sum(axis=2, keepdims=True))
    return found


@pytest.mark.parametrize(
    ("own", "known", "several"),
    [("right", "accuracy", False), ("micro", "f1_micro", True)],
)
def test_it_has_the_interval_of_the_same_metric_of_scikit_learn(own: str, known: str, several: bool) -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((120, 3)) < 0.4).astype(int) if several else generator.integers(0, 3, 120)
    answers = contenders(labels, 3)
    ours, theirs = (
        PairedBootstrap(labels, answers, draws=300, metric=metric) for metric in (f"my_module:{own}", known)
    )
    for name in answers:
        assert ours.estimate(name, f"my_module:{own}") == pytest.approx(theirs.estimate(name, known))
    found, wanted = ours.difference("good", "poor", f"my_module:{own}"), theirs.difference("good", "poor", known)
    assert found == pytest.approx(wanted)
    assert found.low > 0


def test_its_range_is_that_which_it_declares() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 120)
    result = PairedBootstrap(labels, contenders(labels, 3), draws=300, metric="my_module:wrong_twice")
    accuracy, twice = (result.estimate("poor", metric) for metric in ("accuracy", "my_module:wrong_twice"))
    assert (twice.value, twice.low, twice.high) == pytest.approx(
        (2 - 2 * accuracy.value, 2 - 2 * accuracy.high, 2 - 2 * accuracy.low)
    )


def test_a_threshold_is_tuned_by_it_in_its_direction() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random((2, 4000))
    labels = (generator.random(4000) < positive[0]).astype(int)  # the first model's probabilities are right
    answers = np.stack([1 - positive[:1], positive[:1]], axis=-1)
    chosen = choose_threshold(labels, answers, "my_module:cost")
    assert chosen == pytest.approx(1 / 6, abs=0.04)  # where a miss costs five times a false alarm


def test_of_a_regression_every_text_counts() -> None:
    generator = np.random.default_rng(0)
    true = generator.normal(0, 1, 100)
    answers = {
        name: Predictions((true + generator.normal(0, s, (2, 100)))[..., None]) for name, s in (("a", 0.1), ("b", 1.0))
    }
    bootstrap = PairedBootstrap(true, answers, draws=100, metric="my_module:largest")
    assert bootstrap.differ_on_enough_examples("a", "b", "my_module:largest")


def test_a_draw_that_it_cannot_judge_is_an_error_and_no_number() -> None:
    labels = np.array([0] * 30 + [1])
    answers = {"one": Predictions(np.full((2, 31, 2), 0.5))}
    with pytest.raises(InvalidInput, match=r"my_module:of_one returned nan for 31 texts"):
        PairedBootstrap(labels, answers, draws=50, metric="my_module:of_one")
