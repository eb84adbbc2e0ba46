"""A baseline of your own: what it gets, and what it may predict."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.config.settings import LossSettings
from src.core import own_code
from src.core.errors import InvalidInput
from src.training import baselines
from src.training.callbacks import Objective
from src.training.own_baseline import try_baseline
from tests.support.own_code import nothing_loaded, write_module

TRAIN = pd.DataFrame(
    {"text": [f"{'good' if i % 2 else 'bad'} {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
)
BAYES = """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    return make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, labels).predict_proba"""


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    with nothing_loaded():
        yield


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    def load(body: str) -> str:
        write_module(tmp_path, f"\n@baseline\ndef own(texts, labels):\n    {body}\n")
        own_code.load(["my_module"], tmp_path)
        return "my_module:own"

    return load


def test_it_is_fitted_on_train_and_judged_on_validation(own: Callable[[str], str]) -> None:
    name, objective = own(BAYES.strip()), Objective("accuracy", "maximize", (1.0,), None)
    result = baselines.evaluate_classic(name, TRAIN[:30], TRAIN[30:], objective, ("bad", "good"), LossSettings())
    assert result.score == 1.0
    assert result.megabytes is not None
    answers = baselines.predict_classic(name, TRAIN, ["good film", "bad film"], ("bad", "good"), LossSettings())
    assert answers.argmax(axis=1).tolist() == [1, 0]


def test_a_function_that_cannot_be_stored_has_no_size(own: Callable[[str], str]) -> None:
    name = own("return lambda texts: np.full((len(texts), 2), 0.5)")
    objective = Objective("accuracy", "maximize", (1.0,), None)
    result = baselines.evaluate_classic(name, TRAIN, TRAIN, objective, ("bad", "good"), LossSettings())
    assert result.megabytes is None
    assert result.score == 0.5


def test_pairs_and_several_labels_have_their_shapes(own: Callable[[str], str]) -> None:
    name = own(
        "assert all(isinstance(text, tuple) and len(text) == 2 for text in texts); assert labels.shape[1] == 3\n"
        "    return lambda texts: np.full((len(texts), 3), 0.5)"
    )
    rows = [np.array([i % 2, 1 - i % 2, i % 3 > 0]) for i in range(40)]
    try_baseline(name, TRAIN.assign(text_pair=TRAIN["text"], label=rows), 3)


def test_of_a_regression_it_predicts_numbers(own: Callable[[str], str]) -> None:
    name = own("return lambda texts: [labels.mean()] * len(texts)")
    train = TRAIN.assign(label=TRAIN["label"] * 2.5)
    try_baseline(name, train, 1)
    objective = Objective("mae", "minimize", (1.0,), None)
    result = baselines.evaluate_classic(name, train, train, objective, ("stars",), LossSettings())
    assert result.score == pytest.approx(1.25)


@pytest.mark.parametrize("predicted", ["np.zeros((len(texts), 2))", "['a'] * len(texts)", "[np.nan] * len(texts)"])
def test_what_are_no_numbers_is_refused(own: Callable[[str], str], predicted: str) -> None:
    name = own(f"return lambda texts: {predicted}")
    with pytest.raises(InvalidInput, match=r"it predicts an array of numbers, one per text\."):
        try_baseline(name, TRAIN.assign(label=TRAIN["label"] * 2.5), 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1", r"my_module:own returned int 1; a baseline returns a function from a list of texts"),
        ("raise KeyError('x')", r"my_module:own raised KeyError: 'x' \(my_module\.py, line 7\)\."),
        ("return lambda texts: texts[99]", r"my_module:own raised IndexError: .*my_module\.py, line 7"),
        ("return lambda texts: texts", r"predicted list \[.*; it predicts an array of probabilities"),
        ("return lambda texts: [0.5] * len(texts)", r"predicted an array of 40 for 40 texts; .* 40 by 2"),
        ("return lambda texts: np.full((len(texts), 3), 0.1)", r"predicted an array of 40 by 3 for 40 texts"),
        (
            "return lambda texts: np.full((len(texts), 2), -2.0)",
            r"numbers from -2 to -2; probabilities are from 0 to 1",
        ),
        ("return lambda texts: np.full((len(texts), 2), 0.9)", r"add up to 1\.8 to 1\.8 for a text"),
        ("return lambda texts: np.full((len(texts), 2), np.nan)", r"numbers from nan to nan"),
    ],
)
def test_what_is_no_probability_is_refused(own: Callable[[str], str], body: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        try_baseline(own(body), TRAIN, 2)
