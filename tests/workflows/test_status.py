"""`python -m src.status`: all studies, one, and its trials as a file."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from src import status
from src.comparison import contenders, saved_study
from src.comparison.launch_lock import launch_lock
from src.config.settings import ComparisonSettings
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.core.records import Evaluation, State, TrainingResult, TrialRecord
from src.search import trial_lifecycle
from src.workflows import status as status_workflow
from src.workflows.sweep import plan, report, run
from tests.support.bad_input import TINY, begun
from tests.support.commands import Done, Place, trials_of
from tests.support.data import settings_of


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
    saved = saved_study.load_study("small", Paths(place.folder))
    saved.comparison_dir.mkdir(exist_ok=True)
    with launch_lock(saved.comparison_dir):
        assert status_workflow.state_of(saved) == "over: all 4 trials are done; it is being compared now"
    assert status_workflow.state_of(saved) == "over: all 4 trials are done"


def test_a_value_that_would_move_only_what_was_tried_already_is_said(tmp_path: Path) -> None:
    begun(tmp_path)
    moved = ["study.name=mine", "optimizer.weight_decay=0.02"]
    planned = plan.plan_sweep(settings_of(*TINY, *moved, config="sweep"), Paths(tmp_path))
    study = planned.existing_study()
    assert list(run.ignored_values(planned, study)) == [], "trial 0 is to come"
    trial_lifecycle.claim_trial(study)
    (message,) = run.ignored_values(planned, study)
    assert message.startswith("optimizer.weight_decay=0.02 changes nothing here: it is searched")


def test_a_trials_settings_go_before_those_of_the_command_line() -> None:
    trial = TrialRecord(3, {"optimizer.learning_rate": 2e-4}, TrainingResult(State.COMPLETE, 0.9))
    given = ("model=tiny", "optimizer.learning_rate=1e-3", "study.n_trials=4", "trainer.seed=1")
    assert report.trial_overrides(given, trial) == ["model=tiny", "trainer.seed=1", "optimizer.learning_rate=0.0002"]


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
    saved = saved_study.load_study("mine", Paths(tmp_path))
    study = saved.study
    assert run.progress_rows(study) == {}
    claimed = trial_lifecycle.claim_trial(study)
    assert run.progress_rows(study)["in work"].startswith("trial 0, held by other workers")
    trial_lifecycle.report_score(study, claimed, Evaluation(1, 0.25, 8, {"accuracy": 0.5}, 0.1))
    trial_lifecycle.release_trial(study, claimed)
    assert run.progress_rows(study) == {"goes on": "trial 0 after 25 %; 0 s searched so far"}
    status_workflow.show_status("mine", None, Paths(tmp_path))
    out = capsys.readouterr().out
    assert "no trial is running" in out
    assert "Trials: 1 WAITING" in out
    with pytest.raises(InvalidInput, match=r"is not over, .* 0 of 8 trials have ended"):
        contenders.select_contenders(
            saved,
            ComparisonSettings(study="mine", registry=None, seeds=2, top_k=1, margin=0.0, plan_only=True, workers=None),
        )
    while claimed := trial_lifecycle.claim_trial(study):
        trial_lifecycle.finish_trial(study, claimed, TrainingResult(State.FAIL, reason="why not"))
    with pytest.raises(InvalidInput, match=r"has no COMPLETE trial with tuned settings"):
        contenders.select_contenders(
            saved,
            ComparisonSettings(study="mine", registry=None, seeds=2, top_k=1, margin=0.0, plan_only=True, workers=None),
        )


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_trials_as_a_file(finished: tuple[Place, Done], tmp_path: Path, ending: str) -> None:
    place, _ = finished
    out = tmp_path / f"trials.{ending}"
    status_workflow.show_status("small", str(out), Paths(place.folder))
    match ending:
        case "csv" | "tsv":
            result = pd.read_csv(out, sep="\t" if ending == "tsv" else ",")
        case "parquet":
            result = pd.read_parquet(out)
        case _:
            result = pd.DataFrame(
                [json.loads(x) for x in out.read_text().splitlines()]
                if ending == "jsonl"
                else json.loads(out.read_text())
            )
    trials = trials_of(place, "small")
    assert result["number"].tolist() == [t.number for t in trials]
    assert result["params.optimizer.learning_rate"].tolist() == pytest.approx(
        [t.params["optimizer.learning_rate"] for t in trials]
    )
    done = result[result["state"] == "COMPLETE"]
    assert done["metrics.accuracy"].tolist() == pytest.approx(done["score"].tolist())
    assert done["run_id"].str.len().eq(32).all()


def test_what_is_refused(finished: tuple[Place, Done], tmp_path: Path) -> None:
    here = Paths(finished[0].folder)
    with pytest.raises(InvalidInput, match=r"^--export is trials\.xlsx; a table goes to a file that ends with \.csv"):
        status_workflow.show_status("small", "trials.xlsx", here)
    with pytest.raises(InvalidInput, match=r"none/trials.csv, and nothing can be written there: Cannot save file"):
        status_workflow.show_status("small", str(tmp_path / "none" / "trials.csv"), here)
    with pytest.raises(InvalidInput, match=r"^study.name is other, and there is no such study"):
        status_workflow.show_status("other", None, here)
    with pytest.raises(InvalidInput, match=r"^No study has been searched in"):
        status_workflow.show_status(None, None, Paths(tmp_path))


def test_a_study_that_cannot_be_read_does_not_hide_the_others(finished: tuple[Place, Done], tmp_path: Path) -> None:
    here = Paths(tmp_path)
    for name in ("good", "bad"):
        folder = here.study_dir(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder).mkdir()
    known = (finished[0].study("small") / saved_study.CONFIG_FILE).read_text()
    (here.study_dir("bad") / saved_study.CONFIG_FILE).write_text(known.replace("url: null", "url: mysql://nowhere/x"))
    (here.study_dir("good") / saved_study.CONFIG_FILE).write_text(known)
    rows = {row.name: row.state for row in status_workflow.status_rows(here)}
    assert rows["bad"].startswith("cannot be read: storage.url is mysql://nowhere/x")
    assert rows["good"].startswith("cannot be read: The study good is not in its storage")
