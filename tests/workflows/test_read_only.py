"""A project that one may only read can be looked at; commands that would write to it say so before they begin."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Done, Place, clean_environment

ANOTHER_USER = 65534
WITHOUT_PRIVILEGES = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]  # root, for whom modes of files count

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"),
]


@pytest.fixture
def not_ours(judged: tuple[Place, Done], tmp_path: Path) -> Place:
    """A study with a champion, in files of another user."""
    place = Place(tmp_path / "project")
    shutil.copytree(judged[0].folder, place.folder)
    promoted = place.run("src.promote")  # this also writes the folder's new place into its database
    assert promoted.code == 0, promoted.err
    for path in (place.folder, *place.folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.chown(path, ANOTHER_USER, ANOTHER_USER)
    return place


def run(place: Place, module: str, *arguments: str) -> Done:
    done = subprocess.run(
        [*WITHOUT_PRIVILEGES, sys.executable, "-m", module, *arguments],
        cwd=place.folder, env=clean_environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def test_what_only_reads_works_and_the_rest_is_refused(not_ours: Place) -> None:
    before = {path: path.stat().st_mtime for path in not_ours.folder.rglob("*")}
    assert subprocess.run([*WITHOUT_PRIVILEGES, "touch", "x"], cwd=not_ours.folder, check=False).returncode != 0

    status = run(not_ours, "src.status")
    assert status.code == 0, status.err
    assert "over: all 3 trials are done" in status.out
    assert "-refit: test" in status.out
    one = run(not_ours, "src.status", "letters")
    assert one.code == 0, one.err
    predicted = run(not_ours, "src.predict", "abcd abcd", "zyxw zyxw")
    assert predicted.code == 0, predicted.err
    assert [line.split()[0] for line in predicted.out.splitlines()] == ["low", "high"]

    for module, *arguments in (
        ["src.compare"], ["src.promote"], ["src.sweep", "-m", "study.name=another"], ["src.train"],
        ["src.publish", "repo=me/x", "publish.dry_run=true"],
    ):  # fmt: skip
        refused = run(not_ours, module, *arguments)
        assert refused.code == 2, (module, refused.err)
        assert refused.err.strip().startswith(f"Nothing can be written to {not_ours.folder}/mlruns"), refused.err
        assert len(refused.err.strip().splitlines()) == 1
    assert {path: path.stat().st_mtime for path in not_ours.folder.rglob("*")} == before
