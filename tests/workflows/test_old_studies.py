"""Studies that an earlier version began, killed in the middle of a trial, are continued, compared and promoted.

`old_studies/` holds their folders as commit 2660cc4 left them: names of modules, classes and files were others then.
"""

import sqlite3
import tarfile
from pathlib import Path

import pytest

from src.comparison import saved_study
from src.config.groups import ROOT
from src.core.paths import Paths
from src.core.records import State
from src.tracking import run_tree
from tests.support.commands import COMPARE, INLINE, Place, client_of, trials_of

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

    done = place.sweep(*COMMANDS[name])
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
