"""What all file formats have in common: an open file of rows whose cells are read as text."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from src.core.errors import InvalidInput, did_you_mean

BATCH_ROWS = 2000  # rows that are in memory at a time while a file is streamed


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read. None: as found in the file."""

    encoding: str | None = None  # of text files; None is UTF-8
    separator: str | None = None  # of csv and tsv
    quote: str | None = None  # the quotation mark of csv and tsv; "none" if there is no such mark
    columns: tuple[str, ...] = ()  # names of the columns of a csv or tsv file without a header
    text_column: str | None = None  # tells which way round a json mapping is
    setting: str = "data.csv."  # written in front of an option's name in messages
    encoding_setting: str = "data.encoding"


class NestedCell(str):
    """A cell that holds a list or a mapping, as its JSON text."""

    __slots__ = ()


class Table(ABC):
    """An open file of rows.

    Attributes:
        path: of the file.
        columns: names as the file has them.
        remarks: sentences on how the file was read, where that was not obvious.
        class_labels: column -> names of its labels by index, of columns that carry them (datasets.ClassLabel).
    """

    format: str  # what `copy_to` writes

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.remarks: list[str] = []
        self.class_labels: dict[str, tuple[str, ...]] = {}

    @abstractmethod
    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """The rows as text, at most `size` at a time.

        A cell is a str, None where there is no value, or a NestedCell. Blanks and signs are those of the file.
        """

    def copy_to(self, out: Path, added: Iterable[pd.DataFrame], compression: str = "") -> None:
        """Write the rows in `format`, with further columns; what was there stays as it was written.

        Args:
            out: the file to write.
            added: frames of the further columns, in the order of the rows, `BATCH_ROWS` rows each.
            compression: of a text file, such as .gz.

        Raises:
            NotImplementedError: the table is not a file.
        """
        raise NotImplementedError

    def find_column(self, name: str, setting: str) -> str:
        """The file's own name of the column: blanks round it do not count.

        Raises:
            InvalidInput: there is no such column, or there are several. `setting` is written in the message.
        """
        matches = [c for c in self.columns if c == name] or [c for c in self.columns if c.strip() == name.strip()]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InvalidInput(
                f"{setting} is {name!r}, and {self.path} has {len(matches)} columns of that name; rename one."
            )
        listed = ", ".join(map(repr, self.columns[:30])) + (" ..." if len(self.columns) > 30 else "")
        raise InvalidInput(
            f"{setting} is {name!r}, but {self.path} has the columns {listed or 'none'}."
            f"{did_you_mean(name, self.columns)}"
        )

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows as text (see batches); by default all columns."""
        wanted = list(self.columns if columns is None else columns)
        frames = list(self.batches(wanted))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=wanted, dtype=object)


def text_frame(columns: Sequence[str], cells: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """A frame of text cells. `cells`: for each column, its cells."""
    frame = pd.DataFrame({i: pd.Series(values, dtype=object) for i, values in enumerate(cells)})
    frame.columns = pd.Index(columns, dtype=object)
    return frame
