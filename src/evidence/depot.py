"""Folders of a study for machines that share no disk: kept beside the artifacts of its MLflow experiment.

Whatever place the experiment's artifacts have (a server's, S3, a shared folder), with MLflow's own client for it: who
can log an artifact needs nothing more. A folder is kept as files that never change, and a manifest that names those
which are the folder now; it is written last, so that a reader, or a kill, finds the old folder or the new.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from src.errors import first_line
from src.evidence.store import Store
from src.learning.resume import PROGRESS

P = ParamSpec("P")
T = TypeVar("T")
MANIFEST = "manifest.json"


def _answered(call: Callable[P, T]) -> Callable[P, T]:
    """Raises OSError for what MLflow and the clients below it raise."""

    @wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"the place of the study's artifacts does not answer: {first_line(error)}") from error

    return called


class Depot:
    """The folders of one study, by name; `uid` is the study's own. Raises OSError where the place does not answer."""

    def __init__(self, store: Store, uid: str) -> None:
        self.store, self.uid = store, uid

    @cached_property
    def _kept(self) -> Any:
        """MLflow's client for the place."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        root = self.store.client.get_experiment(self.store.experiment_id).artifact_location
        return get_artifact_repository(f"{root.rstrip('/')}/studies/{self.uid}", tracking_uri=self.store.uri)

    @_answered
    def put(self, folder: Path, name: str) -> None:
        """Keep `folder` as it is now under `name`; only files that are new or changed are sent."""
        now = {str(f.relative_to(folder)): _stamp(f) for f in sorted(folder.rglob("*")) if _counts(f)}
        before = self._manifest(name)
        for file, stamp in now.items():
            if before.get(file) != stamp:
                self._kept.log_artifact(str(folder / file), os.path.dirname(f"{name}/{stamp}/{file}"))
        with tempfile.TemporaryDirectory() as scratch:
            manifest = Path(scratch) / MANIFEST
            manifest.write_text(json.dumps(now))
            self._kept.log_artifact(str(manifest), name)
        for file, stamp in before.items():
            if now.get(file) != stamp:
                self._kept.delete_artifacts(f"{name}/{stamp}/{file}")

    @_answered
    def fetch(self, folder: Path, name: str) -> bool:
        """Make `folder` what is kept under `name`; False, and nothing changed, if nothing is."""
        there = self._manifest(name)
        if not there:
            return False
        for old in sorted(folder.rglob("*")) if folder.exists() else []:
            if _counts(old) and there.get(str(old.relative_to(folder))) != _stamp(old):
                old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            for file in sorted(there, key=lambda f: f.endswith(PROGRESS)):  # what makes a checkpoint whole comes last
                if not (folder / file).exists():
                    _, time = there[file].split("-")
                    got = Path(self._kept.download_artifacts(f"{name}/{there[file]}/{file}", scratch))
                    os.utime(got, ns=(int(time, 16), int(time, 16)))
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(got, folder / file)
        return True

    @_answered
    def names(self, below: str) -> list[str]:
        """Names kept below another."""
        return [f"{below}/{item.path.rsplit('/', 1)[-1]}" for item in self._kept.list_artifacts(below) if item.is_dir]

    @_answered
    def drop(self, name: str) -> None:
        """Keep nothing under `name`."""
        if self._manifest(name):
            self._kept.delete_artifacts(name)

    def _manifest(self, name: str) -> dict[str, str]:
        """File -> stamp of what is kept under `name`; empty if nothing is."""
        if not any(item.path.endswith(f"{name}/{MANIFEST}") for item in self._kept.list_artifacts(name)):
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            found: dict[str, str] = json.loads(
                Path(self._kept.download_artifacts(f"{name}/{MANIFEST}", scratch)).read_text()
            )
        return found


def _counts(file: Path) -> bool:
    return file.is_file() and file.suffix not in (".lock", ".part")


def _stamp(file: Path) -> str:
    """Another one for every change of the file."""
    found = file.stat()
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"
