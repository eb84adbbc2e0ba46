"""Raw splits from the Hub, a local folder, or your own files."""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from src.errors import Refusal, first_line, sentence
from src.settings import DataSettings
from src.text import online

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
SPLIT_NAMES = ("train", "validation", "valid", "dev", "test", "unsupervised")
Frames = dict[str, pd.DataFrame]


def load_raw(data: DataSettings) -> tuple[Frames, str | None]:
    """The splits that `data.splits` names and the source has, and the commit that they are of.

    Split name -> frame with all its columns; the commit is None for local files.
    """
    loaded, commit = (_from_path(data), None) if data.path else _from_hub(data)
    wanted = {ours: loaded[theirs] for ours, theirs in data.splits.items() if theirs in loaded}
    if "train" not in wanted:
        raise Refusal(
            f"data.splits.train is {data.splits.get('train')!r}, but {data.path or data.hub_id} has the splits "
            f"{', '.join(loaded) or 'none'}; name the one to train on."
        )
    for split, frame in wanted.items():
        _check_columns(frame, split, data)
    return wanted, commit


def source_key(data: DataSettings) -> str:
    """Changes whenever the source's content does: a hash of local bytes, or the Hub id and revision."""
    if not data.path:
        return f"hub:{data.hub_id}@{data.revision}"
    root, digest = locate(data.path), hashlib.sha256()
    for path in _files(root):  # where in the folder a file lies says what split it is of
        digest.update(str(path.relative_to(root.parent if path == root else root)).encode() + b"\0" + path.read_bytes())
    return f"files:{digest.hexdigest()}"


def _commit(data: DataSettings) -> str:
    """The commit that data.revision stands for now, from the Hub or else its cache."""
    from huggingface_hub import resolve_revision

    return str(resolve_revision(data.hub_id, repo_type="dataset", revision=data.revision).resolved)


def locate(path: str) -> Path:
    """The folder or file behind `path`; `pkg://module.path/rest` lies in an installed package."""
    if path.startswith("pkg://"):
        module, _, rest = path.removeprefix("pkg://").partition("/")
        return Path(str(resources.files(module))) / rest
    found = Path(path).expanduser()
    if not found.exists():
        raise Refusal(
            f"data.path is {path}, and there is no such file or folder (seen from {Path.cwd()}). It is one file, or a "
            f"folder with a file per split: {', '.join(sorted(FORMATS))}."
        )
    return found


def _from_path(data: DataSettings) -> Frames:
    assert data.path
    root = locate(data.path)
    groups: dict[str, list[Path]] = {}
    for file in _files(root):
        groups.setdefault(_split_of(file, root), []).append(file)
    return {split: pd.concat([read_file(f) for f in files], ignore_index=True) for split, files in groups.items()}


def _files(root: Path) -> list[Path]:
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if _is_data(p, root))
    if root.is_file() and root.suffix.lower() not in FORMATS:
        raise Refusal(f"data.path is {root}, of a kind not read here; it is one of {', '.join(sorted(FORMATS))}.")
    if not files:
        raise Refusal(f"data.path is {root}, a folder without a file of {', '.join(sorted(FORMATS))}.")
    return files


def _is_data(file: Path, root: Path) -> bool:
    """Whether a file below `root` is one to read: hidden copies, caches and records of searches made there are not."""
    parts = file.relative_to(root).parts
    hidden = any(part == "mlruns" or part.startswith(".") for part in parts)
    return file.suffix.lower() in FORMATS and not hidden


def _split_of(file: Path, root: Path) -> str:
    """`train` for the one file; else the file's name, or its folder's, up to the first '-' (train-00000-of-2)."""
    if root.is_file():
        return "train"
    own = file.stem.split("-")[0]
    return own if file.parent in (root, root / "data") or own in SPLIT_NAMES else file.parent.name.split("-")[0]


