"""Loads the raw splits of a data set: your own files, a local folder, or the Hub."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from src.config.settings import DataSettings
from src.core.errors import InvalidInput, first_line, with_full_stop
from src.data import hub_access, own_loader
from src.data.files import disk_dataset
from src.data.files.arrow_table import MemoryTable
from src.data.files.formats import open_table
from src.data.files.table import NestedCell, ReadOptions, Table
from src.data.split_files import locate, resolve_splits, split_files

Frames = dict[str, pd.DataFrame]
SHOWN = 5  # rows or files in a message


@dataclass(frozen=True)
class RawSplits:
    """The splits of a source. Cells are text, None where there is no value."""

    frames: Frames  # split -> all its columns; those of text, label and id have the names of the settings
    names: dict[str, str]  # split -> its name in the source
    class_names: tuple[str, ...]  # labels by index, where the source names them; label cells are then names
    remarks: tuple[str, ...]  # how the files were read, where that is not obvious
    commit: str | None  # of the Hub


def load_splits(data: DataSettings) -> RawSplits:
    """The splits that `data.splits` names or leaves to the usual names. Raises InvalidInput if they cannot be read."""
    where = data.source
    remarks: list[str] = []
    tables: dict[str, list[Table]]
    if data.loader:
        returned, commit = own_loader.tables(data), None
        names = resolve_splits(data.splits, returned, where)
        tables = {split: [returned[name]] for split, name in names.items()}
    elif data.path:
        root, commit = locate(data.path), None
        names, groups = split_files(root, data.splits)
        tables = _open_files(root, {split: groups[name] for split, name in names.items()}, read_options(data))
        unread = [file for name, files in groups.items() if name not in names.values() for file in files]
        if unread:
            shown = ", ".join(str(file.relative_to(root)) for file in unread[:SHOWN])
            more = f" and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
            remarks.append(f"not read, because no split is called so: {shown}{more}")
    else:
        loaded, commit = _load_hub(data)
        names = resolve_splits(data.splits, loaded, where)
        tables = {
            split: [MemoryTable(Path(where), loaded[name].with_format("arrow")[:])] for split, name in names.items()
        }
    frames = {split: _read_split(split, parts, data) for split, parts in tables.items()}
    every = [table for parts in tables.values() for table in parts]
    remarks = list(dict.fromkeys([*(remark for table in every for remark in table.remarks), *remarks]))
    return RawSplits(frames, names, _class_names(every, data), tuple(remarks), commit)


def read_options(data: DataSettings) -> ReadOptions:
    """How the settings say that files are read."""
    csv = data.csv
    return ReadOptions(data.encoding, csv.separator, csv.quote, tuple(csv.columns), next(iter(data.text_columns), None))


def source_key(data: DataSettings) -> str:
    """A key that changes with the source's content: a hash of local files, or the Hub id and revision.

    Of a loader of your own code, a hash of what it returns.
    """
    if data.loader:
        return f"loader:{own_loader.content_hash(data)}"
    if not data.path:
        return f"hub:{data.hub_id}@{data.revision}"
    root, digest = locate(data.path), hashlib.sha256()
    used, groups = split_files(root, data.splits)
    digest.update(str(sorted(groups)).encode())
    for split, name in used.items():
        for file in groups[name]:
            digest.update(f"{split}\0{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return f"files:{digest.hexdigest()}"


def source_key_of_version_2(data: DataSettings) -> str:
    """The source's key in version 2 of the preparation, by which studies begun then find their data."""
    if data.loader or not data.path:
        return source_key(data)
    root, digest = locate(data.path), hashlib.sha256()
    endings = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix.lower() in endings)
    for file in files:
        parts = file.relative_to(root.parent if file == root else root).parts
        if file == root or not any(part == "mlruns" or part.startswith(".") for part in parts):
            digest.update("/".join(parts).encode() + b"\0" + file.read_bytes())
    return f"files:{digest.hexdigest()}"


def _open_files(root: Path, files: Mapping[str, Sequence[Path]], options: ReadOptions) -> dict[str, list[Table]]:
    if root.is_dir() and disk_dataset.is_saved_dataset(root):
        saved = disk_dataset.open_saved_dataset(root)
        by_files = dict(zip(map(tuple, disk_dataset.files_by_split(root).values()), saved.values(), strict=True))
        return {split: [by_files[tuple(parts)]] for split, parts in files.items()}
    return {split: [open_table(file, options) for file in parts] for split, parts in files.items()}


