"""Reading and writing small files of records, whose content has a version, and which may be damaged.

What is stored as a mapping carries the version of Trialbook's schema under `schema`: JSON files and lines, the
attributes of a study, a study's config. MLflow runs and registered models have it as a tag. What was stored before
there was a version counts as version 1. Files of a single value, such as a run's id, have none.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from src.core.errors import InvalidInput
from src.core.messages import notify
from src.core.paths import atomic_write

SCHEMA = 4  # to be raised whenever an earlier version of Trialbook would read what is stored wrongly, or not at all
SCHEMA_KEY = "schema"
SCHEMA_TAG = "trialbook.schema"  # of MLflow runs and registered versions

Parsed = TypeVar("Parsed")
_said: set[Path] = set()


class NewerRecord(InvalidInput):
    """A record that a newer version wrote: of a higher schema, or with fields that are not known here."""

    def __init__(self, problem: str, what: object = "What is stored") -> None:
        super().__init__(
            f"{what} was written by a newer version of Trialbook ({problem}); use that version, or a later one."
        )
        self.problem = problem


def with_schema(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and the version of the schema that they are stored with."""
    return {SCHEMA_KEY: SCHEMA, **values}


def without_schema(values: Mapping[str, Any]) -> dict[str, Any]:
    """The stored values without their version.

    Raises:
        NewerRecord: a newer version stored them.
    """
    rest = dict(values)
    check_schema(rest.pop(SCHEMA_KEY, 1), "What is stored")
    return rest


def check_schema(version: object, what: object) -> None:
    """Raise NewerRecord if `version` of the schema, with which `what` was stored, is not known here."""
    if int(str(version)) > SCHEMA:
        raise NewerRecord(f"its schema is version {version}, and this version of Trialbook reads up to {SCHEMA}", what)


def read_record(path: Path, parse: Callable[[str], Parsed]) -> Parsed | None:
    """What `parse` makes of the file's text; None if the file is not there, or damaged, which is said once.

    Raises:
        NewerRecord: a newer version wrote the file.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NewerRecord as error:
        raise NewerRecord(error.problem, path) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        if path not in _said:
            _said.add(path)
            notify(f"  note: {path} is damaged (a power cut, a full disk?); it is made again from what else is known.")
        return None


def read_json(path: Path, default: Any) -> Any:
    """The JSON in the file; `default` if it is not there, damaged, or of another type than `default`.

    Raises:
        NewerRecord: a newer version wrote the file.
    """

    def parse(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, type(default)):
            raise TypeError(f"it is no {type(default).__name__}")
        return without_schema(value) if isinstance(value, dict) else value

    value = read_record(path, parse)
    return default if value is None else value


def write_json(path: Path, values: Mapping[str, Any], indent: int | None = None, durable: bool = True) -> None:
    """Write the values with the schema's version as JSON, as `atomic_write` does."""
    atomic_write(path, json.dumps(with_schema(values), indent=indent), durable)
