"""Cached folders, made once by the process that needs them first. They are complete or do not exist."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from src.core.paths import replacing


def content_key(*parts: str) -> str:
    """A hash of `parts` in 20 hexadecimal digits, for the name of a cached folder."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns `folder`. If it does not exist, `make` fills it, and other processes wait meanwhile."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with replacing(folder) as scratch:
                scratch.mkdir()
                make(scratch)
    return folder
