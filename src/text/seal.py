"""The sealed test split: opened by a comparison after its winner was chosen, and every opening counted.

The ledger of a test split lies beside the studies and is keyed by the split's content, so that all studies on the same
data share one count.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from src.paths import write_whole
from src.text.corpus import Corpus


@dataclass(frozen=True)
class Opening:
    """One opening: `number` counts from 1 over everybody who opened this split."""

    number: int
    key: str


def open_test(corpus: Corpus, ledger: Path, key: str, facts: Mapping[str, object]) -> Opening:
    """Enter an opening into the ledger, with `facts` about who opens it and what for; once per `key`."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{ledger}.lock"):
        before = openings(ledger)
        if key not in before:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            line = json.dumps({"key": key, "time": when, "test": corpus.fingerprints["test"], **facts})
            write_whole(ledger, (ledger.read_text() if before else "") + line + "\n")
        return Opening(openings(ledger).index(key) + 1, key)


def openings(ledger: Path) -> list[str]:
    """The keys of all openings so far."""
    return [json.loads(line)["key"] for line in ledger.read_text().splitlines()] if ledger.exists() else []


def read(corpus: Corpus, ledger: Path, opening: Opening) -> pd.DataFrame:
    """The test split, for those who hold an opening that stands in the ledger."""
    if opening.key not in openings(ledger):
        raise PermissionError(f"the test split of {corpus.name} is sealed: no opening {opening.key} was recorded")
    return pd.read_parquet(corpus.folder / "test.parquet")
