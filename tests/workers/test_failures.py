"""What machines do to a training: memory that runs out, a study's store that is gone, a disk that is full."""

import dataclasses
import errno
import json
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from src.cli.entry import handle_errors
from src.config.settings import Recipe
from src.core.errors import StorageUnavailable
from src.core.paths import Paths, atomic_write
from src.core.records import Calibration, Evaluation, State, TrainingResult
from src.search import trial_lifecycle
from src.tracking.store import TrackingStore
from src.training import distributed, pretrained
from src.training.callbacks import Objective
from src.training.failures import DISK_FULL, OUT_OF_MEMORY, failure_reason, halve_micro_batch, micro_batch_size
from src.training.trainer import fine_tune
from src.workers import context, search_worker
from tests.support.commands import FAST, Done, Place, trials_of
from tests.support.data import settings_of
from tests.support.studies import open_book
from tests.support.trainings import RecordingCallback, tiny_training


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


SPAWN = multiprocessing.get_context("spawn")
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}  # what is freed is free for the next attempt
LONG_TEXTS = "a film of many words, told at length and without haste " * 8


def cut_short(cache: str, megabytes: int | None, oom_retry: bool, answer: Connection) -> None:
    """Train with so much memory beyond what the process has; say how it ended, and the curve of its loss."""
    from src.tracking.run_log import RunLog
    from tests.support.data import write_rows

    folder = Path(cache)
    file = write_rows(folder / "long.csv", [(f"{LONG_TEXTS} {i}", i % 2) for i in range(900)])
    store = TrackingStore(f"sqlite:///{folder}/mlflow.db", "0")

    def train(name: str, *more: str) -> tuple[RunLog, TrainingResult]:
        settings = settings_of(
            "model=tiny", "model.max_tokens=128", "data=files", f"data.path={file}", "data.label_names=[a,b]",
            "trainer.per_device_train_batch_size=512", "trainer.per_device_eval_batch_size=16", "trainer.bf16=false",
            "model.dropout=0.0", "trainer.logging_steps=1", "study.rungs=[1.0]", "study.rung_examples=null",
            "trainer.num_train_epochs=1", f"worker.oom_retry={oom_retry}", *more,
        )  # fmt: skip
        desk = context.WorkerContext(settings, Paths(folder), store)
        desk.tokenized_data(settings.recipe.model)
        run = RunLog(folder / f"run-{name}", "key", "name")
        watch = context.TrackingCallback(run, store)
        return run, context.attempt_training(settings.recipe, desk, watch, folder / f"training-{name}")

    if megabytes is not None:
        train("small", "trainer.per_device_train_batch_size=4", "data.max_examples=8")  # its imports, its threads
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + megabytes * 10**6
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    run, result = train(f"{megabytes}-{oom_retry}")
    tags = {k: v for event in run._events(0) for k, v in event.get("tags", {}).items()}
    losses = list(run.read_curves().get("train/loss", {}).values())
    answer.send((result.state, result.reason, tags.get("micro_batch"), losses))


def trained(
    folder: Path, megabytes: int | None, oom_retry: bool = True
) -> tuple[str, str | None, str | None, list[float]]:
    claimed, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=cut_short, args=(str(folder), megabytes, oom_retry, theirs))
    with patch.dict(os.environ, AT_ONCE):
        process.start()
    theirs.close()
    try:
        assert claimed.poll(400), "the training neither ended nor failed"
        return claimed.recv()
    finally:
        process.join(10)
        process.kill()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited as Linux does it")
def test_out_of_memory_a_training_begins_anew_with_as_many_examples_per_update(tmp_path: Path) -> None:
    state, reason, micro, with_room = trained(tmp_path, None)
    assert (state, reason, micro) == (State.COMPLETE, None, None)
    state, reason, micro, losses = trained(tmp_path, 150)
    assert (state, reason) == (State.COMPLETE, None)
    assert micro is not None
    assert int(micro) < 512
    assert losses == pytest.approx(with_room, rel=1e-3)
    state, reason, micro, _ = trained(tmp_path, 150, oom_retry=False)
    assert state == State.FAIL
    assert str(reason).startswith(f"{OUT_OF_MEMORY}: ")
    assert micro is None


