"""Reads csv and tsv files: finds the separator and the quotation marks, and accounts for every row."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import pandas as pd

from src.core.errors import InvalidInput
from src.data.files.table import BATCH_ROWS, ReadOptions, Table, text_frame
from src.data.files.text_stream import create_text, open_text

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
NO_QUOTE = "none"  # as the setting says that a quotation mark is a letter like any other
MAX_CELL_CHARACTERS = 2**31 - 1


@dataclass(frozen=True)
class Dialect:
    """How rows and cells are told apart."""

    separator: str
    quote: str | None = '"'  # None: a quotation mark is a letter like any other
    escape: str | None = None  # written before a quotation mark inside a cell; None: the mark is doubled
    blanks_after_separator: bool = False  # are not part of the cell

    @property
    def format_parameters(self) -> dict[str, Any]:
        """The parameters of csv.reader and csv.writer."""
        return {
            "delimiter": self.separator,
            "quotechar": self.quote,
            "quoting": csv.QUOTE_NONE if self.quote is None else csv.QUOTE_MINIMAL,
            "escapechar": self.escape,
            "doublequote": self.escape is None,
            "skipinitialspace": self.blanks_after_separator,
        }

    def rows(self, lines: Iterable[str]) -> Any:
        """A csv.reader of the lines."""
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        return csv.reader(lines, strict=True, **self.format_parameters)


@dataclass
class Survey:
    """What a file is in one dialect."""

    dialect: Dialect
    columns: list[str] = field(default_factory=list)
    rows: int = 0
    longer: int = 0  # rows with empty cells behind the last column, which are dropped
    misfits: int = 0  # rows with another number of cells than there are columns
    first_misfit: str = ""
    spanning: int = 0  # rows over several lines
    marks_behind_blanks: int = 0  # cells that begin with a blank and a quotation mark, as the name of their column does
    like_rows: int = 0  # of these, rows with a line inside a cell that looks like a row of its own
    error: str = ""

    @property
    def fits(self) -> bool:
        """Whether every row has a cell for every column."""
        return not self.misfits and not self.error


class DelimitedTable(Table):
    """A csv or tsv file, compressed or not."""

    format = "csv"

    def __init__(self, path: Path, options: ReadOptions) -> None:
        super().__init__(path)
        self.options = options
        self.survey = _choose(path, options, "\t" if ".tsv" in path.suffixes[-2:] else ",")
        if not self.survey.fits:
            raise InvalidInput(_misfit_problem(path, self.survey, options))
        self.columns = self.survey.columns
        self.remarks = list(_remarks(path, self.survey, options))

    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """See Table."""
        places = [self.columns.index(column) for column in columns]
        with open_text(self.path, self.options) as stream:
            rows = self._rows(stream)
            while batch := list(islice(rows, size)):
                yield text_frame(columns, [[row[place] for row in batch] for place in places])

    def copy_to(self, out: Path, added: Iterable[pd.DataFrame], compression: str = "") -> None:
        """See Table. Written in UTF-8, with the file's own separator and quotation marks."""
        answers = iter(added)
        first = next(answers)
        with open_text(self.path, self.options) as stream, create_text(out, compression) as target:
            parameters = self.survey.dialect.format_parameters | {"skipinitialspace": False}
            writer = csv.writer(target, lineterminator="\n", **parameters)
            try:
                writer.writerow([*self.columns, *first.columns])
                rows = self._rows(stream)
                for batch in chain([first], answers):
                    cells = zip(islice(rows, len(batch)), batch.itertuples(index=False, name=None), strict=True)
                    writer.writerows([*row, *more] for row, more in cells)
            except csv.Error as error:  # a label with a separator in it, where nothing can be put in quotation marks
                raise InvalidInput(
                    f"{out.name} cannot hold the labels without quotation marks, which {self.path} does not use "
                    f"({error}). Choose another format: --out answers.jsonl."
                ) from error

    def _rows(self, stream: IO[str]) -> Iterator[list[str]]:
        """The rows behind the header, cut to the columns."""
        rows = self.survey.dialect.rows(_without_separator_line(stream))
        if not self.options.columns:
            next(rows, None)
        n = len(self.columns)
        return (row[:n] for row in rows if not _is_blank_line(row, n))


def _choose(path: Path, options: ReadOptions, usual: str) -> Survey:
    """The dialect in which every row fits the header; if there is none, the one in which most rows do."""
    first, written = _first_line(path, options)
    separators = [options.separator or written or ""] if options.separator or written else _candidates(first, usual)
    surveys = []
    for separator in separators:
        for dialect in _dialects(separator, options):
            survey = _survey(path, options, dialect)
            if survey.fits:
                return _settle_quotes(path, options, survey) if dialect == Dialect(separator) else survey
            surveys.append(survey)
    return min(surveys, key=lambda survey: math.inf if survey.error else survey.misfits)


def _candidates(first: str, usual: str) -> list[str]:
    """The separators that divide the first line, the usual one in front."""
    order = [usual, *(s for s in SEPARATORS if s != usual)]
    dividing = [s for s in order if s in first]
    return dividing or [usual]


def _dialects(separator: str, options: ReadOptions) -> list[Dialect]:
    if options.quote == NO_QUOTE:
        return [Dialect(separator, None)]
    if options.quote:
        return [Dialect(separator, options.quote), Dialect(separator, options.quote, escape="\\")]
    return [
        Dialect(separator),
        Dialect(separator, None),
        Dialect(separator, escape="\\"),
        Dialect(separator, blanks_after_separator=True),
    ]


