"""The TF-IDF baseline: words or characters, whichever cross-validation on train prefers."""

import random

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from src.config.settings import LossSettings
from src.training import baselines
from src.training.pair_features import PairFeatures


def chinese(n: int, seed: int) -> pd.DataFrame:
    """Sentences without blanks: one sign in the middle says good or bad."""
    generator = random.Random(seed)
    signs = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面"
    rows = []
    for i in range(n):
        before, after = ("".join(generator.choices(signs, k=6)) for _ in range(2))
        rows.append((before + "好坏"[i % 2] + after, i % 2))
    return pd.DataFrame(rows, columns=["text", "label"])


def words(n: int, seed: int) -> pd.DataFrame:
    """Sentences of words: which words, not which letters, say good or bad."""
    generator = random.Random(seed)
    rows = []
    for i in range(n):
        said = ("never again", "again never")[i % 2]
        filler = [generator.choice(["lamp", "tent", "scarf", "radio", "chair"]) for _ in range(3)]
        rows.append((f"{filler[0]} {said} {filler[1]} {filler[2]}", i % 2))
    return pd.DataFrame(rows, columns=["text", "label"])


def accuracy(train: pd.DataFrame, held: pd.DataFrame) -> float:
    model = baselines.fit_tfidf(train["text"].tolist(), train["label"])
    return float((model.predict(held["text"]) == held["label"]).mean())


def test_characters_are_taken_where_texts_have_no_blanks() -> None:
    train = chinese(300, 0)
    assert baselines.choose_analyzer(train["text"].tolist(), train["label"]) == "characters"
    assert accuracy(train, chinese(100, 1)) > 0.9


def test_words_are_taken_where_they_do_as_well() -> None:
    train = words(200, 0)
    assert baselines.choose_analyzer(train["text"].tolist(), train["label"]) == "words"
    assert accuracy(train, words(100, 1)) == 1.0


@pytest.mark.parametrize("signs", [("a", "b"), ("😀", "😡"), ("!", "?")])
def test_texts_without_a_word_have_a_baseline(signs: tuple[str, str]) -> None:
    train = pd.DataFrame({"text": [signs[i % 2] for i in range(40)], "label": [i % 2 for i in range(40)]})
    assert accuracy(train, train) == 1.0


@pytest.mark.parametrize("texts", [["good lamp", "bad lamp"], ["a", "b"]])
def test_few_texts_are_enough(texts: list[str]) -> None:
    train = pd.DataFrame({"text": texts, "label": [0, 1]})
    assert accuracy(train, train) == 1.0


def test_labels_with_few_texts_do_not_end_the_choice() -> None:
    train = words(100, 0)
    train.loc[0, "label"] = 2
    assert baselines.choose_analyzer(train["text"].tolist(), train["label"]) == "words"


def test_pairs_are_told_apart_by_what_their_texts_have_in_common() -> None:
    generator = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(40)])

    def pair(same: bool) -> tuple[str, str]:
        first = generator.choice(words, 5, replace=False)
        second = first if same else generator.choice(words, 5, replace=False)
        return " ".join(first), " ".join(generator.permutation(second))

    labels = np.arange(400) % 2
    texts = [pair(bool(label)) for label in labels]
    train = pd.DataFrame({"text": [a for a, _ in texts], "text_pair": [b for _, b in texts], "label": labels})[:300]
    answers = baselines.predict_classic("tfidf_logreg", train, texts[300:], ("no", "yes"), LossSettings())
    assert (answers.argmax(axis=1) == labels[300:]).mean() > 0.95
    swapped = [(b, a) for a, b in texts[300:]]
    assert baselines.predict_classic("tfidf_logreg", train, swapped, ("no", "yes"), LossSettings()).shape == (100, 2)


def test_features_of_a_pair_are_both_texts_the_common_terms_and_the_cosine() -> None:
    vectorizer = TfidfVectorizer()
    pairs = [("red house", "red boat"), ("blue boat", "blue boat")]
    made = PairFeatures(vectorizer).fit(pairs)
    features = made.transform(pairs).toarray()
    first, second = (vectorizer.fit(["red house", "blue boat", "red boat", "blue boat"]).transform(t).toarray()
                     for t in zip(*pairs, strict=True))  # fmt: skip
    assert features == pytest.approx(np.hstack([first, second, first * second, (first * second).sum(1, keepdims=True)]))
    assert features[1, -1] == pytest.approx(1.0)
