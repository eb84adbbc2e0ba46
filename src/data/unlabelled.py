"""Texts without labels, from which a comparison's student learns the answers of its teachers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from src.config.settings import DataSettings
from src.core.errors import InvalidInput
from src.core.texts import Text, every_part, texts_of
from src.data import leakage, test_split
from src.data.dataset import PreparedDataset
from src.data.files.formats import open_table
from src.data.files.table import NestedCell
from src.data.loading import read_options


@dataclass(frozen=True)
class UnlabelledTexts:
    """Texts of data.unlabelled, without those that are in the data already."""

    texts: tuple[Text, ...]
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
    labelled = [*texts_of(dataset.frame("train")), *texts_of(dataset.frame("validation"))]
    known = set(leakage.text_keys(labelled))
    kept, n_repeated = list[Text](), 0
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
    digest = hashlib.sha256("\0".join(every_part(kept)).encode()).hexdigest()[:16]
    return UnlabelledTexts(tuple(kept), digest, len(read), int(in_test.sum()), n_repeated)


def _read(data: DataSettings) -> list[Text]:
    try:
        return _texts_in(data)
    except InvalidInput as error:
        raise InvalidInput(f"data.unlabelled is {data.unlabelled}: {error}") from error


def _texts_in(data: DataSettings) -> list[Text]:
    table = open_table(Path(str(data.unlabelled)).expanduser(), read_options(data))
    columns = [table.find_column(name, "data.text_column") for name in data.text_columns]
    texts = list[Text]()
    for frame in table.batches(columns):
        for column in columns:
            if nested := [cell for cell in frame[column] if isinstance(cell, NestedCell)]:
                raise InvalidInput(
                    f"{table.path} has a list or a mapping in the column {column!r}: {str(nested[0])[:80]}."
                )
        for cells in zip(*(frame[column] for column in columns), strict=True):
            if all(cell is not None and cell.strip() for cell in cells):
                texts.append(str(cells[0]) if len(cells) == 1 else (str(cells[0]), str(cells[1])))
    if not texts:
        raise InvalidInput(f"{table.path} has no text in the column {' and '.join(map(repr, columns))}.")
    return texts
