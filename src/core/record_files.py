"""Reading small files of records, which a power cut or an edit by hand may have damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from src.core.errors import InvalidInput
from src.core.messages import notify

Parsed = TypeVar("Parsed")
_said: set[Path] = set()


class UnknownFields(ValueError):
    """A record with fields that this version does not know."""


def read_record(path: Path, parse: Callable[[str], Parsed]) -> Parsed | None:
    """What `parse` makes of the file's text; None if the file is not there, or damaged, which is said once.

    Raises:
        InvalidInput: a newer version wrote the file.
    """
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return None
    except UnknownFields as error:
        raise InvalidInput(
            f"{path} was written by a newer version of Trialbook ({error}); use that version, or a later one."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        if path not in _said:
            _said.add(path)
            notify(f"  note: {path} is damaged (a power cut, a full disk?); it is made again from what else is known.")
        return None


def read_json(path: Path, default: Any) -> Any:
    """The JSON in the file; `default` if it is not there, damaged, or of another type than `default`."""

    def parse(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, type(default)):
            raise TypeError(f"it is no {type(default).__name__}")
        return value

    value = read_record(path, parse)
    return default if value is None else value
