"""Prepared data sets on disk, made once per content and shared by all workers and studies. Test stays sealed."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from src.config.settings import DataSettings
from src.core.cache import content_key, make_once
from src.core.errors import InvalidInput
from src.core.record_files import read_json
from src.core.task import SINGLE_LABEL, Task, labels_of
from src.data import loading, own_loader, splits, validate
from src.data.split_files import SPLITS

VERSION = "3"  # version of the preparation; it is part of the keys of all caches
LOCATION_KEYS = ("path", "hub_id", "revision", "loader")  # the origin; the key has a hash of the content instead
NOT_PREPARED = (*LOCATION_KEYS, "unlabelled")


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set in `folder`. A search reads train and validation; only `compare` reads the test split."""

    folder: Path
    name: str
    label_names: tuple[str, ...]
    sizes: dict[str, int]
    fingerprints: dict[str, str]
    notes: dict[str, int]  # counts of rows that were dropped, by reason, and of what was noticed
    made_from: dict[str, str]  # split -> the part of the source it was made from, in words
    commit: str | None  # commit, if it came from the Hub
    # what follows is empty for data that an earlier version prepared
    label_values: tuple[str, ...] = ()  # by label index: what the source writes for the label
    label_counts: dict[str, list[int]] = field(default_factory=dict)  # split -> rows of each label, by label index
    rows_read: dict[str, int] = field(default_factory=dict)  # split of the source -> its rows
    remarks: tuple[str, ...] = ()  # what was not obvious in the source, in sentences
    text_columns: tuple[str, ...] = ("text",)  # of the source; two, if rows are pairs of texts
    kind: str = SINGLE_LABEL  # see core.task

    @property
    def task(self) -> Task:
        """What is asked of a classifier of these data."""
        return Task(self.label_names, self.text_columns, self.kind)

    @property
    def fingerprint(self) -> str:
        """One hash over the three splits."""
        return _one_fingerprint(self.fingerprints)

    def frame(self, split: str) -> pd.DataFrame:
        """The split train or validation: columns text, label, row, and further columns of the source.

        Pairs of texts have a column text_pair, too.
        """
        if split not in ("train", "validation"):
            raise ValueError(f"{split} is not open to the search")
        return pd.read_parquet(self.folder / f"{split}.parquet")

    def labels(self, split: str) -> np.ndarray:
        """The labels of the split train or validation, [n_examples] or, of several labels, [n_examples, n_labels]."""
        return labels_of(self.frame(split))


def prepare_dataset(
    data: DataSettings, cache: Path, begun_with: Callable[[], str | None] = lambda: None
) -> PreparedDataset:
    """Load, split and check `data` once, keyed by the settings and the source's content.

    Args:
        data: the settings.
        cache: folder of prepared data.
        begun_with: returns the fingerprint of the data of a study or run that exists. If an earlier version of the
            preparation made them from the same source and settings, they are kept.
    """
    validate.check_data_settings(data)
    if (brought := cache / shipped_dir(data)).is_dir():
        return _read(brought, data)
    if _has_earlier_version(cache) and (folder := cache / "data" / _key_of_version_2(data)).is_dir():
        earlier = _read(folder, data)
        if earlier.fingerprint == begun_with():
            return earlier
    settings = {k: v for k, v in asdict(data).items() if k not in NOT_PREPARED}
    if data.loader and not own_loader.is_loaded(data) and (before := _prepared_before(cache, begun_with())):
        return _read(before, data)
    key = content_key(VERSION, json.dumps(settings, sort_keys=True), loading.source_key(data))
    folder = make_once(cache / "data" / key, lambda folder: _write(data, folder))
    return _read(folder, data)


def _prepared_before(cache: Path, fingerprint: str | None) -> Path | None:
    """The folder of the prepared data that have this fingerprint; None if they are not in the cache."""
    for file in cache.glob("data/*/corpus.json"):
        fingerprints = read_json(file, {}).get("fingerprints")
        if fingerprints and fingerprint == _one_fingerprint(fingerprints):
            return file.parent
    return None


def _one_fingerprint(fingerprints: Mapping[str, str]) -> str:
    """One hash over the fingerprints of the three splits."""
    return hashlib.sha256("".join(fingerprints[s] for s in SPLITS).encode()).hexdigest()[:16]


def shipped_dir(data: DataSettings) -> str:
    """The folder of prepared data in the cache of a machine that they were copied to."""
    settings = {k: v for k, v in asdict(data).items() if k not in ("unlabelled", "loader")}
    return f"data/shipped/{content_key(VERSION, json.dumps(settings, sort_keys=True))}"


def _has_earlier_version(cache: Path) -> bool:
    """Whether an earlier version prepared any data here. Only then the source is hashed by its rules, too."""
    return any(
        "label_values" not in read_json(file, {"label_values": None}) for file in cache.glob("data/*/corpus.json")
    )


def _key_of_version_2(data: DataSettings) -> str:
    """The key under which version 2 of the preparation kept the same source and settings."""
    settings = {
        k: v for k, v in asdict(data).items() if k not in (*NOT_PREPARED, "encoding", "csv", "task", "label_separator")
    }
    names = data.label_names or []
    settings["label_names"] = list(names.values()) if isinstance(names, dict) else list(names)
    settings["splits"] = {split: name or split for split, name in data.splits.items()}
    return content_key("2", json.dumps(settings, sort_keys=True), loading.source_key_of_version_2(data))


def _read(folder: Path, data: DataSettings) -> PreparedDataset:
    meta = read_json(folder / "corpus.json", {})
    if "fingerprints" not in meta:  # of an earlier version, or copied here: what is made here is checked by its hashes
        raise InvalidInput(f"The prepared data in {folder} are damaged. Delete this folder: it is a cache.")
    meta |= {key: tuple(meta[key]) for key in ("label_names", "label_values", "remarks", "text_columns") if key in meta}
    return PreparedDataset(folder, data.name, **meta)


def _write(data: DataSettings, folder: Path) -> None:
    raw = loading.load_splits(data)
    final_splits = splits.make_splits(raw, data)
    for split in SPLITS:
        getattr(final_splits, split).to_parquet(folder / f"{split}.parquet", index=False)
    labels = final_splits.labels
    counts = {s: splits.label_counts(getattr(final_splits, s), len(labels.names)) for s in SPLITS}
    meta = {
        "label_names": list(labels.names),
        "sizes": {split: len(getattr(final_splits, split)) for split in SPLITS},
        "fingerprints": {split: final_splits.fingerprint(split) for split in SPLITS},
        "notes": final_splits.notes,
        "made_from": {split: splits.describe_source(split, data, raw.names) for split in SPLITS},
        "commit": raw.commit,
        "label_values": list(labels.values),
        "label_counts": counts,
        "rows_read": final_splits.rows_read,
        "remarks": [*raw.remarks, *labels.remarks],
        "text_columns": list(data.text_columns),
        "kind": data.task,
    }
    (folder / "corpus.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
