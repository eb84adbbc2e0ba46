"""Paths below the folder that a command was started in, and atomic writing of files and folders."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from src.core.errors import InvalidInput


@dataclass(frozen=True)
class Paths:
    """`root` holds mlflow.db and mlruns/; everything generated is below mlruns/."""

    root: Path

    @property
    def cache_dir(self) -> Path:
        """The folder of prepared data, models and calibrations."""
        return self.root / "mlruns" / "cache"

    def study_dir(self, name: str) -> Path:
        """The folder of the study `name`."""
        return self.root / "mlruns" / "studies" / name

    def comparison_dir(self, study: str) -> Path:
        """The folder of a study's comparison."""
        return self.study_dir(study) / "comparison"

    def test_openings_path(self, fingerprint: str) -> Path:
        """The ledger of every opening of one test split."""
        return self.root / "mlruns" / "openings" / f"{fingerprint}.jsonl"

    def calibration_dir(self, key: str) -> Path:
        """The folder of the calibrations with this key."""
        return self.cache_dir / "calibration" / key

    @property
    def speed_dir(self) -> Path:
        """The folder of the locks of measurements of models' speed."""
        return self.cache_dir / "speed"

    def training_dir(self, name: str) -> Path:
        """A single training's scratch folder (python -m src.train)."""
        return self.root / "mlruns" / "trainings" / name


def can_write(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the nearest folder above it that exists."""
    while not folder.exists():
        if folder.parent == folder:
            return False
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def check_writable(root: Path) -> None:
    """Raise InvalidInput if nothing can be written below `root`/mlruns."""
    folder = root / "mlruns"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        looks = " In a folder that you can only read, src.status, src.predict and src.ui work."
        raise InvalidInput(
            f"Nothing can be written to {folder} ({error.strerror}), where studies, checkpoints and caches go. Start "
            "the command in a folder that is yours, with room on its disk."
            + (looks if isinstance(error, PermissionError) or error.errno == errno.EROFS else "")
        ) from error


@contextmanager
def replacing(path: Path, many_writers: bool = False) -> Iterator[Path]:
    """A scratch path beside `path` that takes its place when the block ends: a file, or a folder that is not there yet.

    A reader, or a kill, finds the old content or the new. If the block raises, `path` stays as it was. What a killed
    attempt left is deleted by the next one. With `many_writers`, each process has a scratch path of its own.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part" if many_writers else f"{path.name}.part")
    _delete(scratch)
    try:
        yield scratch
    except BaseException:
        _delete(scratch)
        raise
    scratch.replace(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def atomic_write(path: Path, content: str, durable: bool = True) -> None:
    """Write a text file so that a reader, or a kill, finds the old content or the new. Several processes may do so.

    Args:
        path: of the file.
        content: of the file; it is encoded as UTF-8.
        durable: whether a power cut finds one of the two as well. This waits for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, many_writers=True) as scratch, scratch.open("w", encoding="utf-8") as stream:
        stream.write(content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries, where the system can open folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
