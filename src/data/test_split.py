"""The sealed test split: a comparison opens it after its winner was selected, and every opening is counted.

The ledger of a test split is kept beside the studies and keyed by the split's content, so that all studies on the same
data share one count.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from src.core.paths import atomic_write
from src.core.record_files import with_schema, without_schema
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
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{ledger}.lock"):
        before = opening_keys(ledger)
        if key not in before:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            line = json.dumps(with_schema({"key": key, "time": when, "test": dataset.fingerprints["test"], **facts}))
            atomic_write(ledger, (ledger.read_text(encoding="utf-8") if before else "") + line + "\n")
        return SplitOpening(opening_keys(ledger).index(key) + 1, key)


def opening_keys(ledger: Path) -> list[str]:
    """The keys of all openings so far."""
    if not ledger.exists():
        return []
    return [without_schema(json.loads(line))["key"] for line in ledger.read_text(encoding="utf-8").splitlines()]


def read_test_split(dataset: PreparedDataset, ledger: Path, opening: SplitOpening) -> pd.DataFrame:
    """The test split. `opening` must be in the ledger."""
    if opening.key not in opening_keys(ledger):
        raise PermissionError(f"the test split of {dataset.name} is sealed: no opening {opening.key} was recorded")
    return pd.read_parquet(dataset.folder / "test.parquet")
