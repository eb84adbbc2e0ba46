"""From a file of texts with several labels to a model that finds them: sweep to card, and what predicts with it."""

import random
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from src.core.task import labels_of
from src.reports.model_card import render_card
from src.reports.search_record import JudgedSearch
from tests.support.commands import COMPARE, INLINE, Place, client_of, runs_of, verdict_of
from tests.support.data import write_rows

pytestmark = pytest.mark.long

LETTERS = {"low": "a", "middle": "j", "high": "z"}
STUDY = [
    "data=files", "data.path=letters.csv", "data.task=multi_label", "data.label_separator=' '",
    "data.label_names=[low,middle,high]", "model=tiny", "model.learning_rate=3e-3", "trainer.num_train_epochs=10",
    "trainer.per_device_train_batch_size=8",
    "model.dropout=0", "~space.model.dropout", "space.trainer.num_train_epochs={low: 9, high: 10}",
    "study.rungs=[1.0]", "study.n_trials=2", "study.metric=f1_macro", "study.baselines=[majority,tfidf_logreg,untuned]",
    "study.name=several", "+space.loss.focal_gamma={low: 0.0, high: 1.0}", *INLINE,
]  # fmt: skip


def letters_of(labels: list[str], generator: random.Random) -> str:
    words = [LETTERS[label] for label in labels for _ in range(2)] + [str(generator.randrange(1000))]
    generator.shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str, str]:
    """A study in which a text has the labels of the letters in it, and what its sweep and its comparison printed."""
    place, generator = Place(tmp_path_factory.mktemp("several")), random.Random(0)
    rows = []
    for _ in range(500):
        labels = [label for label, share in zip(LETTERS, (0.5, 0.4, 0.25), strict=True) if generator.random() < share]
        rows.append((letters_of(labels, generator), " ".join(labels)))
    write_rows(place.folder / "letters.csv", rows)
    swept = place.sweep(*STUDY, "study.report=true", "study.threshold=per_label")
    assert swept.code == 0, swept.err
    compared = place.run("src.compare", *COMPARE, *INLINE, "deliver.refit=false", "deliver.form=single")
    assert compared.code == 0, compared.err
    assert place.run("src.promote").code in (0, 3)
    return place, swept.out, compared.out


def _test_labels(place: Place) -> np.ndarray:
    frames = map(pd.read_parquet, place.folder.glob("mlruns/cache/data/*/test.parquet"))
    return next(labels for labels in map(labels_of, frames) if labels.ndim > 1)


def test_the_winner_is_shown_better_than_the_frequencies(several: tuple[Place, str, str]) -> None:
    place, _, compared = several
    verdict = verdict_of(place, "several")
    winner, majority = verdict.contender(verdict.winner), verdict.contender("majority")
    assert verdict.task == "multi_label"
    assert winner.test["f1_macro"].value > 0.8
    assert set(winner.test) == {"accuracy", "f1_micro", "f1_macro", "precision_micro", "recall_micro", "loss"}
    against = verdict.result_against("majority")
    assert against is not None
    assert against.verdict == "better"
    assert majority.test["accuracy"].value < 0.5
    for label, n in zip(LETTERS, np.sum(_test_labels(place), axis=0), strict=True):
        assert re.search(rf"^{label} +{n} +\d+ +\d\.\d+ \[", compared, re.M)


def test_each_label_has_a_threshold_of_its_own_in_the_weights(several: tuple[Place, str, str]) -> None:
    place, _, compared = several
    assert re.search(r"threshold +of each label: the best by its f1 on validation", compared)
    verdict = verdict_of(place, "several")
    winner = verdict.contender(verdict.winner)
    assert isinstance(winner.threshold, (list, tuple))
    assert len(winner.threshold) == 3
    assert "answers each label from a probability of its own" in " ".join(compared.split())
    for name in ("tfidf_logreg", "default"):
        row = verdict.contender(name)
        folder = "fixed" if row.kind == "baseline" else "repeats"
        files = sorted((place.study("several") / "comparison" / folder / row.key).glob("**/test.npy"))
        right = [((np.load(file) > row.threshold) == _test_labels(place)).all(axis=1).mean() for file in files]
        assert row.test["accuracy"].value == pytest.approx(np.mean(right))
    tag = client_of(place).get_model_version("letters", "1").tags["decision.threshold"]
    assert tag.count(",") == 2