def read_file(file: Path) -> pd.DataFrame:
    """One file, by its name's ending, through the datasets library. Raises Refusal if it cannot be read."""
    import datasets

    if not file.is_file() or file.suffix.lower() not in FORMATS:
        what = f"is none of {', '.join(sorted(FORMATS))}" if file.is_file() else "is not there"
        raise Refusal(f"The file {file} {what} (seen from {Path.cwd()}).")
    kind = FORMATS[file.suffix.lower()]
    options: dict[str, Any] = {"sep": "\t"} if file.suffix.lower() == ".tsv" else {}
    if kind == "csv":  # None and NA are texts, and names that a label may have
        options |= {"keep_default_na": False, "na_values": [""]}
    if file.stat().st_size == 0:
        raise Refusal(f"{file} is empty; it needs a text and a label per row.")
    try:
        with _quiet_datasets():
            loaded = datasets.load_dataset(kind, data_files=str(file), split="train", **options)
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        if "corresponds to no data" in str(error):  # as datasets says it
            raise Refusal(f"{file} has no rows; it needs a text and a label per row.") from error
        cause = str(error.__cause__ or error).strip().splitlines()
        raise Refusal(f"{file} could not be read as {kind}: {cause[0] if cause else type(error).__name__}") from error
    return loaded.to_pandas()


def _from_hub(data: DataSettings) -> tuple[Frames, str]:
    """Through the datasets library, at the commit that data.revision stands for, and at no other."""
    import datasets

    if not data.hub_id:
        raise Refusal("data has neither a path nor a hub_id; give data.path=<file or folder> or data.hub_id=<id>.")
    unreachable = online.problem()
    try:
        wanted = _commit(data)
        with _quiet_datasets():
            loaded = datasets.load_dataset(data.hub_id, revision=wanted)
    except Exception as error:  # the clients below raise what their HTTP library raises
        raise Refusal(
            f"data.hub_id is {data.hub_id} (revision {data.revision}), and it could not be had from the Hugging Face "
            f"Hub: {unreachable or sentence(first_line(error))} If this machine is offline, give a local copy: "
            "data.path=<folder>."
        ) from error
    found = {Path(file["filename"]).parent.name for split in loaded.values() for file in split.cache_files}
    if found - {wanted}:  # with the Hub out of reach, the library takes any commit that it has
        raise Refusal(
            f"data.hub_id is {data.hub_id}, of which the commit {wanted} is asked for, and the Hub is out of reach: "
            f"the cache of datasets has {', '.join(sorted(found))}. Go online once, or give a local copy: "
            "data.path=<folder>."
        )
    return {split: loaded[split].to_pandas() for split in loaded if split in data.splits.values()}, wanted


def _check_columns(frame: pd.DataFrame, split: str, data: DataSettings) -> None:
    columns = {"text_column": data.text_column, "label_column": data.label_column, "id_column": data.id_column}
    for setting, column in columns.items():
        if column is not None and column not in frame.columns:
            raise Refusal(
                f"data.{setting} is {column!r}, but the {split} split of {data.path or data.hub_id} has the columns "
                f"{', '.join(map(str, frame.columns))}."
            )


class _quiet_datasets:  # noqa: N801  (a context manager, named as it is used)
    """No progress bars while files are read."""

    def __enter__(self) -> None:
        import datasets

        self._was_on = datasets.utils.logging.is_progress_bar_enabled()
        datasets.disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        import datasets

        if self._was_on:
            datasets.enable_progress_bars()


def write_file(frame: pd.DataFrame, out: Path) -> None:
    """Rows to a file, in the format that its name says."""
    scratch = out.with_name(f"{out.name}.part")
    ending = out.suffix.lower()
    if ending in (".csv", ".tsv"):
        frame.to_csv(scratch, index=False, sep="\t" if ending == ".tsv" else ",")
    elif ending == ".parquet":
        frame.to_parquet(scratch, index=False)
    else:
        frame.to_json(scratch, orient="records", lines=ending == ".jsonl", force_ascii=False)
    scratch.replace(out)
