"""What Trialbook refuses, and how it says so."""

from collections.abc import Iterable


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


class StudyEnded(Exception):
    """A study that cannot usefully go on (too many failures in a row). Exit code 1; everything trained is kept."""


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
