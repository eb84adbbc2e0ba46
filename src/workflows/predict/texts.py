"""Texts of the command line and of the standard input, in the encoding that is said."""

import codecs
import io
import os
import sys
from collections.abc import Iterator, Sequence

from src.core.errors import InvalidInput
from src.core.formatting import plural
from src.core.texts import Text
from src.data.files.text_stream import checked_encoding, likely_encoding
from src.workflows.predict.request import PredictRequest

SAMPLE_BYTES = 1 << 16
BYTE_ORDER_MARK = "\ufeff"


def argument_texts(request: PredictRequest) -> list[str]:
    """The texts of the command line. Raises InvalidInput for one that is empty or not in the encoding."""
    encoding, texts = checked_encoding(request.read_options), []
    for number, text in enumerate(request.texts, start=1):
        try:  # Python keeps bytes that it cannot decode as surrogates
            texts.append(os.fsencode(text).decode(encoding) if not _is_whole(text) else text)
        except UnicodeDecodeError as error:
            raise InvalidInput(_wrong_encoding(f"Text {number}", os.fsencode(text), encoding)) from error
    blank = [i for i, text in enumerate(texts, start=1) if not text.strip()]
    if blank:
        raise InvalidInput(f"Text {blank[0]} of {len(texts)} is empty; there is nothing to classify in it.")
    return texts


def stdin_texts(request: PredictRequest) -> Iterator[str]:
    """The lines of the standard input that are not empty, as they come.

    Raises:
        InvalidInput: a line is not in the encoding; lines before it have been passed on.
    """
    encoding = checked_encoding(request.read_options)
    lines = _whole_lines(encoding) if encoding.startswith(("utf-16", "utf-32")) else _lines(encoding)
    for number, line in enumerate(lines):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line
        if text.strip():
            yield text.rstrip("\r\n")


def argument_pairs(request: PredictRequest) -> list[tuple[str, str]]:
    """The texts of the command line, two by two. Raises InvalidInput if one has no partner (see argument_texts)."""
    texts = argument_texts(request)
    if len(texts) % 2:
        raise InvalidInput(f"--pair takes the texts two by two, and there are {len(texts)}; the last has no partner.")
    return list(zip(texts[::2], texts[1::2], strict=True))


def stdin_pairs(request: PredictRequest) -> Iterator[tuple[str, str]]:
    """The lines of the standard input as pairs: two texts with a tab between them.

    Raises:
        InvalidInput: a line is no such pair, or not in the encoding; lines before it have been passed on.
    """
    for line in stdin_texts(request):
        texts = [text for text in line.split("\t") if text.strip()]
        if len(texts) != 2:
            raise InvalidInput(
                f"--pair needs two texts with a tab between them in each line of the standard input, and this line has "
                f"{plural(len(texts), 'text')}: {line[:80]!r}"
            )
        yield texts[0], texts[1]


def batches(texts: Iterator[Text], size: int) -> Iterator[Sequence[Text]]:
    """The texts, `size` at a time."""
    batch: list[Text] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(encoding: str) -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            sample = line + sys.stdin.buffer.read(SAMPLE_BYTES)
            raise InvalidInput(_wrong_encoding(f"Line {number} of the standard input", sample, encoding)) from error


def _whole_lines(encoding: str) -> Iterator[str]:
    """Lines of an encoding whose line ends are not single bytes."""
    try:
        yield from io.TextIOWrapper(sys.stdin.buffer, encoding=encoding)
    except UnicodeError as error:
        raise InvalidInput(f"The standard input is read as {encoding}, and is not: {error}.") from error


def _wrong_encoding(what: str, sample: bytes, encoding: str) -> str:
    likely = likely_encoding(sample)
    advice = f" It looks like {likely}: --encoding {likely}." if codecs.lookup(likely).name != encoding else ""
    return f"{what} is read as {encoding}, and is not.{advice}"


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)
