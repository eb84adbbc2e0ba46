"""Cached folders, made once by the process that needs them first. They are complete or do not exist.

Each has a manifest with a hash of every file in it, so that one which a power cut or a full disk has damaged is made
again.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from src.core.messages import notify
from src.core.paths import replacing

MANIFEST = ".manifest.json"  # in a cached folder: file -> hash of its content; earlier versions did not write it
_intact: set[Path] = set()  # folders that this process has checked


def content_key(*parts: str) -> str:
    """A hash of `parts` in 20 hexadecimal digits, for the name of a cached folder."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns `folder`. If it does not exist, or is damaged, `make` fills it, and other processes wait meanwhile."""
    if _is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_intact(folder):
            if folder.is_dir():
                notify(f"  note: the cache {folder} was damaged; it is made again.")
                shutil.rmtree(folder)
            with replacing(folder) as scratch:
                scratch.mkdir()
                make(scratch)
                (scratch / MANIFEST).write_text(json.dumps(_hashes(scratch)), encoding="utf-8")
    _intact.add(folder)
    return folder


def _is_intact(folder: Path) -> bool:
    """Whether the folder exists, and its files are as they were made. Checked once per process."""
    if folder in _intact and folder.is_dir():
        return True
    if not folder.is_dir():
        return False
    manifest = folder / MANIFEST
    if manifest.exists():
        try:
            expected = json.loads(manifest.read_text(encoding="utf-8"))
        except ValueError:
            return False
        if expected != _hashes(folder):
            return False
    _intact.add(folder)
    return True


def _hashes(folder: Path) -> dict[str, str]:
    """A hash of every file below `folder`, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): _hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