def test_a_batch_is_halved_until_it_is_odd() -> None:
    recipe = settings_of("trainer.per_device_train_batch_size=12", "trainer.gradient_accumulation_steps=2").recipe
    sizes = []
    while (smaller := halve_micro_batch(recipe)) is not None:
        recipe = smaller
        sizes.append((micro_batch_size(recipe), recipe.trainer["gradient_accumulation_steps"]))
    assert sizes == [(6, 4), (3, 8)]


def test_micro_batches_see_the_same_examples_per_update(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache)
    recipe = dataclasses.replace(settings.recipe, model=dataclasses.replace(settings.recipe.model, dropout=0.0))
    smaller = halve_micro_batch(recipe)
    assert smaller is not None
    losses = []
    for number, each in enumerate((recipe, smaller)):
        calls = RecordingCallback()
        fine_tune(each, checkpoint, data, Objective("accuracy", "maximize", (1.0,)), calls, tmp_path / str(number))
        losses.append([values["train/loss"] for _, values in calls.curves])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # bf16 where the processor has it


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device"), DISK_FULL),
        (
            RuntimeError("[enforce fail at inline_container.cc:778] . PytorchStreamWriter failed writing file"),
            DISK_FULL,
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), DISK_FULL),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive"), OUT_OF_MEMORY),
        (RuntimeError("unable to mmap 112112 bytes from file <x>: Cannot allocate memory (12)"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OUT_OF_MEMORY),
        (MemoryError(), OUT_OF_MEMORY),
        (OSError(13, "Permission denied"), "PermissionError"),
    ],
)
def test_a_shortage_is_named(error: Exception, says: str) -> None:
    assert failure_reason(error).startswith(f"{says}: ")


def test_a_lost_store_is_not_the_trials_fault(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.n_trials=2")
    claimed = trial_lifecycle.claim_trial(study)
    assert claimed is not None
    journal = tmp_path / "journal.log"
    kept = journal.rename(tmp_path / "aside")
    journal.mkdir()  # nothing can be read from it or appended to it, whoever asks
    with pytest.raises(StorageUnavailable, match="IsADirectoryError"):
        trial_lifecycle.report_score(study, claimed, Evaluation(1, 0.25, 8, {"accuracy": 0.5}, 0.1))
    journal.rmdir()
    kept.rename(journal)
    again = open_book(tmp_path, "study.n_trials=2")
    assert [t.state for t in again.trials()] == [State.RUNNING]
    assert again.unfinished_trials() == [0]


def test_a_worker_without_records_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, search_worker.exit_if_storage_fails(3):
        raise OSError(errno.EIO, "Input/output error")
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "worker 3 ends: the study's records cannot be kept (OSError: [Errno 5] Input/output error). Its trial keeps "
        "its last checkpoint; once there is room, or the database is back, the same command continues it.\n"
    )


def test_a_command_without_room_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, handle_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "\nNothing more can be written: No space left on device (report.html). Make room first. Nothing that was done "
        "so far is lost; the same command continues it.\n"
    )


def test_a_command_whose_records_are_gone_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, handle_errors(), trial_lifecycle.storage_errors(files_too=False):
        raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith(
        "\nThe study's records cannot be reached: OperationalError: server closed the connection."
    )
    assert message.endswith("the same command continues it.\n")


def test_a_training_that_is_taken_up_has_as_many_examples_at_a_time_as_it_began_with(tmp_path: Path) -> None:
    """Memory was too short for more; with more, it would fail, and lose its checkpoint."""
    settings = settings_of("model=tiny", "data.max_examples=80", "study.rungs=[0.5,1.0]", "trainer.num_train_epochs=2")
    desk = context.WorkerContext(settings, Paths(tmp_path), TrackingStore(f"sqlite:///{tmp_path}/mlflow.db", "0"))
    folder = tmp_path / "training"
    atomic_write(folder / context.MICRO_BATCH_FILE, "4")
    first, second = RecordingCallback(stop_after_steps=7, state=State.PAUSED), RecordingCallback()
    assert context.train_within_memory(settings.recipe, desk, first, folder).state == State.PAUSED
    state = json.loads((folder / "checkpoint-7" / "trainer_state.json").read_text())
    assert state["train_batch_size"] == 4
    result = context.train_within_memory(settings.recipe, desk, second, folder)
    assert (result.state, result.steps) == (State.COMPLETE, 10)
    assert second.curves[0][0] > 7  # not from the beginning


