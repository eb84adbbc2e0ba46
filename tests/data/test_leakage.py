"""Which texts are the same, within a split and across splits."""

import pandas as pd
import pytest

from src.data import leakage


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The lamp", "the  LAMP\n"),
        ("café", "cafe\u0301"),
        ("Straße", "STRASSE"),
        ("a\u00a0b", "a b"),
    ],
)
def test_case_white_space_and_composition_do_not_count(a: str, b: str) -> None:
    assert leakage.identity(a) == leakage.identity(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("so so 😀", "so so 😡"),
        ("बच्ची", "बच्चे"),
        ("เก่า", "เกา"),
        ("good :)", "good :("),
        ("good :)", "good ;)"),
        ("C", "C++"),
        ("it costs 3.5", "it costs 35"),
        ("50 %", "50 $"),
        ("#good", "good"),
        ("!!!", "???"),
        ("well-made", "well made"),
        ("a<3", "a"),
        ("really :D", "really ;D"),
    ],
)
def test_signs_emoji_and_marks_count(a: str, b: str) -> None:
    assert leakage.without_sentence_marks(a) != leakage.without_sentence_marks(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The lamp, again!", "the lamp again"),
        ("Really?!", "really"),
        ('"Good," they said.', "good they said"),
        ("„Gut“ – sagt er…", "gut – sagt er"),
        ("it 's a film .", "it 's a film"),
        ("one: two; three", "one two three"),
        ("很好。", "很好"),
        ("बच्ची।", "बच्ची"),
        ("Good!😀", "good😀"),
        ("(Great!)", "(great)"),
    ],
)
def test_punctuation_of_sentences_does_not_count_across_splits(a: str, b: str) -> None:
    assert leakage.without_sentence_marks(a) == leakage.without_sentence_marks(b)
    assert leakage.identity(a) != leakage.identity(b)


def test_words_keep_their_marks() -> None:
    assert leakage.words("बच्ची और it's, well-made 😀") == ("बच्ची", "और", "it's", "well", "made")


def test_conflicting_labels_are_those_of_the_same_text() -> None:
    frame = pd.DataFrame({"text": ["Same", "same ", "Same!", "😀", "😡"], "label": [0, 1, 0, 0, 1]})
    assert leakage.count_conflicting_labels(frame) == 1


def test_near_duplicates_are_counted() -> None:
    train = ["the quick brown fox jumps over the lazy dog near the river bank", "another text of some words"]
    held = ["The quick brown fox jumps over the lazy dog near a river!", "nothing like it in the world"]
    assert leakage.count_near_duplicates(held, train) == 1
