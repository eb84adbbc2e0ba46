"""The sealed test split: a comparison opens it after its winner was selected, and every opening is counted.

The ledger of a test split is kept beside the studies and keyed by the split's content, so that all studies on the same
data share one count.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from src.core.paths import atomic_write
from src.core.record_files import with_schema, without_schema
from src.core.texts import TEXT, TEXT_PAIR, Text, texts_of
from src.data import leakage
from src.data.dataset import PreparedDataset


@dataclass(frozen=True)
class SplitOpening:
    """One opening of the test split. `number` counts all openings of this split from 1."""

    number: int
    key: str


def open_test_split(dataset: PreparedDataset, ledger: Path, key: str, facts: Mapping[str, object]) -> SplitOpening:
    """Record an opening of the test split in the ledger, once per `key`.

    Args:
        dataset: whose test split is opened.
        ledger: file with a JSON line per opening.
        key: identifies what it is opened for; the same key is the same opening.
        facts: stored with the opening, such as study and winner.
    """
    with _locked(ledger):
        before = opening_keys(ledger)
        if key not in before:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            line = json.dumps(with_schema({"key": key, "time": when, "test": dataset.fingerprints["test"], **facts}))
            atomic_write(ledger, "".join(f"{each}\n" for each in (*_lines(ledger), line)))
        return SplitOpening(opening_keys(ledger).index(key) + 1, key)


def opening_keys(ledger: Path) -> list[str]:
    """The keys of all openings so far; of a line that is damaged, an empty one."""
    return [_key_in(line) or "" for line in _lines(ledger)]


def restore_ledger(ledger: Path, known: Mapping[int, str], at_least: int) -> int:
    """Make lines again that the ledger has lost, so that no opening is forgotten.

    Args:
        ledger: file with a JSON line per opening.
        known: keys of openings by their number, from records elsewhere.
        at_least: how many openings there were, as far as is known elsewhere.

    Returns:
        How many lines were made again. Those whose keys are not known have an empty one.
    """
    with _locked(ledger):
        lines = _lines(ledger)
        lost = [n for n in range(1, max(len(lines), at_least) + 1) if n > len(lines) or _key_in(lines[n - 1]) is None]
        if lost:
            kept = set(opening_keys(ledger))
            lines += [""] * (lost[-1] - len(lines))
            for number in lost:
                key = known.get(number, "")
                lines[number - 1] = json.dumps(with_schema({"key": "" if key in kept else key, "restored": True}))
            atomic_write(ledger, "".join(f"{line}\n" for line in lines))
        return len(lost)


def contains_texts(dataset: PreparedDataset, texts: Sequence[Text]) -> np.ndarray:
    """Which of `texts` the test split has, too, [n_texts]. This is no opening: it tells of no label and no score.

    For texts without labels that are to be trained on: a test text among them would be learned.
    """
    columns = [TEXT, TEXT_PAIR] if dataset.task.has_pairs else [TEXT]
    known = set(leakage.text_keys(texts_of(pd.read_parquet(dataset.folder / "test.parquet", columns=columns))))
    return np.array([key in known for key in leakage.text_keys(texts)], dtype=bool)


def _locked(ledger: Path) -> FileLock:
    ledger.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{ledger}.lock")


def _lines(ledger: Path) -> list[str]:
    return ledger.read_text(encoding="utf-8", errors="replace").splitlines() if ledger.exists() else []


def _key_in(line: str) -> str | None:
    """The key in a line of the ledger; None if the line is damaged."""
    try:
        return str(without_schema(json.loads(line))["key"])
    except (ValueError, TypeError, KeyError):
        return None


def read_test_split(dataset: PreparedDataset, ledger: Path, opening: SplitOpening) -> pd.DataFrame:
    """The test split. `opening` must be in the ledger."""
    if opening.key not in opening_keys(ledger):
        raise PermissionError(f"the test split of {dataset.name} is sealed: no opening {opening.key} was recorded")
    return pd.read_parquet(dataset.folder / "test.parquet")
