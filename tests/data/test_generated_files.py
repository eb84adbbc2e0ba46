"""Generated files of every format, written by other libraries than those that read them.

Every row is accounted for, a label never changes, and columns that merely pass through come out as they came in.
300 files in the default tests; 10,000 by hand: `pytest -m heavy tests/data/test_generated_files.py`.
"""

import gzip
import io
import json
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from src.config.settings import DataSettings
from src.data import labels, loading, splits
from src.data.files.formats import open_table, write_with_columns
from src.data.files.table import BATCH_ROWS
from tests.support.data import settings_of

# letters, signs, emoji, marks, white space, quotation marks and separators; no zero byte, which is in no text
LETTERS = st.characters(codec="utf-8", exclude_characters="\x00")
AWKWARD = st.sampled_from(
    ['"', '""', "'", ",", ";", "\t", "\n", "\r\n", "\\", " ", "|", "{", "[", "#", "\u2028", "😀", "é"]
)
TEXT = st.lists(st.one_of(AWKWARD, st.text(LETTERS, max_size=5)), max_size=6).map("".join).filter(lambda t: t.strip())
LABELS = st.sampled_from([
    ("yes", "no"), ("True", "False"), ("true", "false", "TRUE "), ("0", "1"), ("1", "2", "10"), ("01", "1"),
    ("NA", "null"), ("None", "nan", "inf"), ("1e3", "1000.5"), ("-1", "0", "1"), ("gut", "schlecht", "mäßig"),
    ("good, so", 'say "no"', "x;y"), ("正", "负"), ("a b", "a  b"),
]).map(list)  # fmt: skip
OTHER = st.one_of(st.sampled_from(["007", "1.10", "1e400", "NaN", "", "12345678901234567890", " x ", "null"]), TEXT)


@dataclass(frozen=True)
class Rows:
    """A table to be written: its texts, labels, and a column that nobody uses."""

    texts: Sequence[str]
    labels: Sequence[str]
    other: Sequence[str]

    @property
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame({"id": self.other, "text": self.texts, "label": self.labels}, dtype=object)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    names = draw(LABELS)
    texts = draw(st.lists(TEXT, min_size=6, max_size=12))
    chosen = [draw(st.sampled_from(names)) for _ in texts]
    return Rows(texts, chosen, [draw(OTHER) for _ in texts])


def write(table: Rows, kind: str, folder: Path) -> Path:
    """The file, as another library writes it."""
    frame, file = table.frame, folder / f"r.{kind.partition(' ')[0].rstrip(';')}"
    if kind.startswith(("csv", "tsv")):
        _write_delimited(frame, kind, file)
    elif kind.startswith("json"):
        _write_json(frame, kind, file)
    elif kind == "xlsx":
        _write_excel(frame, file)
    else:
        _write_arrow(frame, kind, file)
    return file


def _write_delimited(frame: pd.DataFrame, kind: str, file: Path) -> None:
    if kind == "csv arrow":
        pa.csv.write_csv(pa.Table.from_pandas(frame), file)
        return
    separator = {"csv;": ";", "tsv": "\t"}.get(kind, ",")
    content = frame.to_csv(index=False, sep=separator, quoting=1 if kind == "csv all" else 0).encode()
    file.write_bytes({"csv.gz": gzip.compress, "csv.xz": lzma.compress}.get(kind, bytes)(content))


def _write_json(frame: pd.DataFrame, kind: str, file: Path) -> None:
    if file.suffix == ".json":
        frame.to_json(file, orient=kind.split()[1])
        return
    lines = (json.dumps(row, ensure_ascii=kind == "jsonl") + "\n" for row in frame.to_dict("records"))
    file.write_text("".join(lines), newline="")


def _write_arrow(frame: pd.DataFrame, kind: str, file: Path) -> None:
    table = pa.Table.from_pandas(frame.astype("category") if kind == "parquet dictionary" else frame)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
        return
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _write_excel(frame: pd.DataFrame, file: Path) -> None:
    book = openpyxl.Workbook()
    for row in [list(frame.columns), *frame.to_numpy().tolist()]:
        book.active.append(row)
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s"  # a text that begins with = is no formula
    book.save(file)


KINDS = ["csv", "csv;", "tsv", "csv all", "csv.gz", "csv.xz", "csv arrow", "json records", "json columns", "json split",
         "jsonl", "jsonl raw", "parquet", "parquet dictionary", "arrow", "xlsx"]  # fmt: skip


