"""Fixtures of all tests, and which tests are fast or share a process."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of trainings in this process: tiny models; read when torch is imported
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # of commands, whose threads share the cores with other tests

import pytest

import src.training  # noqa: F401  # what it sets for transformers must be set before any test imports transformers
from src.config.settings import PromotionSettings, Settings, TrackingSettings
from src.core import messages
from src.core.paths import Paths
from tests.support.commands import COMPARE, LETTERS, TINY, Done, Dry, Place, client_of
from tests.support.data import settings_of, write_letters

FAST_MODULES = {
    "test_architecture", "test_command_line", "test_compose", "test_cost", "test_data", "test_delimited",
    "test_formats", "test_fuzz", "test_json_rows", "test_labels", "test_layout", "test_leakage", "test_messages",
    "test_saved_study", "test_split_files",
    "test_old_checkpoints", "test_private_names", "test_readme", "test_registry", "test_reports", "test_sampler",
    "test_shipped_configs", "test_space", "test_stopping", "test_study", "test_verdict", "test_worker_count",
}  # fmt: skip
"""Modules that start no command and train nothing: `pytest -m fast`."""
SLOW_MARKS = {"long", "heavy", "cluster", "browser"}


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is costly to make run in one process, one after another: `--dist loadgroup`."""
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs
        shared = {name: d[-1].scope for name, d in definitions.items() if d[-1].scope in ("session", "module")}
        studies = [name for name in ("judged", "finished") if name in shared]
        if studies or "module" in shared.values():
            item.add_marker(pytest.mark.xdist_group(studies[0] if studies else Path(item.path).stem))
        slow = studies or SLOW_MARKS & {mark.name for mark in item.iter_markers()}
        if Path(item.path).stem in FAST_MODULES and not slow:
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True)
def no_tracking_uri() -> Iterator[None]:
    """mlflow.set_tracking_uri writes it into the environment, where the next test would find it, and what is set up
    for several tests before this fixture."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True)
def no_console_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest console of a process prints its messages: in tests, only a console of the same one."""
    monkeypatch.setattr(messages, "_printer", None)
    monkeypatch.setattr(messages, "_connection", None)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as it is made, with nothing in it: to be copied, for making one takes seconds."""
    from src.tracking.store import DATABASE, open_store

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


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return settings_of


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


@pytest.fixture(scope="session")
def dry(judged: tuple[Place, Done]) -> Dry:
    """A dry run, before anything is promoted."""
    done = judged[0].run("src.promote", "promote.dry_run=true")
    return Dry(done.code, done.out, done.err, [m.name for m in client_of(judged[0]).search_registered_models()])


@pytest.fixture
def promoted(dry: Dry, here: Paths) -> Paths:
    from src.workflows import promote

    assert dry.registered == []
    promote.promote(PromotionSettings(study=None, registry=None, dry_run=False, rollback=False, again=False), here)
    return here
