"""The TF-IDF baseline: words or characters, whichever cross-validation on train prefers."""

import random

import pandas as pd
import pytest

from src.training import baselines


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
    model = baselines.fit_tfidf_logreg(train["text"], train["label"])
    return float((model.predict(held["text"]) == held["label"]).mean())


def test_characters_are_taken_where_texts_have_no_blanks() -> None:
    train = chinese(300, 0)
    assert baselines.choose_analyzer(train["text"], train["label"]) == "characters"
    assert accuracy(train, chinese(100, 1)) > 0.9


def test_words_are_taken_where_they_do_as_well() -> None:
    train = words(200, 0)
    assert baselines.choose_analyzer(train["text"], train["label"]) == "words"
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
    assert baselines.choose_analyzer(train["text"], train["label"]) == "words"