def test_a_speed_that_cannot_be_measured_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of("model=tiny", "data.max_examples=80")
    desk = context.WorkerContext(settings, Paths(tmp_path), TrackingStore(f"sqlite:///{tmp_path}/mlflow.db", "0"))
    tried: list[int] = []

    def too_big(_: int, recipe: Recipe, *rest: Any) -> Calibration:
        tried.append(micro_batch_size(recipe))
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return distributed.trainer.measure_speed(recipe, *rest)

    monkeypatch.setattr(distributed, "measure_speed", too_big)
    context.measure_speed_once(desk, 0, 1)
    assert tried == [16, 8, 4]
    assert list(tmp_path.glob("mlruns/cache/calibration/*/0.json"))

    def broken(*_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(distributed, "measure_speed", broken)
    context.measure_speed_once(desk, 0, 2)
    assert capsys.readouterr().err == ("  note: worker 0 could not measure its speed: ValueError: no such thing\n")


# --- a disk that is full ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.long
def test_a_full_disk_costs_trials_and_never_the_study(small_disk: Path) -> None:
    place = Place(small_disk)
    study = [*FAST, "study.name=full", "study.n_trials=6", "study.max_failures=9", "workers=1"]
    first = place.sweep(*study[:-3], "study.n_trials=2", "study.max_failures=9", "workers=1")
    assert first.code == 0, first.err
    ballast = small_disk / "ballast"
    free = int(subprocess.check_output(["df", "--output=avail", "-B1", str(small_disk)], text=True).split()[1])
    ballast.write_bytes(b"\0" * (free - 150_000))  # room for records, none for a checkpoint
    disk_full = place.sweep(*study)
    assert_told(disk_full)
    ballast.unlink()
    again = place.sweep(*study)
    assert again.code == 0, again.err
    assert "6 trials" in again.out
    book = open_trials(place, "full")
    assert len(book) == 6
    assert {t["state"] for t in book} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert sum(t["state"] == "COMPLETE" for t in book) >= 2
    assert all(DISK_FULL in t["reason"] for t in book if t["state"] == "FAIL")


def assert_told(done: Done) -> None:
    """The command said what is short, and ended without a trace of Python."""
    message = done.out + done.err
    assert DISK_FULL in message or "No space left on device" in message, message
    assert "Traceback" not in message, message


def open_trials(place: Place, name: str) -> list[dict[str, str]]:
    return [
        {"state": t.state.name, "reason": str(t.user_attrs.get("outcome", {}).get("reason"))}
        for t in trials_of(place, name)
        if t.state != TrialState.WAITING
    ]


def test_a_planted_pickle_in_a_checkpoint_is_not_run(cache: Path, tmp_path: Path) -> None:
    import pickle

    import torch

    class Planted:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "was-run",)

    settings, checkpoint, data = tiny_training(cache)
    folder = tmp_path / "training"
    objective = Objective("accuracy", "maximize", (0.5, 1.0))
    fine_tune(settings.recipe, checkpoint, data, objective, RecordingCallback(stop_at=0.5, state=State.PAUSED), folder)
    (saved,) = folder.glob("checkpoint-*")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        if (saved / name).exists():
            torch.save(Planted(), saved / name)
            with pytest.raises(pickle.UnpicklingError):
                torch.load(saved / name, weights_only=True)
    with pytest.raises(pickle.UnpicklingError):
        fine_tune(settings.recipe, checkpoint, data, objective, RecordingCallback(), folder)
    assert not (tmp_path / "was-run").exists()
    assert pretrained.WEIGHTS_FILE in {f.name for f in saved.iterdir()}
