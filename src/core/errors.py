"""The errors that commands print without a traceback, and helpers for their texts."""

import re
from collections.abc import Iterable

HUB_TOKEN = re.compile(r"\b(hf_|api_org_)[A-Za-z0-9]{20,}")  # as the Hugging Face Hub makes them


class InvalidInput(Exception):
    """Bad input, found before any training.

    Says what was found, where it is written and what is allowed. Exit code 2.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))

    @classmethod
    def raise_if_any(cls, problems: Iterable[str]) -> None:
        """Raise one error with all `problems`, if there are any."""
        if all_problems := list(problems):
            raise cls(*all_problems)


class PromotionDeclined(Exception):
    """The verdict does not justify moving the alias `champion`. Exit code 3."""


class NotReproduced(Exception):
    """A run that was trained again from its record gave other numbers. Exit code 1."""


class StorageUnavailable(Exception):
    """The study's records cannot be read or written. The worker exits; its trial keeps its checkpoint."""


class CommandFailed(Exception):
    """A command that cannot go on, such as a study with too many failures in a row.

    Exit code 1; everything trained is kept.
    """


def mask_secrets(text: str) -> str:
    """`text` with users and passwords in URLs, and the Hub's tokens, replaced by ***."""
    return HUB_TOKEN.sub(r"\1***", re.sub(r"://[^/\s]*@", "://***@", text))


def with_full_stop(text: str) -> str:
    """`text` with a full stop at its end, unless it ends with a punctuation mark."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """A question that offers the word of `known` closest to `word`; empty if none is close.

    Args:
        word: what was typed.
        known: what exists.
        before: written in front of the offered word, such as "data=".
    """
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), 1)
    return f" Did you mean {before}{close[0]}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without secrets; the name of its type if the message is empty."""
    message = str(getattr(error, "orig", None) or error)  # SQLAlchemy's errors contain the database's
    return mask_secrets((message.strip().splitlines() or [type(error).__name__])[0])
