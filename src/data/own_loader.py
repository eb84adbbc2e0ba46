"""Splits from a loader of your own code, as tables of text cells."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from src.config.settings import DataSettings
from src.core import own_code
from src.core.errors import InvalidInput, first_line, with_full_stop
from src.core.own_code import OwnLoader
from src.data.files.arrow_table import MemoryTable

SPLITS_WANTED = "a loader returns the splits by name, such as {'train': frame}, each a pandas.DataFrame"


def is_loaded(data: DataSettings) -> bool:
    """Whether this process can call the loader that the settings name."""
    return data.loader in own_code.known(OwnLoader)


def tables(data: DataSettings) -> dict[str, MemoryTable]:
    """Every split that the loader returns, by the name it gives. The loader is called once in a process.

    Raises:
        InvalidInput: it is not loaded, raises an error, or returns something else.
    """
    assert data.loader is not None
    return _load(data.loader, data.path)


def content_hash(data: DataSettings) -> str:
    """A hash of all that the loader returns. Raises InvalidInput as `tables` does."""
    digest = hashlib.sha256()
    for name, table in sorted(tables(data).items()):
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.table.schema) as writer:
            writer.write_table(table.table.combine_chunks())
        digest.update(f"{name}\0".encode() + stream.getvalue().to_pybytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _load(name: str, path: str | None) -> dict[str, MemoryTable]:
    splits = own_code.call(name, own_code.find(name, OwnLoader).function, path)
    if not isinstance(splits, Mapping) or not splits:
        raise InvalidInput(f"{name} returned {own_code.shown(splits)}; {SPLITS_WANTED}.")
    return {str(split): MemoryTable(Path(name), _arrow(name, str(split), frame)) for split, frame in splits.items()}


def _arrow(name: str, split: str, frame: Any) -> pa.Table:
    """A split as a table of Arrow. `frame`: a pandas.DataFrame or a datasets.Dataset."""
    if isinstance(frame, pd.DataFrame):
        try:
            named = frame.set_axis([str(column) for column in frame.columns], axis="columns")
            return pa.Table.from_pandas(named, preserve_index=False)
        except (pa.ArrowException, ValueError) as error:
            raise InvalidInput(
                f"{name} returned a split {split} that is no table of texts and numbers: "
                f"{with_full_stop(first_line(error))}"
            ) from error
    import datasets  # takes a second to import

    if not isinstance(frame, datasets.Dataset):
        raise InvalidInput(f"{name} returned {own_code.shown(frame)} as the split {split}; {SPLITS_WANTED}.")
    return frame.with_format("arrow")[:]