def writable(table: Rows, kind: str) -> Rows:
    """The table with a question mark for what the format, or the library that writes it, cannot hold."""

    def cell(text: str) -> str:
        if kind in ("csv", "csv;", "tsv", "csv.gz", "csv.xz", "csv all"):
            text = re.sub("\r(?!\n)", "?", text)  # pandas leaves it without quotation marks
        if kind == "tsv" and "\n" in text:
            text = text.replace("\t", "?")  # rows inside of cells: see test_delimited
        if kind == "xlsx":
            text = re.sub("\r|_x|_X", "?", ILLEGAL_CHARACTERS_RE.sub("?", text))
        return text

    return Rows(*([cell(text) for text in cells] for cells in (table.texts, table.labels, table.other)))


def check(table: Rows, kind: str, folder: Path) -> None:
    file = write(table, kind, folder)
    read = open_table(file).read()
    assert read["text"].tolist() == list(table.texts)
    assert read["label"].tolist() == list(table.labels)
    _check_labels(table, file)
    _check_columns(table, kind, file)


def _check_labels(table: Rows, file: Path) -> None:
    """Every row is in a split or counted, with its own label."""
    names = {labels.word(label) for label in table.labels}
    if len(names) < 2:
        return
    data = replace(own_data(), path=str(file))
    raw = loading.load_splits(data)
    found = labels.find_labels({"train": raw.frames["train"]["label"]}, data, raw.class_names, "here")
    index = found.indices(raw.frames["train"]["label"])
    assert [found.names[i] for i in index] == [labels.word(label) for label in table.labels]
    try:
        made = splits.make_splits(raw, data)
    except splits.InvalidInput:  # too few rows of a label for three splits
        return
    left_out = sum(n for key, n in made.notes.items() if "_dropped_" in key or "_left_out_" in key)
    assert left_out + sum(len(getattr(made, split)) for split in splits.SPLITS) == len(table.texts)
    for split in splits.SPLITS:
        frame = getattr(made, split)
        for text, label, row in zip(frame["text"], frame["label"], frame["row"], strict=True):
            del row
            assert labels.word(found.names[label]) in {
                labels.word(was) for t, was in zip(table.texts, table.labels, strict=True) if t == text
            }


def _check_columns(table: Rows, kind: str, file: Path) -> None:
    """With two further columns, what was there is what it was: read by another library."""
    out = file.with_name(f"out{''.join(file.suffixes)}")
    n = len(table.texts)
    assert n <= BATCH_ROWS
    added = [pd.DataFrame({"predicted": pd.Series(["x"] * n, dtype=object), "score": [0.5] * n})]
    write_with_columns(open_table(file), out, out, added)
    if kind in ("parquet", "parquet dictionary"):
        before, after = pq.read_table(file), pq.read_table(out)
        assert after.select(before.column_names).equals(before)
    elif kind == "arrow":
        before = pa.ipc.open_file(file).read_all()
        assert pa.ipc.open_file(out).read_all().select(before.column_names).equals(before)
    elif kind == "xlsx":
        sheet = openpyxl.load_workbook(out).active
        values = [["" if c.value is None else c.value for c in row][:3] for row in sheet.iter_rows(min_row=2)]
        assert values == table.frame.to_numpy().tolist()
    elif file.suffix in (".json", ".jsonl"):
        text = out.read_bytes().decode()
        records = (
            json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line]
        )
        assert [[r["id"], r["text"], r["label"]] for r in records] == table.frame.to_numpy().tolist()
    else:
        content = out.read_bytes()
        content = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(out.suffix, bytes)(content)
        separator = {"csv;": ";", "tsv": "\t"}.get(kind, ",")
        again = pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False, lineterminator="\n")
        assert again[["id", "text", "label"]].to_numpy().tolist() == table.frame.to_numpy().tolist()


@lru_cache
def own_data() -> DataSettings:
    return settings_of("data=files", "data.path=x").data


@pytest.mark.parametrize("examples", [300, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_generated_files(examples: int, tmp_path: Path) -> None:
    counts = dict.fromkeys(KINDS, 0)

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples == 300,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    @given(rows(), st.sampled_from(KINDS))
    def run(table: Rows, kind: str) -> None:
        counts[kind] += 1
        for old in tmp_path.iterdir():
            old.unlink()
        check(writable(table, kind), kind, tmp_path)

    run()
    assert min(counts.values()) >= examples // 300, counts
