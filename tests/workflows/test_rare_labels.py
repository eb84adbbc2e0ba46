"""From a file with a rare label to a model that finds it: sweep, compare, promote, predict, reproduce."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from src.comparison import saved_study
from src.core.paths import Paths
from src.reports.model_card import render_card
from src.reports.search_record import JudgedSearch
from tests.support.commands import COMPARE, INLINE, LETTERS, Place, client_of, runs_of, verdict_of
from tests.support.data import write_letters

pytestmark = pytest.mark.long

RECIPE = [word for word in LETTERS if not word.startswith(("model.learning", "trainer.num_train", "study.n_"))]
LOSS = [
    *RECIPE, "model.learning_rate=5e-3", "trainer.num_train_epochs=3", "study.n_trials=2",
    "study.metric=average_precision",
    "+space.loss.focal_gamma={low: 0.0, high: 2.0}", "+space.loss.class_weights={choices: [none, balanced, effective]}",
]  # fmt: skip


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A study in which two of five texts of late letters have the label high, and no other; and what `compare` printed.

    A model that has learned it gives late letters a probability near 0.4, so that at 0.5 no text has the label.
    """
    place = Place(tmp_path_factory.mktemp("rare"))
    frame = pd.read_csv(write_letters(place.folder / "letters.csv", 600))
    late = frame["label"] == 1
    texts = frame[late][:150].assign(label=[int(i % 5 < 2) for i in range(150)])
    pd.concat([frame[~late], texts]).to_csv(place.folder / "letters.csv", index=False)
    done = place.sweep(
        *LOSS, *INLINE, "study.name=rare", "study.report=true", "study.baselines=[majority,tfidf_logreg]"
    )
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE, *INLINE)
    assert done.code == 0, done.err
    return place, done.out


def test_the_metric_decides_and_has_an_interval_for_every_contender(rare: tuple[Place, str]) -> None:
    verdict = verdict_of(rare[0], "rare")
    assert verdict.metric == "average_precision"
    tested = [c for c in verdict.contenders if c.test]
    assert {"majority", "tfidf_logreg", "default"} < {c.name for c in tested}
    for contender in tested:
        interval = contender.test["average_precision"]
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
    majority, winner = verdict.contender("majority"), verdict.contender(verdict.winner)
    share = pd.read_csv(rare[0].folder / "letters.csv")["label"].mean()
    assert majority.test["average_precision"].value == pytest.approx(share, abs=0.02)  # all texts rank alike
    assert majority.test["accuracy"].value == pytest.approx(1 - share, abs=0.02)
    assert winner.test["average_precision"].value > 1.5 * share


def test_each_label_has_its_row(rare: tuple[Place, str]) -> None:
    verdict = verdict_of(rare[0], "rare")
    (row,) = re.findall(r"^high +(\d+) +(\d+) +(.+)$", rare[1], re.M)
    recall = verdict.contender(verdict.winner).test["recall"]
    assert f"{recall.value:.4f}" in row[2]
    judged = JudgedSearch.from_json((rare[0].study("rare") / "comparison" / "findings.json").read_text())
    assert [scores.label for scores in judged.test.per_label] == ["low", "high"]
    assert re.search(r"^\| high \| \d+ \| \d+ \| \d\.\d{4} ", render_card(judged, "models:/letters@champion"), re.M)


def test_every_training_has_its_loss_on_record_and_is_reproduced_with_it(rare: tuple[Place, str]) -> None:
    place = rare[0]
    runs = [run for kind in ("trial", "repeat", "refit") for run in runs_of(place, kind)]
    weighted = [run for run in runs if run.data.params["loss.class_weights"] in ("balanced", "effective")]
    assert weighted
    (first,) = (run for run in runs if run.data.tags.get("trial.origin") == "default recipe")
    assert first.data.params["loss.class_weights"] == "none"
    gammas = {float(run.data.params["loss.focal_gamma"]) for run in runs_of(place, "trial")}
    assert len(gammas) == 2
    assert 0.0 in gammas  # the default recipe
    done = place.run("src.reproduce", f"run={weighted[0].info.run_id}")
    assert done.code == 0, done.err
    assert "are identical" in done.out


def test_a_threshold_is_tuned_on_validation_judged_on_test_and_in_the_weights(
    rare: tuple[Place, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(rare[0].folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    place = Place(tmp_path / "copy")
    plain = verdict_of(place, "rare")
    words = [*LOSS, *INLINE, "study.name=rare", "study.baselines=[majority,tfidf_logreg]"]
    done = place.sweep(*words, "study.threshold=tuned")
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE, *INLINE, "deliver.form=average")
    assert done.code == 0, done.err
    assert "8 trainings, 0 to go" in done.out
    assert re.search(r"threshold +of high: the best by f1 on validation", done.out)
    tuned = verdict_of(place, "rare")
    winner = tuned.contender(tuned.winner)
    assert winner.threshold is not None
    assert f"{tuned.winner} answers the second label from a probability of {winner.threshold:.4f} on" in " ".join(
        done.out.split()
    )
    before = plain.contender(tuned.winner)
    assert winner.test["average_precision"].value == pytest.approx(before.test["average_precision"].value)
    saved = saved_study.load_study("rare", Paths(place.folder))
    labels = pd.read_parquet(saved.dataset.folder / "test.parquet")["label"]
    for name in ("tfidf_logreg", "default"):
        row = tuned.contender(name)
        assert row.threshold is not None
        folder = "fixed" if row.kind == "baseline" else "repeats"
        files = sorted((saved.comparison_dir / folder / row.key).glob("**/test.npy"))
        f1 = np.mean([f1_score(labels, np.load(file)[:, 1] > row.threshold) for file in files])
        assert row.test["f1"].value == pytest.approx(f1)
    assert winner.form == "average"
    assert winner.threshold != 0.5
    assert winner.test["f1"].value > before.test["f1"].value
    assert tuned.contender("majority").test["recall"].value == 0
    done = place.run("src.promote")
    assert done.code in (0, 3), done.err
    done = place.run("src.predict", "--version", "1", "stuvwxyz zyxwvuts", "abcdefgh hgfedcba")
    assert done.code == 0, done.err
    answers = [line.split() for line in done.out.splitlines() if "stuvwxyz" in line or "abcdefgh" in line]
    assert [label for label, *_ in answers] == ["high", "low"]
    client = client_of(place)
    assert client.get_model_version("letters", "1").tags["decision.threshold"] == f"{winner.threshold:.6g}"


def test_the_model_is_promoted_and_finds_the_rare_label(rare: tuple[Place, str]) -> None:
    place = rare[0]
    done = place.run("src.promote")
    assert done.code in (0, 3), done.err
    assert "version 1 of letters" in done.out
    done = place.run("src.predict", "--version", "1", "stuvwxyz zyxwvuts", "abcdefgh hgfedcba")
    assert done.code == 0, done.err
    answers = [line.split() for line in done.out.splitlines() if "stuvwxyz" in line or "abcdefgh" in line]
    high = [float(chance) if label == "high" else 1 - float(chance) for label, chance, *_ in answers]
    assert high[0] > high[1]
