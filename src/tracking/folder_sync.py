"""Synchronizes a study's folders between machines that share no disk, through its MLflow experiment's artifact store.

It uses MLflow's own client, so that any artifact store works (a server's, S3, a shared folder) and nothing else is
needed. A folder is stored as files that never change and a manifest that lists the current ones. The manifest is
written last, so that a reader, or a kill, finds either the old folder or the new.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from src.core.errors import first_line
from src.tracking.store import TrackingStore
from src.training.checkpoints import PROGRESS_FILE

P = ParamSpec("P")
T = TypeVar("T")
MANIFEST = "manifest.json"


def _os_error_on_failure(call: Callable[P, T]) -> Callable[P, T]:
    """Raises OSError for any error of MLflow and the clients that it uses."""

    @wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"the place of the study's artifacts does not answer: {first_line(error)}") from error

    return called


class FolderSync:
    """The folders of the study with the id `uid`, by name. Raises OSError if the artifact store does not answer."""

    def __init__(self, store: TrackingStore, uid: str) -> None:
        self.store, self.uid = store, uid

    @cached_property
    def _artifacts(self) -> Any:
        """MLflow's client of the artifact store."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        root = self.store.client.get_experiment(self.store.experiment_id).artifact_location
        return get_artifact_repository(f"{root.rstrip('/')}/studies/{self.uid}", tracking_uri=self.store.uri)

    @_os_error_on_failure
    def upload(self, folder: Path, name: str) -> None:
        """Store `folder` under `name`. Only files that are new or changed are sent."""
        now = {str(f.relative_to(folder)): _stamp(f) for f in sorted(folder.rglob("*")) if _is_synced(f)}
        before = self._manifest(name)
        for file, stamp in now.items():
            if before.get(file) != stamp:
                self._artifacts.log_artifact(str(folder / file), os.path.dirname(f"{name}/{stamp}/{file}"))
        with tempfile.TemporaryDirectory() as scratch:
            manifest = Path(scratch) / MANIFEST
            manifest.write_text(json.dumps(now), encoding="utf-8")
            self._artifacts.log_artifact(str(manifest), name)
        for file, stamp in before.items():
            if now.get(file) != stamp:
                self._artifacts.delete_artifacts(f"{name}/{stamp}/{file}")

    @_os_error_on_failure
    def download(self, folder: Path, name: str) -> bool:
        """Replace `folder` by what is stored under `name`; False, and nothing changes, if nothing is stored."""
        manifest = self._manifest(name)
        if not manifest:
            return False
        for old in sorted(folder.rglob("*")) if folder.exists() else []:
            if _is_synced(old) and manifest.get(str(old.relative_to(folder))) != _stamp(old):
                old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            # the file that completes a checkpoint comes last
            for file in sorted(manifest, key=lambda f: f.endswith(PROGRESS_FILE)):
                if not (folder / file).exists():
                    _, time = manifest[file].split("-")
                    got = Path(self._artifacts.download_artifacts(f"{name}/{manifest[file]}/{file}", scratch))
                    os.utime(got, ns=(int(time, 16), int(time, 16)))
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(got, folder / file)
        return True

    @_os_error_on_failure
    def list_names(self, below: str) -> list[str]:
        """The names stored below another name."""
        return [
            f"{below}/{item.path.rsplit('/', 1)[-1]}" for item in self._artifacts.list_artifacts(below) if item.is_dir
        ]

    @_os_error_on_failure
    def delete(self, name: str) -> None:
        """Delete what is stored under `name`."""
        if self._manifest(name):
            self._artifacts.delete_artifacts(name)

    def _manifest(self, name: str) -> dict[str, str]:
        """File -> stamp of what is stored under `name`; empty if nothing is."""
        if not any(item.path.endswith(f"{name}/{MANIFEST}") for item in self._artifacts.list_artifacts(name)):
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            stamps: dict[str, str] = json.loads(
                Path(self._artifacts.download_artifacts(f"{name}/{MANIFEST}", scratch)).read_text(encoding="utf-8")
            )
        return stamps


def _is_synced(file: Path) -> bool:
    return file.is_file() and file.suffix not in (".lock", ".part")


def _stamp(file: Path) -> str:
    """A string that changes with the file."""
    status = file.stat()
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"
