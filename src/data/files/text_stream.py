"""Opens text files: compression, encoding, byte order mark."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from src.core.errors import InvalidInput
from src.data.files.table import ReadOptions

COMPRESSIONS = (".gz", ".zip", ".bz2", ".xz")
SAMPLE_BYTES = 1 << 18
# encodings in which files of this kind come; others can be named, but are not guessed
LIKELY_ENCODINGS = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "gb18030", "big5", "shift_jis",
    "euc_jp", "euc_kr", "cp874",
)  # fmt: skip
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def compression_of(path: Path) -> str:
    """The extension of the compression, such as .gz; empty if the file is not compressed."""
    return path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""


def open_bytes(path: Path) -> Any:
    """The file's bytes, decompressed. Raises InvalidInput for an archive with more than one file."""
    match compression_of(path):
        case ".gz":
            return gzip.open(path)
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
        case ".zip":
            return _only_member(path)
        case _:
            return path.open("rb")


def create_text(path: Path, compression: str) -> IO[str]:
    """A new text file in UTF-8. Lines end as they are written. `compression`: see compression_of."""
    create: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    stream = create.get(compression, open)(path, "wb")
    return io.TextIOWrapper(stream, encoding="utf-8", newline="")


@contextmanager
def open_text(path: Path, options: ReadOptions) -> Iterator[IO[str]]:
    """The file's text, line ends as they are, without a byte order mark.

    Lines end with a line feed; with a carriage return only in a file that has no line feed.

    Raises:
        InvalidInput: the bytes are not text in the encoding; names the likely one.
    """
    encoding = checked_encoding(options)
    try:
        with open_bytes(path) as raw:
            start = raw.read(SAMPLE_BYTES)
            if encoding == "utf-8" and b"\0" in start:  # no text in UTF-8 has a zero byte
                raise UnicodeError(f"it has zero bytes, {start.count(0)} of the first {len(start)}")
            raw.seek(0)
            newline = "\n" if b"\n" in start else ""
            yield io.TextIOWrapper(raw, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline=newline)
    except UnicodeError as error:
        raise InvalidInput(_wrong_encoding(path, encoding, error, options)) from error
    except (EOFError, OSError, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        if not compression_of(path):
            raise
        raise InvalidInput(f"{path} could not be decompressed: {error}.") from error


def checked_encoding(options: ReadOptions) -> str:
    """The name of the encoding, as Python spells it. Raises InvalidInput if there is no such encoding."""
    name = options.encoding or "utf-8"
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise InvalidInput(
            f"{options.encoding_setting} is {name!r}, which is no encoding; for example utf-8, cp1252, "
            "utf-16 or gb18030."
        ) from error


def is_utf8_with_more_than_ascii(path: Path) -> bool:
    """Whether the file is valid UTF-8 and has a character that other encodings write differently."""
    plain = True
    try:
        with open_bytes(path) as raw:
            for line in raw:
                plain = plain and line.isascii()
                line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not plain


def likely_encoding(sample: bytes) -> str:
    """The encoding that `sample` (which is not UTF-8) seems to have."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return name
    if sample.count(0) > len(sample) / 4:
        return "utf-16-be" if sample[:1] == b"\0" else "utf-16-le"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(LIKELY_ENCODINGS)).best()
    if best is None or best.encoding == "ascii" or LIKELY_ENCODINGS[0] in best.could_be_from_charset:
        return LIKELY_ENCODINGS[0]  # the usual one, where several give the same text
    return str(best.encoding).replace("_", "-")


def _only_member(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise InvalidInput(f"{path} has {len(names)} files in it, {', '.join(names[:5])}; it must have one. Unpack it.")
    return archive.open(names[0])


def _wrong_encoding(path: Path, encoding: str, error: UnicodeError, options: ReadOptions) -> str:
    line, sample = 0, b""
    with open_bytes(path) as raw:
        start = raw.read(SAMPLE_BYTES)
        if start.startswith(tuple(BYTE_ORDER_MARKS)):
            sample = start
        else:
            raw.seek(0)
            for line, content in enumerate(raw, start=1):  # noqa: B007
                if not _decodes(content, encoding):
                    sample = content + raw.read(SAMPLE_BYTES)
                    break
    where = f", which line {line} is not" if line and sample else f" ({error})"
    advice = ""
    if (likely := likely_encoding(sample or start)) != encoding:
        advice = f" It looks like {likely}: {options.encoding_setting}={likely}."
        advice = advice if options.encoding_setting.startswith("data") else advice.replace("=", " ")
    return f"{path} is read as {encoding}{where}.{advice}"


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeError:
        return False
    return True