def _read_split(split: str, tables: Sequence[Table], data: DataSettings) -> pd.DataFrame:
    """All rows of a split: the columns of text, label and id, and others whose cells are plain."""
    wanted = dict.fromkeys(data.text_columns, "text_column") | dict.fromkeys(data.label_columns, "label_column")
    if data.id_column is not None:
        wanted[data.id_column] = "id_column"
    frames = []
    for table in tables:
        found = {_find_column(table, name, setting, split): name for name, setting in wanted.items()}
        others = [c for c in dict.fromkeys(table.columns) if c not in found and table.columns.count(c) == 1]
        frame = table.read([*found, *others]).rename(columns=found)
        if frame.empty:
            raise InvalidInput(f"{table.path} has no rows; it needs a text and a label per row.")
        for name, setting in wanted.items():
            if setting != "label_column" or not data.has_several_labels:
                _refuse_nested(frame[name], f"data.{setting} is {name!r}", f"{split} split of {table.path}")
        for column in data.text_columns:
            _refuse_half_characters(frame[column], table.path)
        others = [c for c in frame.columns if c not in wanted and not _has_nested(frame[c])]
        label_names = _names_of(table, data)
        if label_names and not data.has_several_labels:
            frame[data.label_columns[0]] = [_class_name(cell, label_names) for cell in frame[data.label_columns[0]]]
        frames.append(frame[[*wanted, *others]])
    return pd.concat(frames, ignore_index=True)


def _find_column(table: Table, name: str, setting: str, split: str) -> str:
    """See Table.find_column. A held-out split without labels, as competitions have it, can be left out."""
    try:
        return table.find_column(name, f"data.{setting}")
    except InvalidInput as error:
        if setting != "label_column" or split == "train":
            raise
        raise InvalidInput(
            f"{error} If this file has no labels, leave it out, and the {split} split is carved out of train: "
            f"'~data.splits.{split}'."
        ) from error


def _class_names(tables: Sequence[Table], data: DataSettings) -> tuple[str, ...]:
    """The names that the tables give their labels; those of the first table with any."""
    for table in tables:
        if names := _names_of(table, data):
            return names
    return ()


def _names_of(table: Table, data: DataSettings) -> tuple[str, ...]:
    """The names that the table gives the labels in its column; empty if it gives none, or if they are columns."""
    if len(data.label_columns) > 1:
        return ()
    return table.class_labels.get(table.find_column(data.label_columns[0], "data.label_column"), ())


def _class_name(cell: str | None, names: Sequence[str]) -> str | None:
    """The name of a label that is stored as an index. What is no index stays as it is, such as -1 for a hidden one."""
    return names[int(cell)] if cell is not None and cell.isdecimal() and int(cell) < len(names) else cell


def _has_nested(cells: pd.Series) -> bool:
    return any(isinstance(cell, NestedCell) for cell in cells)


def _refuse_nested(cells: pd.Series, setting: str, where: str) -> None:
    nested = [(i, cell) for i, cell in enumerate(cells, start=1) if isinstance(cell, NestedCell)]
    if nested:
        row, cell = nested[0]
        several = " If a text can have several labels, say data.task=multi_label." if "label" in setting else ""
        raise InvalidInput(
            f"{setting}, and the {where} has {len(nested)} cells there that are lists, mappings or bytes, such as "
            f"{str(cell)[:80]} in row {row}. A text is a text, and each text has one label: write "
            f"them so, for example a list of words joined by blanks, or a label per row.{several}"
        )


def _refuse_half_characters(cells: pd.Series, path: Path) -> None:
    for row, cell in enumerate(cells, start=1):
        if cell is not None and not cell.isascii() and any("\ud800" <= c <= "\udfff" for c in cell):
            raise InvalidInput(
                f"{path} has half a character (a lone surrogate) in the text of row {row}: {cell[:60]!a}. No encoding "
                "can write it, so the text was damaged before; mend it or leave the row out."
            )


def _resolve_commit(data: DataSettings) -> str:
    """The commit that data.revision refers to now, from the Hub or else its cache."""
    from huggingface_hub import resolve_revision

    return str(resolve_revision(data.hub_id, repo_type="dataset", revision=data.revision).resolved)


def _load_hub(data: DataSettings) -> tuple[dict[str, Any], str]:
    """Load with the datasets library the commit that data.revision refers to, and no other."""
    import datasets

    if not data.hub_id:
        raise InvalidInput("data has neither a path nor a hub_id; give data.path=<file or folder> or data.hub_id=<id>.")
    unreachable = hub_access.why_unreachable()
    try:
        commit = _resolve_commit(data)
        with _quiet_datasets():
            loaded = datasets.load_dataset(data.hub_id, revision=commit)
    except Exception as error:  # the clients raise their HTTP library's errors
        raise InvalidInput(
            f"data.hub_id is {data.hub_id} (revision {data.revision}), and it could not be downloaded from the Hugging "
            f"Face Hub: {unreachable or with_full_stop(first_line(error))} If this machine is offline, give a local "
            "copy: data.path=<folder>."
        ) from error
    commits = {Path(file["filename"]).parent.name for split in loaded.values() for file in split.cache_files}
    if commits - {commit}:  # if the Hub cannot be reached, the library uses any commit in its cache
        raise InvalidInput(
            f"data.hub_id is {data.hub_id}, of which the commit {commit} is asked for, and the Hub is out of reach: "
            f"the cache of datasets has {', '.join(sorted(commits))}. Go online once, or give a local copy: "
            "data.path=<folder>."
        )
    return dict(loaded), commit


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars while files are read."""
    import datasets

    was_on = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            datasets.enable_progress_bars()