def _settle_quotes(path: Path, options: ReadOptions, quoted: Survey) -> Survey:
    """`quoted`, or the same file with quotation marks as letters.

    A cell in quotation marks may hold line breaks. If each of its lines is a row of its own as well, both readings
    fit. In a tsv file quotation marks are usually letters; in a csv file they are not.
    """
    if quoted.marks_behind_blanks and not options.quote:
        blanks = _survey(path, options, Dialect(quoted.dialect.separator, blanks_after_separator=True))
        return blanks if blanks.fits else quoted
    if not quoted.spanning or options.quote or len(quoted.columns) < 2:
        return quoted
    plain = _survey(path, options, Dialect(quoted.dialect.separator, None))
    return plain if plain.fits and quoted.dialect.separator == "\t" else quoted


def _survey(path: Path, options: ReadOptions, dialect: Dialect) -> Survey:
    survey = Survey(dialect, list(options.columns))
    with open_text(path, options) as stream:
        rows = dialect.rows(_without_separator_line(stream))
        try:
            if not options.columns:
                survey.columns = _header(next(rows, []))
            n, line = len(survey.columns), rows.line_num
            behind_blanks = [i for i, name in enumerate(survey.columns) if name[:1] == " "]
            for row in rows:
                before, line = line, rows.line_num
                if _is_blank_line(row, n):
                    continue
                survey.rows += 1
                survey.marks_behind_blanks += sum(row[i][:2] == ' "' for i in behind_blanks if i < len(row))
                if len(row) < n or any(row[n:]):
                    survey.misfits += 1
                    if survey.misfits == 1:
                        survey.first_misfit = f"line {before + 1} has {len(row)}: {dialect.separator.join(row)[:120]!r}"
                survey.longer += len(row) > n
                if line > before + 1:
                    survey.spanning += 1
                    survey.like_rows += _has_row_inside(row, dialect.separator, n)
        except csv.Error as error:
            survey.error = f"{error} (the row that begins behind line {line})" if survey.columns else str(error)
    return survey


def _header(cells: Sequence[str]) -> list[str]:
    """The names, without empty ones at the end, which rows that end in a separator leave."""
    names = list(cells)
    while len(names) > 1 and not names[-1].strip():
        names.pop()
    return names


def _is_blank_line(row: Sequence[str], n_columns: int) -> bool:
    return not row or (len(row) == 1 and n_columns > 1 and not row[0].strip())


def _has_row_inside(row: Sequence[str], separator: str, n_columns: int) -> bool:
    lines = (line for cell in row for line in cell.splitlines()[1:])
    return n_columns > 1 and any(line.count(separator) >= n_columns - 1 for line in lines)


def _first_line(path: Path, options: ReadOptions) -> tuple[str, str | None]:
    """The first line, and the separator that a line `sep=;` in front of it names (Excel writes such)."""
    with open_text(path, options) as stream:
        first = stream.readline().rstrip("\r\n")
        if first.casefold().startswith("sep=") and len(first) == len("sep=;"):
            return stream.readline().rstrip("\r\n"), first[-1]
    return first, None


def _without_separator_line(stream: IO[str]) -> Iterator[str]:
    first = stream.readline()
    is_separator_line = first.casefold().startswith("sep=") and len(first.rstrip("\r\n")) == len("sep=;")
    return chain([] if is_separator_line else [first], stream)


def _misfit_problem(path: Path, survey: Survey, options: ReadOptions) -> str:
    separator = SEPARATORS.get(survey.dialect.separator, repr(survey.dialect.separator))
    if survey.error:
        return (
            f"{path} could not be read with {separator} between cells and {survey.dialect.quote} as the quotation "
            f"mark: {survey.error}. If quotation marks are letters in it, say so: {options.setting}quote={NO_QUOTE}."
        )
    return (
        f"{path} has {len(survey.columns)} columns ({', '.join(map(repr, survey.columns[:10]))}) with {separator} "
        f"between cells, and {survey.misfits} of {survey.rows} rows do not have as many cells: {survey.first_misfit}. "
        f"A cell that has the separator in it stands in quotation marks. Mend these rows, or name another separator or "
        f"quotation mark: {options.setting}separator, {options.setting}quote."
    )


def _remarks(path: Path, survey: Survey, options: ReadOptions) -> Iterator[str]:
    dialect, name = survey.dialect, path.name
    usual = "\t" if ".tsv" in path.suffixes[-2:] else ","
    if dialect.separator != usual and not options.separator:
        separator = SEPARATORS.get(dialect.separator, repr(dialect.separator))
        yield f"{name} has {separator} between cells"
    if dialect.quote is None and options.quote is None:
        yield f"{name} is read with quotation marks as letters ({options.setting}quote={NO_QUOTE})"
    if dialect.escape and options.quote is None:
        yield f"{name} has a {dialect.escape} before quotation marks inside cells"
    if dialect.blanks_after_separator:
        yield f"{name} has blanks behind separators, which are not read"
    if survey.longer:
        yield f"{name}: {survey.longer} rows end in separators behind the last column, which are not read"
    if survey.like_rows:
        yield (
            f"{name}: {survey.like_rows} rows have cells with line breaks that look as if they held other rows; if "
            f"quotation marks are letters in it, say {options.setting}quote={NO_QUOTE}"
        )
