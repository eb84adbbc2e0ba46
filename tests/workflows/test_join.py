"""Workers that join a study while it is searched."""

from pathlib import Path

import pytest

from src.core.errors import CommandFailed
from src.workers import timeline
from src.workflows import join
from tests.support.commands import LETTERS, Place, trials_of, wait_until
from tests.support.data import settings_of, write_letters
from tests.support.studies import open_book

SLOW = ["study.n_trials=6", "trainer.num_train_epochs=40", "space.trainer.num_train_epochs.low=40",
        "space.trainer.num_train_epochs.high=60", "pruner=none"]  # fmt: skip


@pytest.mark.long
def test_a_worker_joins_by_the_studys_name(place: Place) -> None:
    write_letters(place.folder / "letters.csv")
    process = place.start("src.sweep", "-m", *LETTERS, *SLOW, "study.name=joined", "workers=1", "worker.cpus=1")
    wait_until(lambda: list(place.study("joined").glob("trials/0000/lease.json")))
    joined = place.sweep("study.join=joined", "workers=1", "worker.cpus=1")
    out, err = process.communicate(timeout=200)
    assert (joined.code, process.returncode) == (0, 0), joined.err + err
    assert "1 worker joins" in joined.out
    assert "all 6 trials are done" in out
    assert [t.number for t in trials_of(place, "joined")] == list(range(6))
    busy = {s.worker for s in timeline.read_timeline(place.study("joined")) if s.what.startswith("trial")}
    assert busy == {0, 1}
    assert len(list(place.folder.glob("mlruns/outputs/*"))) == 1


@pytest.mark.long
def test_there_must_be_a_study_to_join(place: Place) -> None:
    done = place.sweep("study.join=nobody")
    assert done.code == 2
    assert done.err.startswith("study.name is nobody, and there is no such study in ")


def test_a_password_is_not_left_with_the_study(tmp_path: Path) -> None:
    study = open_book(tmp_path, f"storage.url=sqlite:///{tmp_path}/optuna.db")
    join.save_overrides(study, settings_of("study.name=s", "tracking.uri=http://me:secret@host"))
    assert study.optuna_study.user_attrs[join.OVERRIDES_ATTR] == ["study.name=s", "tracking.uri=http://***@host"]


def test_workers_that_ended_early_are_no_success() -> None:
    settings = settings_of("study.join=mine", "workers=2")
    with pytest.raises(CommandFailed, match="1 of the 2 that joined mine ended early"):
        join.join(settings, lambda _: 1)
    join.join(settings, lambda _: 0)
