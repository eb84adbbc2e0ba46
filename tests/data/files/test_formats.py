"""Rows with further columns: in the file's own format everything comes out as it came in."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data.files.formats import FORMATS, open_table, write_frame, write_with_columns

ADDED = [pd.DataFrame({"label": ["x", "y"], "score": [0.5, 0.25]})]


def written(file: Path, out: str) -> Path:
    target = file.with_name(out)
    write_with_columns(open_table(file), target, target, iter(ADDED))
    return target


def test_csv_keeps_names_digits_and_marks(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text('id; text ;n\n007;"a; b";1.10\n1e3;NA;\n')
    assert written(file, "o.csv").read_text() == 'id; text ;n;label;score\n007;"a; b";1.10;x;0.5\n1e3;NA;;y;0.25\n'


def test_a_tsv_whose_marks_are_letters_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text('text\tn\n"a\t1\nb "c"\t2\n')
    assert (
        written(tmp_path / "r.tsv", "o.tsv").read_text() == 'text\tn\tlabel\tscore\n"a\t1\tx\t0.5\nb "c"\t2\ty\t0.25\n'
    )


def test_json_keeps_every_digit(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "n": 1.10, "big": 12345678901234567890123}',
        '{"text": "\\u00e9", "n": 1e400, "x": [1, {"y": null}]}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines) + "\n")
    result = written(tmp_path / "r.jsonl", "o.jsonl").read_text().splitlines()
    assert result[0] == lines[0][:-1] + ', "label": "x", "score": 0.5}'
    assert result[1] == lines[1][:-1] + ', "label": "y", "score": 0.25}'
    (tmp_path / "r.json").write_text(f"[{','.join(lines)}]")
    assert json.loads(written(tmp_path / "r.json", "o.json").read_text())[0]["big"] == 12345678901234567890123


@pytest.mark.parametrize("name", ["r.parquet", "r.arrow"])
def test_types_stay(tmp_path: Path, name: str) -> None:
    table = pa.table(
        {"text": ["a", "b"], "n": pa.array([2**60 + 1, None]), "f": pa.array([0.1, 2.0], pa.float32()), "l": [[1], []]}
    )
    if name == "r.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_stream(str(tmp_path / name), table.schema) as stream:
            stream.write_table(table)
    out = written(tmp_path / name, f"o{Path(name).suffix}")
    result = pq.read_table(out) if name == "r.parquet" else pa.ipc.open_stream(out.read_bytes()).read_all()
    assert result.select(table.column_names).equals(table)
    assert result.column("label").to_pylist() == ["x", "y"]


@pytest.mark.parametrize(("own", "other"), [("r.jsonl", "o.json"), ("r.json", "o.ndjson"), ("r.jsonl", "o.jsonl.gz")])
def test_between_formats_of_json_nothing_changes(tmp_path: Path, own: str, other: str) -> None:
    lines = ['{"text": "a", "n": 1.10}', '{"text": "b", "n": 12345678901234567890123}']
    (tmp_path / own).write_text("\n".join(lines) if own == "r.jsonl" else f"[{','.join(lines)}]")
    out = written(tmp_path / own, other)
    content = gzip.decompress(out.read_bytes()).decode() if other.endswith(".gz") else out.read_text()
    assert '"n": 1.10,' in content
    assert '"n": 12345678901234567890123,' in content
    assert content.startswith("[" if other == "o.json" else "{")


@pytest.mark.parametrize(
    ("own", "other"), [("r.parquet", "o.feather"), ("r.feather", "o.parquet"), ("r.arrow", "o.arrow")]
)
def test_between_formats_of_arrow_types_stay(tmp_path: Path, own: str, other: str) -> None:
    frame = pd.DataFrame(
        {"text": ["a", "b"], "n": [2**60 + 1, 5], "when": pd.to_datetime(["2024-05-01", "2024-05-02"])}
    )
    frame.to_parquet(tmp_path / own) if own == "r.parquet" else frame.to_feather(tmp_path / own)
    out = written(tmp_path / own, other)
    result = pd.read_parquet(out) if other == "o.parquet" else pd.read_feather(out)
    assert result[["text", "n", "when"]].equals(frame)


@pytest.mark.parametrize("other", ["o.parquet", "o.feather", "o.arrow"])
def test_a_stream_becomes_what_the_name_says(tmp_path: Path, other: str) -> None:
    table = pa.table({"text": ["a", "b"], "n": [2**60 + 1, 5]})
    with pa.ipc.new_stream(str(tmp_path / "r.arrow"), table.schema) as stream:
        stream.write_table(table)
    out = written(tmp_path / "r.arrow", other)
    start = {"o.parquet": b"PAR1", "o.feather": b"ARROW1", "o.arrow": b"\xff\xff\xff\xff"}[other]
    assert out.read_bytes().startswith(start)
    assert open_table(out).read(["text", "n"]).to_numpy().tolist() == [["a", str(2**60 + 1)], ["b", "5"]]


@pytest.mark.parametrize("name", ["r.parquet", "r.feather", "r.arrow", "r.xlsx", "r.json", "r.tsv"])
def test_no_rows_stay_no_rows_in_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "r.csv").write_text("text,n\n")
    none = pd.DataFrame({"label": pd.Series([], dtype=object), "score": pd.Series([], dtype=float)})
    for source, out in (("r.csv", name), (name, f"o{Path(name).suffix}")):
        write_with_columns(open_table(tmp_path / source), tmp_path / out, tmp_path / out, iter([none]))
        none = none.rename(columns=lambda column: f"{column}_2")
    assert open_table(tmp_path / f"o{Path(name).suffix}").read().empty


def test_a_compressed_file_stays_compressed(tmp_path: Path) -> None:
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(b"text\na\nb\n"))
    assert (
        gzip.decompress(written(tmp_path / "r.csv.gz", "o.csv.gz").read_bytes())
        == b"text,label,score\na,x,0.5\nb,y,0.25\n"
    )


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("source", ["r.csv", "r.jsonl", "r.parquet"])
def test_into_another_format_the_cells_are_text(tmp_path: Path, source: str, extension: str) -> None:
    write_frame(pd.DataFrame({"text": ["a, é", "b\n"], "n": ["007", "1"]}), tmp_path / source)
    result = open_table(written(tmp_path / source, f"o{extension}")).read()
    assert result.to_numpy().tolist() == [["a, é", "007", "x", "0.5"], ["b\n", "1", "y", "0.25"]]


@pytest.mark.parametrize("extension", FORMATS)
def test_no_rows_become_no_rows(tmp_path: Path, extension: str) -> None:
    (tmp_path / "r.csv").write_text("text,n\n")
    none = pd.DataFrame({"label": pd.Series([], dtype=object), "score": pd.Series([], dtype=float)})
    target = tmp_path / f"o{extension}"
    write_with_columns(open_table(tmp_path / "r.csv"), target, target, [none])
    if extension in (".jsonl", ".ndjson"):
        assert target.read_text() == ""
        return
    result = open_table(target).read()
    assert result.empty
    assert extension == ".json" or list(result.columns) == ["text", "n", "label", "score"]
