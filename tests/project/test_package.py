"""What is built from a clean checkout can be installed, and works from any folder."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from tests.support.commands import clean_environment
from tests.support.project import copy_project


@pytest.mark.long
def test_the_wheel_of_the_sdist_runs_a_study(tmp_path: Path) -> None:
    clean, output, place = (tmp_path / name for name in ("clean", "made", "place"))
    clean.mkdir()
    place.mkdir()
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", output, copy_project(clean)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    with tarfile.open(sdist) as packed:
        names = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
    assert {"README.md", "CHANGELOG.md", "conf/config.yaml", "sweeps/starter.yaml", "docs/index.md"} <= names
    venv.create(tmp_path / "own", with_pip=True)
    python = tmp_path / "own" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, capture_output=True)
    (packages,) = (tmp_path / "own" / "lib").glob("python3*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # what it depends on, behind its own
    environment = {k: v for k, v in clean_environment().items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [python, "-c", "import src; print(src.__file__)"], check=True, capture_output=True, text=True, cwd=place,
        env=environment,
    )  # fmt: skip
    assert result.stdout.startswith(str(packages))
    done = subprocess.run(
        [tmp_path / "own" / "bin" / "trialbook-sweep", "sweeps=starter", "model=tiny", "data.max_examples=100",
         "study.n_trials=2", "study.report=false"],
        check=False, capture_output=True, text=True, cwd=place, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "all 2 trials are done" in done.stdout
