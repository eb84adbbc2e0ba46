"""Texts without labels, from which a comparison's student learns the answers of its teachers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from src.config.settings import DataSettings
from src.core.errors import InvalidInput
from src.data import leakage, test_split
from src.data.dataset import PreparedDataset
from src.data.files.formats import open_table
from src.data.files.table import NestedCell
from src.data.loading import read_options


@dataclass(frozen=True)
class UnlabelledTexts:
    """Texts of data.unlabelled, without those that are in the data already."""

    texts: tuple[str, ...]
    fingerprint: str  # of the texts
    n_read: int  # texts of the file; empty cells are none
    n_in_test: int  # texts that were dropped because the test split has them
    n_repeated: int  # texts that were dropped because train, validation or the file itself has them


def check_unlabelled(data: DataSettings) -> None:
    """Raise InvalidInput if data.unlabelled cannot be read, or has no column of texts."""
    if data.unlabelled is not None:
        _read(data)


def load_unlabelled(data: DataSettings, dataset: PreparedDataset) -> UnlabelledTexts:
    """The texts of data.unlabelled, each once, without those of the labelled splits.

    Raises:
        InvalidInput: the file cannot be read, or has no further text.
    """
    read = _read(data)
    keys = leakage.text_keys(read)
    in_test = test_split.contains_texts(dataset, read)
    known = set(leakage.text_keys([*dataset.frame("train")["text"], *dataset.frame("validation")["text"]]))
    kept, n_repeated = list[str](), 0
    for text, key, is_test in zip(read, keys, in_test, strict=True):
        if is_test:
            continue
        if key in known:
            n_repeated += 1
            continue
        known.add(key)
        kept.append(text)
    if not kept:
        raise InvalidInput(
            f"data.unlabelled is {data.unlabelled}, and each of its {len(read)} texts is in the data already."
        )
    digest = hashlib.sha256("\0".join(kept).encode()).hexdigest()[:16]
    return UnlabelledTexts(tuple(kept), digest, len(read), int(in_test.sum()), n_repeated)


def _read(data: DataSettings) -> list[str]:
    try:
        return _texts_in(data)
    except InvalidInput as error:
        raise InvalidInput(f"data.unlabelled is {data.unlabelled}: {error}") from error


def _texts_in(data: DataSettings) -> list[str]:
    table = open_table(Path(str(data.unlabelled)).expanduser(), read_options(data))
    column = table.find_column(data.text_column, "data.text_column")
    texts = []
    for frame in table.batches([column]):
        for cell in frame[column]:
            if isinstance(cell, NestedCell):
                raise InvalidInput(f"{table.path} has a list or a mapping in the column {column!r}: {str(cell)[:80]}.")
            if cell is not None and cell.strip():
                texts.append(str(cell))
    if not texts:
        raise InvalidInput(f"{table.path} has no text in the column {column!r}.")
    return texts
