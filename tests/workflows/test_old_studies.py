"""What earlier versions stored is read; what a newer one stored is refused.

`old_studies/` holds folders of studies: starter and asha were killed in the middle of a trial, as commit 2660cc4 left
them, when modules, classes and files had other names; judged-* were compared and promoted by the commit of that name.
"""

import json
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from src.comparison import saved_study
from src.comparison.contenders import CONTENDERS_FILE, Contenders
from src.config.groups import ROOT
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.core.record_files import SCHEMA
from src.core.records import State, TrainingResult
from src.data import test_split
from src.reports.search_record import JudgedSearch
from src.tracking import run_tree
from src.verdict.records import BETTER, load_verdict
from src.workers.timeline import read_timeline
from src.workflows import status
from src.workflows.compare import evaluate
from src.workflows.sweep import report
from tests.support.commands import COMPARE, INLINE, Done, Place, client_of, trials_of

STORED = ROOT / "tests" / "old_studies"
COMMON = [
    "model=tiny", "data=starter", "data.max_examples=100", "trainer.logging_steps=2", "study.baselines=[majority]",
    "study.report=false", *INLINE,
]  # fmt: skip
COMMANDS = {  # as they were typed, but that 8 trials of asha are too few for a second one to reach its end
    "starter": [*COMMON, "study.name=starter-old", "study.n_trials=6"],
    "asha": [*COMMON, "study.name=asha-old", "study.n_trials=20", "pruner=asha", "trainer.num_train_epochs=2"],
}


def unpacked(name: str, folder: Path) -> Place:
    """The study in `folder`; its MLflow database says that its artifacts are there."""
    with tarfile.open(STORED / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with sqlite3.connect(folder / "mlflow.db") as database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, '/studies/{name}', ?)", [str(folder)])
    return Place(folder)


@pytest.mark.long
@pytest.mark.parametrize("name", list(COMMANDS))
def test_an_old_study_is_continued_compared_and_promoted(tmp_path: Path, name: str) -> None:
    place = unpacked(name, tmp_path)
    study = f"{name}-old"
    before = trials_of(place, study)
    unfinished = [t.number for t in before if not t.state.is_finished()]
    checkpoints = [t for t in unfinished if list(place.study(study).glob(f"trials/{t:04d}/training/checkpoint-*"))]
    assert checkpoints, "no trial was stopped in its middle: this shows nothing"

    refused = place.sweep(*COMMANDS[name])
    assert refused.code == 2
    assert "That space is space=wide now: with it, this command continues the study." in refused.err
    done = place.sweep(*COMMANDS[name], "space=wide")
    assert done.code == 0, done.err + done.out
    after = trials_of(place, study)
    assert [t.number for t in after] == list(range(len(after)))
    assert all(t.state.is_finished() and t.state.name != "FAIL" for t in after), done.out
    assert {t.number: t.params for t in before if t.params}.items() <= {t.number: t.params for t in after}.items()
    saved = saved_study.load_study(study, Paths(tmp_path))
    assert {t.state for t in saved.study.trials()} <= {State.COMPLETE, State.PRUNED}
    for number in checkpoints:
        steps = sorted(run_tree.trial_run(saved.study, number).read_curves().get("train/loss", {}))
        assert steps == sorted(set(steps))

    compared = place.run("src.compare", *COMPARE, *INLINE)
    assert compared.code == 0, compared.err + compared.out
    promoted = place.run("src.promote")
    assert promoted.code in (0, 3), promoted.err + promoted.out  # 3: so few texts show no difference
    (model,) = client_of(place).search_registered_models()
    assert "challenger" in model.aliases


# --- records ---

JUDGED = ("1ea4719", "2660cc4", "d6bdd31", "40f17bd")  # the first has no champion's key in its verdict, and no findings


