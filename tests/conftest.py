"""Helpers: real commands in folders of their own, and small settings, data and spaces."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"  # of trainings in this process: tiny models; read when torch is imported

import pytest
from hydra import compose, initialize_config_dir

import hydra_plugins.trialbook as plugins
from src.config import CONF_DIR, settings_from
from src.paths import Paths
from src.settings import PromotionSettings, Settings, TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna.trial import FrozenTrial

TINY = ["model=tiny", "data.max_examples=100", "trainer.logging_steps=2", "study.report=false"]
FAST = [*TINY, "study.baselines=[majority]", "study.rungs=[0.5,1.0]", "space.trainer.num_train_epochs.high=2"]
LETTERS = [
    "data=files", "data.path=letters.csv", "data.label_names=[low,high]", "model=tiny", "trainer.logging_steps=5",
    "study.n_trials=3", "study.rungs=[1.0]", "study.baselines=[majority,tfidf_logreg]", "workers=2",
    "study.report=false",
    "space.optimizer.learning_rate.low=1e-3", "space.optimizer.learning_rate.high=3e-3",
    "model.learning_rate=1e-3", "space.trainer.num_train_epochs.high=2", "trainer.num_train_epochs=1",
]  # fmt: skip
COMPARE = ["compare.seeds=4", "compare.top_k=1", "workers=2"]
PROCESSES = multiprocessing.get_context("forkserver")  # each forks from one that has done the imports
PROCESSES.set_forkserver_preload(["tests.test_study", "tests.test_evidence", "mlflow.store.tracking.sqlalchemy_store"])
plugins.register()


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A folder that commands run in, as a user would run them."""

    folder: Path

    def run(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> Done:
        process = self.start(module, *arguments, env=env)
        out, err = process.communicate(timeout=400)
        return Done(process.returncode, out, err)

    def start(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder, env=clean_environment() | (env or {}), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def sweep(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return self.run("src.sweep", "-m", *arguments, env=env)

    def study(self, name: str) -> Path:
        return self.folder / "mlruns" / "studies" / name


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is costly to make run in one process, one after another: `--dist loadgroup`."""
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs
        shared = {name: d[-1].scope for name, d in definitions.items() if d[-1].scope in ("session", "module")}
        own = [name for name in ("judged", "finished") if name in shared]
        if own or "module" in shared.values():
            item.add_marker(pytest.mark.xdist_group(own[0] if own else Path(item.path).stem))


def trials_of(place: Place, name: str) -> "list[FrozenTrial]":
    """The trials of a study in a journal, as Optuna reads them."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(place.study(name) / "journal.log")))
    (study,) = storage.get_all_studies()
    return storage.get_all_trials(study._study_id)


def clean_environment() -> dict[str, str]:
    dropped = ("MLFLOW", "HYDRA", "OMP_NUM_THREADS", "COLUMNS", "LINES")  # the last two pytest-xdist sets
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(CONF_DIR.parent)}


@pytest.fixture(autouse=True)
def no_tracking_uri() -> Iterator[None]:
    """mlflow.set_tracking_uri writes it into the environment, where the next test would find it, and what is set up
    for several tests before this fixture."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as it is made, with nothing in it: to be copied, for making one takes seconds."""
    from src.evidence.store import DATABASE, open_store

    folder = tmp_path_factory.mktemp("empty")
    open_store(TrackingSettings(f"sqlite:///{folder / DATABASE}", "another"), folder)
    return folder / DATABASE


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Place, Done]:
    """A small study that ran to its end, with all baselines: for tests that only read."""
    place = Place(tmp_path_factory.mktemp("finished"))
    shutil.copy(empty_store, place.folder)
    done = place.sweep(
        *TINY, "study.name=small", "study.n_trials=4", "workers=2", "space.optimizer.learning_rate.low=1e-4"
    )
    assert done.code == 0, done.err + done.out
    return place, done


def settings_of(*overrides: str, config: str = "config") -> Settings:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return settings_from(compose(config, overrides=list(overrides), return_hydra_config=True), overrides)


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return settings_of


def write_rows(path: Path, rows: Sequence[tuple[str, object]], header: str = "text,label") -> Path:
    import csv

    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def write_letters(path: Path, rows: int = 300) -> Path:
    """Words of letters from the alphabet's start (label low) or end (high), hardly one of them twice.

    A model that reads characters learns it in a few steps; counts of words say little about a new text.
    """
    import random

    generator = random.Random(0)
    letters = ("abcdefgh", "stuvwxyz")
    words = lambda label: " ".join("".join(generator.choices(letters[label], k=8)) for _ in range(2))  # noqa: E731
    return write_rows(path, [(words(i % 2), i % 2) for i in range(rows)])


# --- a study, its comparison, its champion: for tests that only read ---


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Place, Done]:
    """A study and its comparison: for tests that only read."""
    place = Place(tmp_path_factory.mktemp("judged"))
    shutil.copy(empty_store, place.folder)
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*LETTERS, "study.name=letters", "study.report=true")
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE)
    assert done.code == 0, done.err
    return place, done


@pytest.fixture
def here(judged: tuple[Place, Done], monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.chdir(judged[0].folder)
    return Paths(judged[0].folder)


@dataclass(frozen=True)
class Dry(Done):
    registered: list[str]  # models, afterwards


@pytest.fixture(scope="session")
def dry(judged: tuple[Place, Done]) -> Dry:
    """A dry run, before anything is promoted."""
    done = judged[0].run("src.promote", "promote.dry_run=true")
    return Dry(done.code, done.out, done.err, [m.name for m in client_of(judged[0]).search_registered_models()])


@pytest.fixture
def promoted(dry: Dry, here: Paths) -> Paths:
    from src.runner import promoting

    assert dry.registered == []
    promoting.promote(PromotionSettings(None, None, False, False, False), here)
    return here


def client_of(place: Place) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place.folder}/mlflow.db")


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
