"""`python -m src.status`: all studies, one, and its trials as a file."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from src import status
from src.errors import Refusal
from src.paths import Paths
from src.records import Evaluation, Outcome, State, TrialRecord
from src.runner import contenders, overview, plan, reporting, searching, studies
from src.search import life
from src.settings import ComparisonSettings
from tests.bad_input import TINY, begun
from tests.conftest import Done, Place, settings_of, trials_of


def test_all_studies_in_a_table(finished: tuple[Place, Done], monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    place, _ = finished
    monkeypatch.chdir(place.folder)
    status.main([])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["study", "state", "trials", "metric", "best", "searched", "for", "disk", "verdict"]
    best = max((t for t in trials_of(place, "small") if t.state.name == "COMPLETE"), key=lambda t: t.value)
    assert re.match(
        rf"small +over: all 4 trials are done +4 of 4 +accuracy +{best.value:.4f} \(trial {best.number}\)", row
    )
    assert re.search(r"\d+ s +0\.\d\d GB", row)


def test_a_study_that_is_being_compared_says_so(finished: tuple[Place, Done]) -> None:
    place, _ = finished
    studied = studies.load("small", Paths(place.folder))
    studied.folder.mkdir(exist_ok=True)
    with contenders.launch_lock(studied.folder):
        assert overview.state_of(studied) == "over: all 4 trials are done; it is being compared now"
    assert overview.state_of(studied) == "over: all 4 trials are done"


def test_a_value_that_would_move_only_what_was_tried_already_is_said(tmp_path: Path) -> None:
    begun(tmp_path)
    moved = ["study.name=mine", "optimizer.weight_decay=0.02"]
    planned = plan.check(settings_of(*TINY, *moved, config="sweep"), Paths(tmp_path))
    book = planned.begun()
    assert list(searching.moved(planned, book)) == [], "trial 0 is to come"
    life.claim(book)
    (said,) = searching.moved(planned, book)
    assert said.startswith("optimizer.weight_decay=0.02 changes nothing here: it is searched")


def test_a_trials_settings_go_before_those_of_the_command_line() -> None:
    trial = TrialRecord(3, State.COMPLETE, {"optimizer.learning_rate": 2e-4}, 0.9)
    given = ("model=tiny", "optimizer.learning_rate=1e-3", "study.n_trials=4", "trainer.seed=1")
    assert reporting.training_of(given, trial) == ["model=tiny", "trainer.seed=1", "optimizer.learning_rate=0.0002"]


def test_one_study_with_its_trials(finished: tuple[Place, Done], monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    place, _ = finished
    monkeypatch.chdir(place.folder)
    status.main(["small"])
    out = capsys.readouterr().out
    assert out.startswith("Study small, accuracy: over: all 4 trials are done\n")
    for trial in trials_of(place, "small"):
        assert re.search(rf"^ +{trial.number}( \*)? +{trial.state.name} ", out, re.M)
    assert len(re.findall(r"^ +\d+ \*", out, re.M)) == 1
    assert out.count("learning_rate=") == 4
    assert re.findall(r"^baseline (\w+)  0\.\d{4}$", out, re.M) == ["majority", "tfidf_logreg", "untuned"]


def test_a_study_that_is_not_over_says_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path)
    studied = studies.load("mine", Paths(tmp_path))
    book = studied.book
    assert searching.standing(book) == {}
    mine = life.claim(book)
    assert searching.standing(book)["in work"].startswith("trial 0, in other hands")
    life.report(book, mine, Evaluation(1, 0.25, 8, {"accuracy": 0.5}, 0.1))
    life.release(book, mine)
    assert searching.standing(book) == {"goes on": "trial 0 after 25 %; 0 s searched so far"}
    overview.show("mine", None, Paths(tmp_path))
    out = capsys.readouterr().out
    assert "no trial is in work" in out
    assert "Trials: 1 WAITING" in out
    with pytest.raises(Refusal, match=r"is not over, .* 0 of 8 trials have ended"):
        contenders.line_up(studied, ComparisonSettings("mine", None, 2, 1, 0.0, True, None))
    while mine := life.claim(book):
        life.finish(book, mine, Outcome(State.FAIL, reason="why not"))
    with pytest.raises(Refusal, match=r"has no COMPLETE trial with tuned settings"):
        contenders.line_up(studied, ComparisonSettings("mine", None, 2, 1, 0.0, True, None))


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_trials_as_a_file(finished: tuple[Place, Done], tmp_path: Path, ending: str) -> None:
    place, _ = finished
    out = tmp_path / f"trials.{ending}"
    overview.show("small", str(out), Paths(place.folder))
    match ending:
        case "csv" | "tsv":
            found = pd.read_csv(out, sep="\t" if ending == "tsv" else ",")
        case "parquet":
            found = pd.read_parquet(out)
        case _:
            found = pd.DataFrame(
                [json.loads(x) for x in out.read_text().splitlines()]
                if ending == "jsonl"
                else json.loads(out.read_text())
            )
    trials = trials_of(place, "small")
    assert found["number"].tolist() == [t.number for t in trials]
    assert found["params.optimizer.learning_rate"].tolist() == pytest.approx(
        [t.params["optimizer.learning_rate"] for t in trials]
    )
    done = found[found["state"] == "COMPLETE"]
    assert done["metrics.accuracy"].tolist() == pytest.approx(done["score"].tolist())
    assert done["run_id"].str.len().eq(32).all()


def test_what_is_refused(finished: tuple[Place, Done], tmp_path: Path) -> None:
    here = Paths(finished[0].folder)
    with pytest.raises(Refusal, match=r"^--export is trials\.xlsx; a table goes to a file that ends with \.csv"):
        overview.show("small", "trials.xlsx", here)
    with pytest.raises(Refusal, match=r"none/trials.csv, and nothing can be written there: Cannot save file"):
        overview.show("small", str(tmp_path / "none" / "trials.csv"), here)
    with pytest.raises(Refusal, match=r"^study.name is other, and there is no such study"):
        overview.show("other", None, here)
    with pytest.raises(Refusal, match=r"^No study has been searched in"):
        overview.show(None, None, Paths(tmp_path))


def test_a_study_that_cannot_be_read_does_not_hide_the_others(finished: tuple[Place, Done], tmp_path: Path) -> None:
    here = Paths(tmp_path)
    for name in ("good", "bad"):
        folder = here.study(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder).mkdir()
    known = (finished[0].study("small") / studies.CONFIG).read_text()
    (here.study("bad") / studies.CONFIG).write_text(known.replace("url: null", "url: mysql://nowhere/x"))
    (here.study("good") / studies.CONFIG).write_text(known)
    rows = {row.name: row.state for row in overview.overview(here)}
    assert rows["bad"].startswith("cannot be read: storage.url is mysql://nowhere/x")
    assert rows["good"].startswith("cannot be read: The study good was never begun")