@pytest.mark.parametrize("commit", JUDGED)
def test_the_records_of_earlier_versions_are_read(tmp_path: Path, commit: str) -> None:
    place = unpacked(f"judged-{commit}", tmp_path)
    paths = Paths(tmp_path)
    (row,) = status.status_rows(paths)
    assert row.state == "over: all 3 trials are done"
    assert row.best == "1.0000 (trial 2)"
    assert row.verdict == "trial-2: test accuracy 1.0000, better against majority"

    saved = saved_study.load_study("letters", paths)
    stored = json.loads((saved.comparison_dir / "verdict.json").read_text())
    verdict = load_verdict(saved.comparison_dir)
    assert verdict is not None
    assert (verdict.number, verdict.champion_key) == (1, "")
    assert (verdict.key, verdict.winner, list(verdict.seeds)) == (stored["key"], stored["winner"], stored["seeds"])
    assert [result.verdict for result in verdict.against] == [BETTER] * len(stored["against"])
    contenders = Contenders.read(saved.comparison_dir)
    assert {c.name for c in contenders.contenders} == {"trial-2", "default", "majority"}
    assert saved.study.baseline_results()["majority"].score == 0.5
    assert saved.study.seconds_spent() > 1
    assert sorted(run_tree.trial_run(saved.study, 2).read_curves()["train/loss"])
    (ledger,) = (tmp_path / "mlruns" / "openings").iterdir()
    assert len(test_split.opening_keys(ledger)) == 1
    findings = saved.comparison_dir / "findings.json"
    if findings.exists():
        assert JudgedSearch.from_json(findings.read_text()).verdict == verdict
        assert evaluate.test_errors(saved.comparison_dir, verdict) is not None
    assert place.folder.joinpath("mlruns/errors").exists() is False


def with_schema_99(file: Path) -> None:
    """Let the file say that it was written with version 99 of the schema."""
    text = file.read_text()
    if file.suffix == ".yaml":
        file.write_text(re.sub(r"^schema: \d+", "schema: 99", text))
    elif file.suffix == ".log":
        file.write_text(text.replace(f'"schema":{SCHEMA}', '"schema":99'))
    else:
        file.write_text("\n".join(json.dumps(json.loads(line) | {"schema": 99}) for line in whole_values(text)) + "\n")
    assert file.read_text() != text


def whole_values(text: str) -> list[str]:
    try:
        json.loads(text)
    except ValueError:
        return [line for line in text.splitlines() if line]  # a value per line
    return [text]


READ_BY_STATUS = ("config.yaml", "journal.log", "comparison/verdict.json", "spent.json")


@pytest.mark.parametrize("name", READ_BY_STATUS)
def test_a_study_of_a_newer_version_is_set_aside_with_a_sentence(
    judged: tuple[Place, Done], tmp_path: Path, name: str
) -> None:
    shutil.copytree(judged[0].study("letters"), tmp_path / "mlruns" / "studies" / "letters")
    with_schema_99(Paths(tmp_path).study_dir("letters") / name)
    (row,) = status.status_rows(Paths(tmp_path))
    assert "was written by a newer version of Trialbook (its schema is version 99" in row.state


def test_every_other_record_of_a_newer_version_is_refused(
    judged: tuple[Place, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged[0].folder)  # where the data are
    shutil.copytree(judged[0].folder / "mlruns", tmp_path / "mlruns", ignore=shutil.ignore_patterns("cache"))
    saved = saved_study.load_study("letters", Paths(tmp_path))
    folder, verdict = saved.comparison_dir, load_verdict(saved.comparison_dir)
    assert verdict is not None
    (ledger,) = (tmp_path / "mlruns" / "openings").glob("*.jsonl")
    outcome = next(folder.glob("repeats/*/*/outcome.json"))
    readers: dict[Path, Callable[[Path], object]] = {
        folder / CONTENDERS_FILE: lambda _: Contenders.read(folder),
        folder / "analysis.json": lambda _: evaluate.test_errors(folder, verdict),
        saved.study.folder / "baselines" / "majority" / "outcome.json": lambda _: saved.study.baseline_results(),
        outcome: lambda file: TrainingResult.from_json(file.read_text()),
        next(saved.study.folder.glob("trials/*/layers.json")): lambda _: report.search_record(saved),
        next(saved.study.folder.glob("work/*/*.jsonl")): lambda _: read_timeline(saved.study.folder),
        ledger: test_split.opening_keys,
    }
    for file, read in readers.items():
        before = file.read_text()
        read(file)
        with_schema_99(file)
        with pytest.raises(InvalidInput, match="by a newer version of Trialbook"):
            read(file)
        file.write_text(before)
