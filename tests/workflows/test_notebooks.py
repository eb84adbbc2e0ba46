"""The five public notebooks, each a sweep: search, compare, promote, predict and card, with a small stand-in."""

from pathlib import Path

import pytest

from src.reports.search_record import JudgedSearch
from src.verdict.records import Verdict
from tests.support.commands import Place, client_of
from tests.support.stand_ins import as_on_the_hub, stand_in

pytestmark = pytest.mark.long
STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
IMDB = ["data.subset={train: 160, test: 60}"]
SWEEPS = {
    "sst2_distilbert": ("sst2", "distilbert", (), ["data.carve.validation.size=40"]),
    "imdb_distilbert": ("imdb", "distilbert", (), ["data.carve.validation.size=0.2"]),
    "imdb_3k_distilbert": ("imdb", "distilbert", (), IMDB),
    "imdb_stars": ("imdb", "bert", STARS, IMDB),
    "imdb_1k_distilbert": ("imdb", "distilbert", (), IMDB),
}
WHOLE = ("sst2_distilbert", "imdb_stars")  # from search to card; the others differ in their data
SMALL = ["study.n_trials=3", "study.rungs=[0.5,1.0]", "model.max_tokens=32", "study.name=it", "workers=2",
         "space.trainer.num_train_epochs={low: 1, high: 2}", "trainer.num_train_epochs=1"]  # fmt: skip


def layout(folder: Path, name: str) -> Path:
    for path, content in as_on_the_hub(name, 240).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.mark.parametrize("sweep", SWEEPS)
def test_notebook_runs_from_search_to_card(place: Place, sweep: str) -> None:
    data, kind, labels, smaller = SWEEPS[sweep]
    local = [f"data.path={layout(place.folder / data, data)}",
             f"model.checkpoint={stand_in(place.folder / 'checkpoint', kind, *labels)}"]  # fmt: skip
    done = place.sweep(f"sweeps={sweep}", *local, *SMALL, *smaller)
    assert done.code == 0, done.err + done.out
    assert "all 3 trials are done" in done.out
    if sweep not in WHOLE:
        return
    done = place.run("src.compare", "compare.seeds=4", "compare.top_k=1", "workers=2")
    assert done.code == 0, done.err + done.out
    done = place.run("src.promote")
    assert done.code in (0, 3), done.err + done.out  # such small models may well not beat a baseline
    done = place.run("src.predict", "A warm, funny film.", "It's dull, and far too long.")
    assert done.code == 0, done.err
    assert {line.split()[0] for line in done.out.splitlines()} <= {"negative", "positive"}
    verdict = Verdict.from_json((place.study("it") / "comparison" / "verdict.json").read_text())
    tested = {c.name: c.test for c in verdict.contenders if c.test}
    assert {"accuracy", "precision", "recall", "f1"} < set(tested[verdict.winner])
    assert {"majority", "tfidf_logreg", "untuned", "default"} <= set(tested)
    assert ("ready_made" in tested) == (sweep == "imdb_stars")
    client = client_of(place)
    (model,) = client.search_registered_models()
    source = Path(client.get_model_version(model.name, "1").source.removeprefix("file://"))
    result = JudgedSearch.from_json((source / "card" / "findings.json").read_text())
    assert result.verdict == verdict
    assert [c.part for c in result.changes][:3] == ["embeddings", "layer 0", "layer 1"]
    assert all((c.relative or 0) > 0 for c in result.changes if c.before)
    card = (source / "card" / "README.md").read_text()
    assert f"name: {'checkpoint'} on {verdict.data}" in card
    assert "It answers with negative and positive." in card


def test_a_checkpoint_of_stars_gets_a_new_head_of_two(place: Place) -> None:
    stars = stand_in(place.folder / "checkpoint", "bert", *STARS)
    data = layout(place.folder / "imdb", "imdb")
    local = [f"data.path={data}", f"model.checkpoint={stars}", "model.max_tokens=32"]
    done = place.run("src.train", "data=imdb_3k", "model=stars", *local, *IMDB, "trainer.num_train_epochs=1")
    assert done.code == 0, done.err + done.out
    client = client_of(place)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.kind = 'train'")
    assert {f.path for f in client.list_artifacts(run.info.run_id, "inspection")} == {
        f"inspection/{name}" for name in ("changes.svg", "layers.json", "model.txt", "tensors.json")
    }
    assert {f.path for f in client.list_artifacts(run.info.run_id, "errors")} == {
        f"errors/{name}" for name in ("errors.json", "slices.json", "confusion.svg", "calibration.svg", "slices.svg")
    }
