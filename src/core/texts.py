"""The texts of rows: one text each, or a pair of texts, such as a premise and a hypothesis."""

from collections.abc import Iterable, Sequence
from typing import Any

Text = str | tuple[str, str]  # one text, or a pair
TEXT, TEXT_PAIR = "text", "text_pair"  # columns of a prepared split; single texts have no second one


def texts_of(frame: Any) -> list[Text]:
    """The text of every row of a prepared split (a pandas.DataFrame); pairs, if it has a second column of texts."""
    if TEXT_PAIR in frame:
        return list(zip(frame[TEXT], frame[TEXT_PAIR], strict=True))
    return list(frame[TEXT])


def columns_of(texts: Sequence[Text]) -> dict[str, list[str]]:
    """The columns of a prepared split with these texts: the opposite of `texts_of`."""
    if any(isinstance(text, tuple) for text in texts):
        return {TEXT: [text[0] for text in texts], TEXT_PAIR: [text[1] for text in texts]}
    return {TEXT: [str(text) for text in texts]}


def parts(text: Text) -> tuple[str, ...]:
    """The one text, or the two of a pair."""
    return (text,) if isinstance(text, str) else text


def joined(text: Text) -> str:
    """All words of a text or pair in one text."""
    return " ".join(parts(text))


def shown(text: Text) -> str:
    """A text or pair for people to read; a bar stands between the two texts of a pair."""
    return " | ".join(parts(text))


def every_part(texts: Iterable[Text]) -> list[str]:
    """The texts, and both texts of each pair, one after another."""
    return [part for text in texts for part in parts(text)]
