"""Real commands in folders of their own, and the overrides that make studies small."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.config.groups import CONF_DIR
from tests.support.fork_server import ForkedCommand

if TYPE_CHECKING:
    import psutil
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial

    from src.verdict.records import Verdict

Command = subprocess.Popen[str] | ForkedCommand

TINY = ["model=tiny", "space=wide", "data.max_examples=100", "trainer.logging_steps=2", "study.report=false"]


FAST = [*TINY, "study.baselines=[majority]", "study.rungs=[0.5,1.0]", "space.trainer.num_train_epochs.high=2"]


# With two epochs and a large learning rate, averages of these models are as right as they are. The default recipe has a
# small one, and learns nothing.
LETTERS = [
    "data=files", "data.path=letters.csv", "data.label_names=[low,high]", "model=tiny", "space=wide",
    "trainer.logging_steps=5",
    "study.n_trials=3", "study.rungs=[1.0]", "study.baselines=[majority]", "workers=2",
    "study.report=false",
    "space.optimizer.learning_rate.low=1e-4", "space.optimizer.learning_rate.high=1e-2", "model.learning_rate=1e-4",
    "space.trainer.num_train_epochs.low=2", "space.trainer.num_train_epochs.high=3", "trainer.num_train_epochs=2",
]  # fmt: skip


COMPARE = ["compare.seeds=4", "compare.top_k=1", "workers=2"]


INLINE = ["launcher=inline", "workers=1"]
"""The command trains by itself: half the time, where workers are not what is tested."""


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
        assert process.returncode is not None
        return Done(process.returncode, out, err)

    def start(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> Command:
        """Start a command. It forks from a process that has done the imports, where no variable could change them."""
        if all(name.startswith(("MLFLOW_", "HF_", "NO_PROXY")) for name in env or {}):
            return ForkedCommand(module, arguments, self.folder, clean_environment() | (env or {}))
        return self.start_python(module, *arguments, env=env)

    def start_python(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in a Python of its own, as a user does."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder, env=clean_environment() | (env or {}), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def sweep(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return self.run("src.sweep", "-m", *arguments, env=env)

    def study(self, name: str) -> Path:
        return self.folder / "mlruns" / "studies" / name


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


def client_of(place: Place) -> "MlflowClient":
    """Of the store in the folder, or of the server that the file `tracking` there names."""
    from mlflow import MlflowClient

    named = place.folder / "tracking"
    return MlflowClient(named.read_text() if named.exists() else f"sqlite:///{place.folder}/mlflow.db")


def runs_of(place: Place, kind: str | None = None) -> "list[Run]":
    """All MLflow runs, or those of a kind, the oldest first."""
    client = client_of(place)
    experiments = [e.experiment_id for e in client.search_experiments()]
    kinds = f"tags.kind = '{kind}'" if kind else ""
    return client.search_runs(experiments, kinds, order_by=["attributes.start_time"])


def verdict_of(place: Place, study: str = "letters") -> "Verdict":
    from src.verdict.records import Verdict

    return Verdict.from_json((place.study(study) / "comparison" / "verdict.json").read_text())


def workers_of(pid: int) -> "list[psutil.Process]":
    """The processes that train: grandchildren of the launching process, forked from its server."""
    import psutil

    try:
        return [p for p in psutil.Process(pid).children(recursive=True) if p.ppid() != pid]
    except psutil.Error:
        return []


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait for `condition`. The limit is for a condition that never comes; a busy machine may need minutes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@dataclass(frozen=True)
class Dry(Done):
    registered: list[str]  # models, afterwards
