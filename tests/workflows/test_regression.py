"""From a file of texts with numbers to a model that predicts them: sweep to card, and what predicts with it."""

import random
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from src.reports.model_card import render_card
from src.reports.search_record import JudgedSearch
from tests.support.commands import COMPARE, INLINE, Place, client_of, runs_of, verdict_of
from tests.support.data import write_rows

pytestmark = pytest.mark.long

STUDY = [
    "data=files", "data.path=stars.csv", "data.label_column=stars", "data.task=regression", "data.unlabelled=more.csv",
    "model=tiny", "model.learning_rate=5e-3", "trainer.num_train_epochs=6", "trainer.per_device_train_batch_size=8",
    "model.dropout=0", "~space.model.dropout", "space.trainer.num_train_epochs={low: 5, high: 6}",
    "study.rungs=[1.0]", "study.n_trials=2", "study.metric=mae", "study.name=stars", *INLINE,
]  # fmt: skip


def stars_of(generator: random.Random) -> tuple[str, float]:
    n = generator.randrange(5)
    words = ["z"] * n + ["a"] * (4 - n) + [str(generator.randrange(1000))]
    generator.shuffle(words)
    return " ".join(words), round(20.0 * n + generator.gauss(0, 2), 2)


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str, str]:
    """A study in which a text's number is 20 for each z, and what its sweep and its comparison printed."""
    place, generator = Place(tmp_path_factory.mktemp("stars")), random.Random(0)
    write_rows(place.folder / "stars.csv", [stars_of(generator) for _ in range(500)], "text,stars")
    write_rows(place.folder / "more.csv", [(stars_of(generator)[0],) for _ in range(40)], "text")
    swept = place.sweep(*STUDY, "study.report=true")
    assert swept.code == 0, swept.err
    compared = place.run("src.compare", *COMPARE, *INLINE, "deliver.form=single")
    assert compared.code == 0, compared.err
    assert place.run("src.promote").code in (0, 3)
    return place, swept.out, compared.out


def test_the_winner_is_shown_better_than_the_mean(stars: tuple[Place, str, str]) -> None:
    place, swept, compared = stars
    verdict = verdict_of(place, "stars")
    assert verdict.task == "regression"
    winner, mean = verdict.contender(verdict.winner), verdict.contender("mean")
    assert set(winner.test) == {"mse", "mae", "r2", "spearman"}
    assert winner.test["mae"].value < 12 < mean.test["mae"].value
    against = verdict.result_against("mean")
    assert against is not None
    assert against.verdict == "better"
    assert against.difference.high < 0  # less is better
    assert re.search(r"^numbers +stars: -?\d", swept.strip(), re.M) or "stars: " in swept
    assert "winner nearer" in compared
    assert {c.form for c in verdict.contenders} == {"single", "average", "refit", "student"}
    assert {"tfidf_ridge", "untuned"} < {c.name for c in verdict.contenders}


def test_every_way_of_predicting_gives_the_number(stars: tuple[Place, str, str]) -> None:
    place = stars[0]
    texts = ["a a a a 7", "z z z z 12"]
    done = place.run("src.predict", "--version", "1", *texts)
    assert done.code == 0, done.err
    lines = [re.fullmatch(r"stars +(-?\d+\.\d{4})  (.+)", line) for line in done.out.splitlines()]
    numbers = {line[2]: float(line[1]) for line in lines if line}
    assert numbers[texts[1]] > numbers[texts[0]] + 40
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/mlflow.db")
    classify = mlflow.transformers.load_model("models:/stars/1")
    for text in texts:
        (answer,) = classify([text])
        assert answer == {"label": "stars", "score": pytest.approx(numbers[text], abs=0.01)}
    filed = place.run("src.predict", "--version", "1", "--file", "stars.csv", "--out", "answers.csv")
    assert filed.code == 0, filed.err
    frame = pd.read_csv(place.folder / "answers.csv")
    assert np.corrcoef(frame["stars"], frame["score"])[0, 1] > 0.8
    served = mlflow.pyfunc.load_model("models:/stars/1").predict([texts[1]])
    assert served["score"].iloc[0] == pytest.approx(numbers[texts[1]], abs=0.01)


def test_card_report_and_errors_know_numbers(stars: tuple[Place, str, str]) -> None:
    place = stars[0]
    judged = JudgedSearch.from_json((place.study("stars") / "comparison" / "findings.json").read_text())
    card = render_card(judged, "models:/stars/1")
    assert "fine-tuned to predict stars." in card
    assert "The `score` is the number" in card
    assert "![Predicted and true numbers](figures/scatter.png)" in card
    assert not re.search("classified wrongly|calibration|told apart", card)
    found = judged.test.numbers
    assert found is not None
    assert found.mae == pytest.approx(judged.verdict.contender(judged.verdict.winner).registered_test["mae"], abs=1e-3)
    assert 0 < sum(cell.examples for cell in found.cells) <= judged.verdict.test_examples
    assert min(cell.examples for cell in found.cells) >= 5  # no single prediction on test
    assert not found.largest  # of the test split nobody reads single texts
    assert judged.validation is not None
    assert judged.validation.numbers is not None
    assert judged.validation.numbers.largest
    (study,) = runs_of(place, "study")
    client = client_of(place)
    files = {item.path for item in client.list_artifacts(study.info.run_id, "report/figures")}
    assert {"report/figures/scatter.svg", "report/figures/slices.svg"} < files
    report = client.download_artifacts(study.info.run_id, "report/report.md", str(place.folder))
    assert "the mean absolute error is" in Path(report).read_text()


def test_trainings_and_students_are_reproduced(stars: tuple[Place, str, str]) -> None:
    place = stars[0]
    for kind in ("repeat", "refit", "student"):
        done = place.run("src.reproduce", f"run={runs_of(place, kind)[0].info.run_id}")
        assert done.code == 0, done.err
        assert "are identical" in done.out


def test_an_average_is_reproduced_with_the_scale_of_its_members(stars: tuple[Place, str, str]) -> None:
    place = stars[0]
    average = next(run for run in runs_of(place, "contender") if run.data.tags.get("form") == "average")
    done = place.run("src.reproduce", f"run={average.info.run_id}")
    assert done.code == 0, done.err
    assert "The average's weights are identical." in done.out


def test_a_temperature_of_numbers_is_refused(stars: tuple[Place, str, str]) -> None:
    done = stars[0].run("src.compare", "study.name=stars", "deliver.temperature=2")
    assert done.code == 2
    assert "deliver.temperature is 2, which is of probabilities" in " ".join(done.err.split())


def test_a_champion_with_labels_is_not_compared(stars: tuple[Place, str, str]) -> None:
    place = stars[0]
    client = client_of(place)
    client.set_registered_model_alias("stars", "champion", "1")
    frame = pd.read_csv(place.folder / "stars.csv")
    frame["stars"] = np.where(frame["stars"] > 40, "many", "few")
    frame.to_csv(place.folder / "labels.csv", index=False)
    words = [w for w in STUDY if not w.startswith(("data.path", "data.task", "data.unl", "study.metric", "study.name"))]
    done = place.sweep(*words, "data.path=labels.csv", "study.name=labels", "study.baselines=[]")
    assert done.code == 0, done.err
    done = place.run("src.compare", "study.name=labels", "registry.model=stars", *COMPARE)
    assert done.code == 2
    assert "answers with stars; the data of labels have the labels few, many" in " ".join(done.err.split())
    client.delete_registered_model_alias("stars", "champion")
