"""csv and tsv: separators, quotation marks, rows that do not fit, encodings, compressions."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from src.core.errors import InvalidInput
from src.data.files.formats import open_table
from src.data.files.table import ReadOptions, Table


def table(folder: Path, content: str | bytes, name: str = "r.csv", **options: object) -> Table:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(file, ReadOptions(**options))  # type: ignore[arg-type]


def cells(read: Table) -> list[list[str]]:
    return read.read().to_numpy().tolist()


def test_cells_are_the_words_of_the_file(tmp_path: Path) -> None:
    words = ["True", "01", "NA", "1e3", "null", "None", "nan", " x ", "1.0", "-0", "'"]
    read = table(tmp_path, "text,label\n" + "".join(f"{word},{word}\n" for word in words))
    assert cells(read) == [[word, word] for word in words]
    assert read.remarks == []


@pytest.mark.parametrize(
    ("name", "content", "remark"),
    [
        ("r.csv", "text;label\na, b;x\nc;y\n", "a semicolon"),
        ("r.csv", "text\tlabel\na, b\tx\nc\ty\n", "a tab"),
        ("r.csv", "text|label\na, b|x\nc|y\n", "a vertical bar"),
        ("r.csv", "sep=;\ntext;label\na, b;x\nc;y\n", "a semicolon"),
        ("r.tsv", 'text,label\n"a, b",x\nc,y\n', "a comma"),
        ("r.tsv", "text\tlabel\na, b\tx\nc\ty\n", None),
        ("r.csv", 'text,label\n"a, b",x\nc,y\n', None),
    ],
)
def test_the_separator_is_found_and_said(tmp_path: Path, name: str, content: str, remark: str | None) -> None:
    read = table(tmp_path, content, name)
    assert read.columns == ["text", "label"]
    assert cells(read) == [["a, b", "x"], ["c", "y"]]
    assert [r for r in read.remarks if remark and remark in r] == read.remarks


def test_a_separator_can_be_said(tmp_path: Path) -> None:
    read = table(tmp_path, "text;x,label\na;b,c\n", separator=",")
    assert read.columns == ["text;x", "label"]
    assert cells(table(tmp_path, "text~label\na~b\n", separator="~")) == [["a", "b"]]


def test_quotation_marks_that_are_letters_swallow_no_rows(tmp_path: Path) -> None:
    rows = [('"Good" they say', "x"), ('so "fine', "y"), ('"never closed', "x"), ("plain", "y")]
    read = table(tmp_path, "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows), "r.tsv")
    assert cells(read) == [list(row) for row in rows]
    assert any("quotation marks as letters" in remark for remark in read.remarks)


def test_two_marks_that_could_hold_rows_between_them_are_letters_in_a_tsv(tmp_path: Path) -> None:
    content = 'text\tlabel\n"begins here\tx\nmiddle\ty\nends here"\tx\n'
    assert len(cells(table(tmp_path, content, "r.tsv"))) == 3
    quoted = table(tmp_path, content.replace("\t", ","))
    assert len(cells(quoted)) == 1  # the usual reading of a csv, and it is said
    assert any("look as if they held other rows" in remark for remark in quoted.remarks)
    assert len(cells(table(tmp_path, content.replace("\t", ","), quote="none"))) == 3


def test_texts_over_several_lines_and_doubled_marks_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ['He said "no",\nthen\r\nleft', "b\tc", "'d'"], "label": ["x", "y", "x"]})
    frame.to_csv(tmp_path / "r.csv", index=False)
    assert open_table(tmp_path / "r.csv").read().equals(frame.astype(object))
    frame.to_csv(tmp_path / "r.tsv", index=False, sep="\t")
    assert open_table(tmp_path / "r.tsv").read().equals(frame.astype(object))


def test_a_backslash_before_marks_is_found_and_said(tmp_path: Path) -> None:
    read = table(tmp_path, 'text,label\n"He said \\"no\\", then",x\nb,y\n')
    assert cells(read) == [['He said "no", then', "x"], ["b", "y"]]
    assert "before quotation marks" in read.remarks[0]


def test_blanks_behind_separators_are_no_part_of_quoted_cells(tmp_path: Path) -> None:
    read = table(tmp_path, 'text, label\n"a, b", "x"\n"c", "y"\n')
    assert cells(read) == [["a, b", "x"], ["c", "y"]]


@pytest.mark.parametrize(("end", "n"), [(",", 2), (",,,", 2)])
def test_rows_that_end_in_separators_lose_nothing(tmp_path: Path, end: str, n: int) -> None:
    read = table(tmp_path, f"text,stars\na lamp,5{end}\nanother,1{end}\n")
    assert cells(read) == [["a lamp", "5"], ["another", "1"]]
    assert f"{n} rows end in separators" in read.remarks[0]
    header_too = table(tmp_path, f"text,stars{end}\na lamp,5{end}\nanother,1{end}\n")
    assert header_too.columns == ["text", "stars"]
    assert cells(header_too) == [["a lamp", "5"], ["another", "1"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text,label\na, b,x\n", "1 of 1 rows do not have as many cells: line 2 has 3: 'a, b,x'"),
        ("text,label\nb,x\na\n", "1 of 2 rows do not have as many cells: line 3 has 1: 'a'"),
        ('text,label\n"a,x\nb,y\nc, d,y\n', "and 1 of 3 rows do not have as many cells: line 4 has 3: 'c, d,y'"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        table(tmp_path, content)


def test_blank_lines_are_no_rows_and_a_blank_first_column_has_no_name(tmp_path: Path) -> None:
    assert cells(table(tmp_path, "text,label\n\na,x\n   \n\nb,y\n\n")) == [["a", "x"], ["b", "y"]]
    indexed = table(tmp_path, ",text,label\n0,a,x\n1,b,y\n")
    assert indexed.columns == ["", "text", "label"]


def test_a_file_without_a_header_takes_the_names_that_are_said(tmp_path: Path) -> None:
    read = table(tmp_path, "a,x\nb,y\n", columns=("text", "label"))
    assert cells(read) == [["a", "x"], ["b", "y"]]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(tmp_path: Path, line_end: str) -> None:
    content = line_end.join(["text,label", "a,x", '"b', 'c",y', ""])
    assert cells(table(tmp_path, content)) == [["a", "x"], [f"b{line_end}c", "y"]]


def test_line_separators_of_unicode_are_letters(tmp_path: Path) -> None:
    assert cells(table(tmp_path, "text,label\na\u2028b\x85c\x0cd,x\n")) == [["a\u2028b\x85c\x0cd", "x"]]


def test_a_column_is_found_by_its_name_without_blanks_round_it(tmp_path: Path) -> None:
    read = table(tmp_path, "text , label\na,x\n")
    assert read.find_column("label", "data.label_column") == " label"
    with pytest.raises(InvalidInput, match=r"has the columns 'text ', ' label'\. Did you mean  label\?"):
        read.find_column("labels", "data.label_column")


@pytest.mark.parametrize("name", ["r.csv.gz", "r.csv.bz2", "r.csv.xz", "r.csv.zip"])
def test_compressed_files(tmp_path: Path, name: str) -> None:
    content, file = "text,label\né,x\n".encode(), tmp_path / name
    match file.suffix:
        case ".gz":
            file.write_bytes(gzip.compress(content))
        case ".bz2":
            file.write_bytes(bz2.compress(content))
        case ".xz":
            file.write_bytes(lzma.compress(content))
        case ".zip":
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("r.csv", content)
                archive.writestr("__MACOSX/._r.csv", b"x")
    assert cells(open_table(file)) == [["é", "x"]]


def test_an_archive_of_two_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.csv.zip", "w") as archive:
        archive.writestr("a.csv", "text\n")
        archive.writestr("b.csv", "text\n")
    with pytest.raises(InvalidInput, match=r"has 2 files in it, a\.csv, b\.csv"):
        open_table(tmp_path / "r.csv.zip")


@pytest.mark.parametrize(
    ("encoding", "text", "likely"),
    [
        ("cp1252", "Ein schöner Film, der lange nachwirkt – über Väter und Söhne.", "cp1252"),
        ("cp1251", "Очень хороший фильм, который хочется пересматривать снова и снова.", "cp1251"),
        ("gb18030", "这部电影非常好看，演员的表演也很出色，值得推荐给大家。", "gb18030"),
        ("shift_jis", "とても良い映画でした。俳優の演技も素晴らしかったです。", "shift-jis"),
        ("utf-16", "Ein schöner Film", "utf-16"),
    ],
)
def test_another_encoding_is_named_and_then_read(tmp_path: Path, encoding: str, text: str, likely: str) -> None:
    content = "text,label\n" + f'"{text}",x\n' * 4
    with pytest.raises(InvalidInput, match=f"It looks like {likely}: data.encoding={likely}"):
        table(tmp_path, content.encode(encoding))
    assert cells(table(tmp_path, content.encode(encoding), encoding=likely))[0] == [text, "x"]


def test_utf8_that_is_read_as_something_else_is_said(tmp_path: Path) -> None:
    read = table(tmp_path, "text,label\né,x\n", encoding="latin-1")
    assert "although it is valid utf-8" in read.remarks[0]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert table(tmp_path, b"\xef\xbb\xbftext,label\na,x\n").columns == ["text", "label"]


def test_names_of_files_are_not_patterns(tmp_path: Path) -> None:
    (tmp_path / "r1.csv").write_text("text,label\nanother,y\n")
    assert cells(table(tmp_path, "text,label\na,x\n", "r[1].csv")) == [["a", "x"]]
