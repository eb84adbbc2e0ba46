"""The prepared data set on disk: made once per content, shared by all workers and later studies; test stays sealed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from src.settings import DataSettings
from src.text import lint, sources, splits

VERSION = "2"  # of the preparation; a change of its rules changes the keys of all caches
PLACES = ("path", "hub_id", "revision")  # where from; the content itself is part of the key


@dataclass(frozen=True)
class Corpus:
    """A prepared data set in `folder`. Search reads train and validation; the test split is `compare`'s alone."""

    folder: Path
    name: str
    label_names: tuple[str, ...]
    sizes: dict[str, int]
    fingerprints: dict[str, str]
    notes: dict[str, int]
    made_from: dict[str, str]  # split -> what of the source, in words
    commit: str | None  # that was loaded, where it came from the Hub

    @property
    def fingerprint(self) -> str:
        """One hash over the three splits."""
        return hashlib.sha256("".join(self.fingerprints[s] for s in splits.SPLITS).encode()).hexdigest()[:16]

    def frame(self, split: str) -> pd.DataFrame:
        """train or validation: columns text, label, row and the source's extra ones."""
        if split not in ("train", "validation"):
            raise ValueError(f"{split} is not open to the search")
        return pd.read_parquet(self.folder / f"{split}.parquet")


def prepare(data: DataSettings, cache: Path) -> Corpus:
    """Load, split and check `data` once, keyed by the settings and the source's content."""
    lint.check(data)
    if (brought := cache / shipped(data)).is_dir():
        return _read(brought, data)
    settings = {k: v for k, v in asdict(data).items() if k not in PLACES}
    key = content_key(VERSION, json.dumps(settings, sort_keys=True), sources.source_key(data))
    folder = once(cache / "data" / key, lambda folder: _write(data, folder))
    return _read(folder, data)


def shipped(data: DataSettings) -> str:
    """Where prepared data lie in the cache of a machine that they were brought to."""
    return f"data/shipped/{content_key(VERSION, json.dumps(asdict(data), sort_keys=True))}"


def _read(folder: Path, data: DataSettings) -> Corpus:
    meta = json.loads((folder / "corpus.json").read_text())
    return Corpus(folder, data.name, tuple(meta.pop("label_names")), **meta)


def _write(data: DataSettings, folder: Path) -> None:
    raw, commit = sources.load_raw(data)
    made = splits.make_splits(raw, data)
    for split in splits.SPLITS:
        getattr(made, split).to_parquet(folder / f"{split}.parquet", index=False)
    meta = {
        "label_names": list(data.label_names),
        "sizes": {split: len(getattr(made, split)) for split in splits.SPLITS},
        "fingerprints": {split: made.fingerprint(split) for split in splits.SPLITS},
        "notes": made.notes,
        "made_from": {split: splits.made_from(split, data, split in raw) for split in splits.SPLITS},
        "commit": commit,
    }
    (folder / "corpus.json").write_text(json.dumps(meta, indent=1))


def content_key(*parts: str) -> str:
    """A short hash of `parts`, for a cache folder's name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` if it is not there: in a scratch folder first, under a lock, then renamed whole."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            scratch = folder.with_name(folder.name + ".part")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            make(scratch)
            scratch.rename(folder)
    return folder
