"""From a file with pairs of texts to a model for pairs: sweep, compare, promote, predict, card, reproduce."""

import json
import random
import subprocess

import mlflow
import pandas as pd
import pytest

from src.reports.model_card import render_card
from src.reports.search_record import JudgedSearch
from tests.support.commands import COMPARE, INLINE, Place, clean_environment, runs_of, verdict_of
from tests.support.data import write_rows

pytestmark = pytest.mark.long

LOW, HIGH = "abcdefgh", "stuvwxyz"
FILE = ["--file", "pairs.csv", "--text-column"]
STUDY = [
    "data=files", "data.path=pairs.csv", "data.text_column=[first,second]", "data.label_names=[low,high]",
    "model=tiny", "model.learning_rate=5e-3", "trainer.num_train_epochs=4", "study.rungs=[1.0]", "study.n_trials=2",
    "study.baselines=[majority]", "study.name=pairs", *INLINE,
]  # fmt: skip


def word(letters: str, generator: random.Random) -> str:
    return "".join(generator.choices(letters, k=8))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A study in which the second text's letters decide, and what its sweep printed.

    The first text has letters of either kind, so that a model must know which text is which.
    """
    place, generator = Place(tmp_path_factory.mktemp("pairs")), random.Random(0)
    kinds = [(generator.choice((LOW, HIGH)), (LOW, HIGH)[i % 2]) for i in range(600)]
    rows = [(word(first, generator), word(second, generator), int(second == HIGH)) for first, second in kinds]
    write_rows(place.folder / "pairs.csv", rows, "first,second,label")
    swept = place.sweep(*STUDY)
    assert swept.code == 0, swept.err
    compared = place.run("src.compare", *COMPARE, *INLINE, "deliver.refit=false")
    assert compared.code == 0, compared.err
    promoted = place.run("src.promote")
    assert promoted.code == 0, promoted.err
    assert 'python -m src.predict --pair "a man sleeps" "he rests"' in promoted.out
    return place, swept.out


def test_the_winner_reads_both_texts_and_is_shown_better_than_a_guess(pairs: tuple[Place, str]) -> None:
    place, swept = pairs
    assert "pairs of first and second" in swept
    verdict = verdict_of(place, "pairs")
    winner = verdict.contender(verdict.winner)
    assert winner.test["accuracy"].value > 0.85
    assert verdict.contender("majority").test["accuracy"].value == pytest.approx(0.5, abs=0.02)


def test_the_registered_model_predicts_pairs_in_every_way(pairs: tuple[Place, str]) -> None:
    place = pairs[0]
    done = place.run("src.predict", "--pair", "abcdefgh", "stuvwxyz", "stuvwxyz", "abcdefgh")
    assert done.code == 0, done.err
    answers = [line.split() for line in done.out.splitlines()]
    assert [(label, first, second) for label, _, first, _, second in answers] == [
        ("high", "abcdefgh", "stuvwxyz"),
        ("low", "stuvwxyz", "abcdefgh"),
    ]
    filed = place.run("src.predict", "--file", "pairs.csv", "--text-column", "first", "second", "--out", "answers.csv")
    assert filed.code == 0, filed.err
    frame = pd.read_csv(place.folder / "answers.csv")
    right = frame["predicted_label"] == frame["label"].map({0: "low", 1: "high"})
    assert right.mean() > 0.85
    lines = "abcdefgh\tstuvwxyz\n\nstuvwxyz\tabcdefgh\n"
    words = ["python", "-m", "src.predict", "--pair"]
    piped = subprocess.run(
        words, check=False, cwd=place.folder, env=clean_environment(), input=lines, capture_output=True, text=True
    )
    assert piped.stdout == done.out
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/mlflow.db")
    classify = mlflow.transformers.load_model("models:/pairs@champion")
    assert classify({"text": "abcdefgh", "text_pair": "stuvwxyz"})["label"] == "high"
    served = mlflow.pyfunc.load_model("models:/pairs@champion")
    assert served.predict({"text": "stuvwxyz", "text_pair": "abcdefgh"})["label"].tolist() == ["low"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["abcdefgh"], "the champion classifies pairs of texts, first and second: give --pair, with the texts two by"),
        (["--pair", "a", "b", "c"], "--pair takes the texts two by two, and there are 3"),
        ([*FILE, "first"], "classifies pairs of texts, first and second: give --text-column <first> <second>"),
        ([*FILE, "first", "--pair"], "--pair with a --file needs the names of two columns"),
        ([*FILE, "first", "third"], "--text-column is 'third', but pairs.csv has the columns"),
        ([*FILE, "first", "second", "label"], "--text-column has 3 names"),
    ],
)
def test_what_is_no_pair_is_refused(pairs: tuple[Place, str], words: list[str], message: str) -> None:
    done = pairs[0].run("src.predict", *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_card_errors_and_weights_know_pairs(pairs: tuple[Place, str]) -> None:
    place = pairs[0]
    judged = JudgedSearch.from_json((place.study("pairs") / "comparison" / "findings.json").read_text())
    card = render_card(judged, "models:/pairs@champion")
    assert 'classify({"text": "A man sleeps on a bench.", "text_pair"' in card
    assert "`text` is what the data call first, `text_pair` their second" in card
    (best,) = place.study("pairs").glob("average/best/config.json")
    assert json.loads(best.read_text())["text_columns"] == ["first", "second"]


def test_a_training_of_pairs_is_reproduced(pairs: tuple[Place, str]) -> None:
    place = pairs[0]
    done = place.run("src.reproduce", f"run={runs_of(place, 'repeat')[0].info.run_id}")
    assert done.code == 0, done.err
    assert "are identical" in done.out


def test_single_texts_are_not_compared_with_a_champion_of_pairs(pairs: tuple[Place, str]) -> None:
    place = pairs[0]
    words = [w for w in STUDY if not w.startswith(("data.text_column", "study.name"))]
    done = place.sweep(*words, "data.text_column=second", "study.name=single")
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE, *INLINE, "study.name=single")
    assert done.code == 2
    assert "classifies pairs of texts; the data of single are single texts" in " ".join(done.err.split())