def test_every_way_of_predicting_gives_the_labels(several: tuple[Place, str, str]) -> None:
    place = several[0]
    texts = ["a a z 12 z", "j 99 j", "12"]
    done = place.run("src.predict", "--version", "1", *texts)
    assert done.code == 0, done.err
    lines = [re.fullmatch(r"(\S*) +(\d\.\d{4})  (.+)", line) for line in done.out.splitlines()]
    given = {line[3]: (line[1], float(line[2])) for line in lines if line}
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/mlflow.db")
    classify = mlflow.transformers.load_model("models:/letters/1")
    for text in texts:
        scores = {each["label"]: each["score"] for each in classify([text], top_k=None)[0]}
        assert given[text][0] == ",".join(label for label in LETTERS if scores[label] > 0.5)
        assert given[text][1] == pytest.approx(min(max(p, 1 - p) for p in scores.values()), abs=1e-3)
    filed = place.run("src.predict", "--version", "1", "--file", "letters.csv", "--out", "answers.csv")
    assert filed.code == 0, filed.err
    frame = pd.read_csv(place.folder / "answers.csv").fillna("")
    assert (frame["predicted_label"] == frame["label"].str.replace(" ", ",")).mean() > 0.6
    served = mlflow.pyfunc.load_model("models:/letters/1").predict(["a a z"])
    assert {each["label"] for each in served.iloc[0]} == set(LETTERS)  # every label with its score


def test_card_report_and_errors_know_several_labels(several: tuple[Place, str, str]) -> None:
    place = several[0]
    judged = JudgedSearch.from_json((place.study("several") / "comparison" / "findings.json").read_text())
    card = render_card(judged, "models:/letters/1")
    assert "fine-tuned to find low, middle and high." in card
    assert "top_k=None" in card
    assert "A text can have several labels, or none" in card
    assert re.search(r"chosen on validation \(low 0\.\d{4}, middle 0\.\d{4}, high 0\.\d{4}\)", card)
    assert "true \\ predicted" not in card
    assert re.search(r"^\| high \| \d+ \| \d+ \| \d\.\d{4} ", card, re.M)
    registered = judged.verdict.contender(judged.verdict.winner).registered_test
    assert judged.test.errors == round((1 - registered["accuracy"]) * judged.verdict.test_examples)
    (study,) = runs_of(place, "study")
    client = client_of(place)
    assert "report/report.md" in {item.path for item in client.list_artifacts(study.info.run_id, "report")}
    report = client.download_artifacts(study.info.run_id, "report/report.md", str(place.folder))
    text = Path(report).read_text()
    assert "examples are classified wrongly" in text
    assert "confusion" not in text


def test_a_training_is_reproduced(several: tuple[Place, str, str]) -> None:
    place = several[0]
    done = place.run("src.reproduce", f"run={runs_of(place, 'repeat')[0].info.run_id}")
    assert done.code == 0, done.err
    assert "are identical" in done.out


def test_what_one_label_a_text_knows_is_refused(several: tuple[Place, str, str]) -> None:
    done = several[0].sweep(*STUDY, "study.metric=roc_auc_ovr", "study.name=other")
    assert done.code == 2
    assert "study.metric is 'roc_auc_ovr', which is for one label a text" in " ".join(done.err.split())
    done = several[0].sweep(*STUDY, "study.metric=accuracy", "study.name=other", "study.plan_only=true")
    assert done.code == 0, done.err
    assert "accuracy counts a text as right only if it gets exactly its labels" in " ".join(done.out.split())


def test_a_champion_of_one_label_is_not_compared(several: tuple[Place, str, str]) -> None:
    place = several[0]
    frame = pd.read_csv(place.folder / "letters.csv").fillna("")
    single = frame[~frame["label"].str.contains(" ") & (frame["label"] != "")]
    single.to_csv(place.folder / "letters-one.csv", index=False)
    words = [w for w in STUDY if not w.startswith(("data.task", "data.label_sep", "data.path", "study.name"))]
    done = place.sweep(*words, "data.path=letters-one.csv", "study.name=one")
    assert done.code == 0, done.err
    client_of(place).set_registered_model_alias("letters", "champion", "1")
    done = place.run("src.compare", *COMPARE, *INLINE, "study.name=one", "registry.model=letters")
    assert done.code == 2
    assert "gives a text several labels; in the data of one it has one label" in " ".join(done.err.split())
