"""The import contracts hold, and break when an import is planted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.config.groups import ROOT


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    runner = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run([sys.executable, "-c", runner], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name in ("src", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("data/splits.py", "import optuna"),
        ("training/metrics.py", "import mlflow"),
        ("search/study.py", "import hydra"),
        ("workflows/sweep/run.py", "import transformers"),
        ("tracking/run_log.py", "import torch"),
        ("data/tokenization.py", "from src.training import objectives"),
        ("search/study.py", "from src.tracking import run_log"),
        ("search/trial_lifecycle.py", "from src.workers import context"),
        ("workflows/promote.py", "from src.data import test_split"),
        ("training/baselines.py", "from src.data import test_split"),
        ("verdict/bootstrap.py", "import torch"),
        ("training/pretrained.py", "import accelerate"),
        ("console/output.py", "import matplotlib"),
    ],
)
def test_a_planted_import_breaks_them(house: Path, module: str, line: str) -> None:
    file = house / "src" / module
    file.write_text(f"{line}\n{file.read_text()}")
    done = lint(house)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def test_planning_a_study_imports_neither_the_trainer_nor_what_draws() -> None:
    """The launching process is there within seconds; what trains is imported beside it, by what workers fork from."""
    planned = "from src.workflows import join; from src.workflows.sweep import finish, monitor, run"
    script = f"import sys; {planned}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"transformers.trainer", "evaluate", "matplotlib", "scipy.stats", "sklearn"} & set(done.stdout.split())
