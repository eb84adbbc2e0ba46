"""What Trialbook refuses, and how it says so."""

import re
from collections.abc import Iterable

TOKEN = re.compile(r"\b(hf_|api_org_)[A-Za-z0-9]{20,}")  # as the Hugging Face Hub makes them


class Refusal(Exception):
    """Bad input, found before any training: what was found, where it is written, what is allowed. Exit code 2."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))

    @classmethod
    def when_any(cls, problems: Iterable[str]) -> None:
        """Raise one refusal that holds all `problems`, if there are any."""
        if found := list(problems):
            raise cls(*found)


class Declined(Exception):
    """A promotion that the evidence does not carry. Exit code 3; nothing but what it says was changed."""


class Differs(Exception):
    """A run that, trained again from its record, brought other numbers. Exit code 1."""


class BookLost(Exception):
    """The study's own records cannot be read or written. Not the trial's fault: its worker ends, and it continues."""


class StudyEnded(Exception):
    """A study that cannot usefully go on (too many failures in a row). Exit code 1; everything trained is kept."""


def masked(text: str) -> str:
    """`text` without the users and passwords of URLs in it, and without the Hub's tokens."""
    return TOKEN.sub(r"\1***", re.sub(r"://[^/\s]*@", "://***@", text))


def sentence(text: str) -> str:
    """`text` with a full stop, unless it ends with something like one."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def near(word: str, known: Iterable[str], before: str = "") -> str:
    """A question after the one of `known` that comes nearest to `word`, with `before` in front of it; or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), 1)
    return f" Did you mean {before}{close[0]}?" if close else ""


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line without secrets; its type where it says nothing."""
    said = str(getattr(error, "orig", None) or error)  # SQLAlchemy's errors hold the database's own
    return masked((said.strip().splitlines() or [type(error).__name__])[0])
