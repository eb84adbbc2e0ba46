"""Repairs the artifact paths in `mlflow.db` after the folder around it was moved, renamed or copied.

MLflow stores absolute paths of local artifacts. It has no command to change them; its documentation says to change the
database. Tables and columns are found by their names, and only those that exist are changed.
"""

import re
from pathlib import Path
from urllib.parse import quote
from urllib.request import url2pathname

from src.core.errors import InvalidInput, first_line

ARTIFACTS = ("mlruns", "artifacts")  # below the folder of mlflow.db
PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def repair_artifact_paths(database: Path, artifact_locations: list[str]) -> str | None:
    """Change the paths of artifacts that now lie below the database's own folder.

    Args:
        database: mlflow.db.
        artifact_locations: of its experiments.

    Returns:
        The folder in which the artifacts were before; None if nothing had to be changed.

    Raises:
        InvalidInput: the database cannot be written.
    """
    root = database.resolve().parent
    for location in artifact_locations:
        before = _root_of(location)
        if before is None or before == root:
            continue
        name = url2pathname(location.removeprefix("file://")).rsplit("/", 1)[-1]
        if root.joinpath(*ARTIFACTS, name).is_dir():
            _replace_paths(database, before, root)
            return str(before)
    return None


def sqlite_uri(file: Path) -> str:
    """The URI of a SQLite file, in which a question mark or a percent sign in its path is quoted."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(file)).render_as_string()


def _root_of(location: str) -> Path | None:
    """The folder whose mlruns/artifacts has this experiment's artifacts; None if they are kept elsewhere."""
    match = re.fullmatch(r"file://(/.*)/mlruns/artifacts/[^/]+", location)
    return Path(url2pathname(match[1])) if match else None


def _replace_paths(database: Path, before: Path, now: Path) -> None:
    from sqlalchemy import MetaData, create_engine, func, update
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(sqlite_uri(database))
    pairs = [(f"{prefix}{_spelled(before, quoted)}/", f"{prefix}{_spelled(now, quoted)}/")
             for prefix, quoted in (("file://", True), ("file://", False), ("", False))]  # fmt: skip
    try:
        tables = MetaData()
        tables.reflect(engine, only=lambda name, _: name in {table for table, _ in PATH_COLUMNS})
        with engine.begin() as connection:
            for table_name, column_name in PATH_COLUMNS:
                table = tables.tables.get(table_name)
                if table is None or column_name not in table.c:
                    continue
                column = table.c[column_name]
                for old, new in dict(pairs).items():
                    changed = new + func.substr(column, len(old) + 1)
                    moved = func.substr(column, 1, len(old)) == old
                    connection.execute(update(table).where(moved).values({column: changed}))
    except SQLAlchemyError as error:
        raise InvalidInput(
            f"This folder was moved here from {before}, and {database} still has the old paths of its artifacts; they "
            f"could not be changed: {first_line(error)}. Work in a copy of the folder that is yours to write."
        ) from error
    finally:
        engine.dispose()


def _spelled(folder: Path, quoted: bool) -> str:
    return quote(str(folder)) if quoted else str(folder)
