"""Reads parquet and Arrow files, folders of datasets' save_to_disk, and tables of the datasets library."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core.errors import InvalidInput, first_line, with_full_stop
from src.data.files.table import BATCH_ROWS, NestedCell, Table, text_frame

FEATURES_KEY = b"huggingface"  # of a schema's metadata, where datasets stores its features


class ArrowTable(Table):
    """Columns with types. Cells are read as text: whole floats without a decimal point, truth values True and False."""

    format = "parquet"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._is_parquet = path.suffix.lower() == ".parquet"
        self.format = "parquet" if self._is_parquet else "arrow"
        try:
            if not self._is_parquet and not self._is_file_format():
                self.format = "stream"
            opened = self._open()
            self.schema = opened.schema_arrow if self._is_parquet else opened.schema
        except (pa.ArrowException, OSError) as error:
            raise InvalidInput(
                f"{path} could not be read as {self.format}: {with_full_stop(first_line(error))}"
            ) from error
        self.columns = list(self.schema.names)
        self.class_labels = class_labels_of(self.schema)

    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """See Table."""
        for batch in self._record_batches(size, columns):
            yield frame_of(batch, columns)

    def copy_to(self, out: Path, added: Iterable[pd.DataFrame], compression: str = "") -> None:  # noqa: ARG002
        """See Table. Types and metadata are kept."""
        answers = (pa.RecordBatch.from_pandas(frame, preserve_index=False) for frame in added)
        first = next(answers)
        schema = pa.schema([*self.schema, *first.schema], metadata=self.schema.metadata)
        with _writer(out, schema, self.format) as writer:
            for more, batch in zip(chain([first], answers), self._record_batches(BATCH_ROWS), strict=False):
                writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *more.columns], schema=schema))

    def _is_file_format(self) -> bool:
        """Whether the file is of Arrow's file format, not its stream."""
        with self.path.open("rb") as stream:
            return stream.read(6) == b"ARROW1"

    def _open(self) -> Any:
        if self._is_parquet:
            return pq.ParquetFile(self.path)
        source = pa.memory_map(str(self.path))
        return pa.ipc.open_file(source) if self._is_file_format() else pa.ipc.open_stream(source)

    def _record_batches(self, size: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of exactly `size` rows, but for the last; none if there are no rows."""
        try:
            yield from _even(self._stored_batches(size, columns), size)
        except (pa.ArrowException, OSError) as error:
            raise InvalidInput(
                f"{self.path} could not be read as {self.format}: {with_full_stop(first_line(error))}"
            ) from error

    def _stored_batches(self, size: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        opened = self._open()
        if self._is_parquet:
            yield from opened.iter_batches(size, columns=None if columns is None else list(columns))
        elif hasattr(opened, "num_record_batches"):
            for i in range(opened.num_record_batches):
                yield opened.get_batch(i)
        else:
            yield from opened


class MemoryTable(Table):
    """A table of the datasets library: a split from the Hub, or of a folder that save_to_disk wrote."""

    format = "parquet"

    def __init__(self, path: Path, table: pa.Table) -> None:
        super().__init__(path)
        self.table = table
        self.columns = list(table.schema.names)
        self.class_labels = class_labels_of(table.schema)

    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """See Table."""
        for batch in self.table.select(list(columns)).to_batches(size):
            yield frame_of(batch, columns)


def class_labels_of(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The columns whose metadata name their labels, and the names by index."""
    if FEATURES_KEY not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    inner = {str(k): getattr(f, "feature", f) for k, f in features.items()}  # of a list: what it is a list of
    return {name: tuple(f.names) for name, f in inner.items() if isinstance(f, datasets.ClassLabel) and f.names}


def frame_of(batch: pa.RecordBatch, columns: Sequence[str]) -> pd.DataFrame:
    """Text cells of the columns."""
    return text_frame(columns, [texts_of(batch.column(column)) for column in columns])


def texts_of(column: pa.Array) -> list[str | None]:
    """The cells of a column as text; None where there is no value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return texts_of(column.cast(kind.value_type))
    if pa.types.is_null(kind):
        return [None] * len(column)
    if pa.types.is_nested(kind):
        return [None if value is None else NestedCell(_json_of(value)) for value in column.to_pylist()]
    if pa.types.is_boolean(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind):
        texts = pc.cast(column, pa.string()).to_pylist()  # the shortest digits of the column's own precision
        return [_float_text(value, text) for value, text in zip(column.to_pylist(), texts, strict=True)]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [None if value is None else NestedCell(value) for value in column.to_pylist()]
    return [None if value is None else str(value) for value in column.to_pylist()]


def _json_of(value: Any) -> str:
    """A list or mapping as JSON; what JSON does not have, such as a date, as text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _float_text(value: float | None, text: str) -> str | None:
    if value is None or math.isnan(value):
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else text


def _even(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `size`."""
    waiting: list[pa.RecordBatch] = []
    n, schema = 0, None
    for batch in batches:
        schema = batch.schema
        waiting.append(batch)
        n += batch.num_rows
        while n >= size:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, size).combine_chunks().to_batches(size)[0]
            waiting, n = table.slice(size).to_batches(), n - size
    if n and schema is not None:
        yield pa.Table.from_batches(waiting, schema).combine_chunks().to_batches(size)[0]


def _writer(out: Path, schema: pa.Schema, kind: str) -> Any:
    """A writer of record batches. `kind`: parquet, arrow (Arrow's file format, also feather's), or Arrow's stream."""
    if kind == "parquet":
        return pq.ParquetWriter(out, schema)
    return (pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream)(str(out), schema)


def write_arrow(out: Path, extension: str, columns: Sequence[str], frames: Iterable[pd.DataFrame]) -> None:
    """Write frames of text and numbers to a parquet or Arrow file; without any row, columns of text."""
    kind = "parquet" if extension == ".parquet" else "arrow"
    writer = None
    for frame in frames:
        schema = pa.schema(
            [(name, pa.float64() if frame[name].dtype == "float64" else pa.string()) for name in frame.columns]
        )
        writer = writer or _writer(out, schema, kind)
        writer.write_batch(pa.RecordBatch.from_pandas(frame.reset_index(drop=True), schema, preserve_index=False))
    if writer is None:
        writer = _writer(out, pa.schema([(name, pa.string()) for name in columns]), kind)
    writer.close()
