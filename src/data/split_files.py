"""Which files of a folder, or splits of a source, are train, validation and test."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeVar

from src.core.errors import InvalidInput, did_you_mean
from src.core.old_names import current_name
from src.data.files import disk_dataset
from src.data.files.formats import LISTED, format_of, stem_of

SPLITS = ("train", "validation", "test")
USUAL_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})(-[0-9a-f]+)?")  # as on the Hub
T = TypeVar("T")


def locate(path: str) -> Path:
    """The folder or file at `path`; `pkg://module.path/rest` is in an installed package."""
    if path.startswith("pkg://"):
        module, _, rest = path.removeprefix("pkg://").partition("/")
        return Path(str(resources.files(current_name(module)))) / rest
    location = Path(path).expanduser()
    if not location.exists():
        raise InvalidInput(
            f"data.path is {path}, and there is no such file or folder (seen from {Path.cwd()}). It is one file, or a "
            f"folder with a file per split: {LISTED}.{_comma_hint(location)}"
        )
    return location


def _comma_hint(location: Path) -> str:
    """How a name with a comma is typed, if one begins with what was found."""
    folder, start = location.parent, f"{location.name},"
    names = sorted(f.name for f in folder.iterdir() if f.name.startswith(start)) if folder.is_dir() else []
    if not names:
        return ""
    typed = f"{folder}/{names[0]}" if str(folder) != "." else names[0]
    return (
        f" There is {typed}: on the command line a comma separates the values of several studies, so a name that has "
        f"one is typed in quotation marks: 'data.path=\"{typed}\"'."
    )


def files_by_name(root: Path) -> dict[str, list[Path]]:
    """The data files of a folder by the name of the split they are of. A single file is called train.

    A file's name, or that of the folder it is in, is the split's; shards are joined (train-00000-of-00002.parquet).

    Raises:
        InvalidInput: there is no data file.
    """
    if root.is_file():
        if not format_of(root):
            raise InvalidInput(f"data.path is {root}, whose format is not supported; it is one of {LISTED}.")
        return {"train": [root]}
    if disk_dataset.is_saved_dataset(root):
        return disk_dataset.files_by_split(root)
    groups: dict[str, list[Path]] = {}
    for file in sorted(_data_files(root)):
        groups.setdefault(_split_name(file, root), []).append(file)
    if not groups:
        raise InvalidInput(f"data.path is {root}, a folder without a file of {LISTED}.")
    return groups


def split_files(root: Path, splits: Mapping[str, str | None]) -> tuple[dict[str, str], dict[str, list[Path]]]:
    """The files that are read, and all there are.

    Args:
        root: a file, or a folder.
        splits: split -> name of a file, folder or split in `root`; None: one of the usual names, or none.

    Returns:
        Split -> its name in `root`, and the files by name.

    Raises:
        InvalidInput: a split that is named is not there, is there twice, or in part.
    """
    groups = files_by_name(root)
    names = resolve_splits(splits, groups, str(root))
    for name in names.values() if root.is_dir() and not disk_dataset.is_saved_dataset(root) else ():
        _check_group(name, groups[name], root)
    return names, groups


def resolve_splits(splits: Mapping[str, str | None], groups: Mapping[str, T], where: str) -> dict[str, str]:
    """Split -> the name that the source has for it.

    Args:
        splits: split -> name in the source; None: one of the usual names, or none.
        groups: what the source has, by name.
        where: the source, in words.

    Raises:
        InvalidInput: a split that is named is not there, or several have a usual name of it.
    """
    names: dict[str, str] = {}
    for split, wanted in splits.items():
        if wanted is not None:
            names[split] = _named(split, wanted, list(groups), where)
            continue
        usual = [name for name in groups if name.casefold() in USUAL_NAMES[split]]
        if len(usual) > 1:
            raise InvalidInput(
                f"{where} has {' and '.join(usual)}, which are both names of the {split} split; say which one it is: "
                f"data.splits.{split}={usual[0]}."
            )
        if usual:
            names[split] = usual[0]
    if "train" not in names:
        raise InvalidInput(
            f"{where} has no train split; it has {', '.join(map(repr, groups)) or 'none'}. Name the one to train on: "
            f"data.splits.train={next(iter(groups), '<name>')}."
        )
    return names


def _named(split: str, wanted: str, there: Sequence[str], where: str) -> str:
    if wanted in there:
        return wanted
    same = [name for name in there if name.casefold() == wanted.casefold() or stem_of(Path(name)) == wanted]
    if len(same) == 1:
        return same[0]
    raise InvalidInput(
        f"data.splits.{split} is {wanted!r}, but {where} has the splits {', '.join(map(repr, there)) or 'none'}."
        f"{did_you_mean(wanted, there)} Name one of them, or data.splits.{split}=null for one of the usual names "
        f"({', '.join(USUAL_NAMES[split])}), or else what data.carve cuts out."
    )


def _data_files(root: Path) -> Iterator[Path]:
    """Files below `root` that are data: not hidden, no cache, and no record of a search that was run there."""
    for file in root.rglob("*"):
        parts = file.relative_to(root).parts
        if format_of(file) and file.is_file() and not any(p == "mlruns" or p.startswith((".", "~$")) for p in parts):
            yield file


def _split_name(file: Path, root: Path) -> str:
    stem = stem_of(file)
    shard = SHARD.fullmatch(stem)
    name = shard["name"] if shard else stem
    folders = [part for part in file.relative_to(root).parent.parts if part != "data"]
    if not folders or any(name.casefold() in names for names in USUAL_NAMES.values()):
        return name
    return folders[-1]


def _check_group(name: str, files: Sequence[Path], root: Path) -> None:
    if len({file.parent for file in files}) > 1:
        shown = ", ".join(str(file.relative_to(root)) for file in files[:5])
        raise InvalidInput(
            f"{root} has the split {name!r} in several folders: {shown}. Name the folder that is meant: "
            f"data.path={files[0].parent}."
        )
    shards = [SHARD.fullmatch(stem_of(file)) for file in files]
    numbered = [shard for shard in shards if shard]
    in_folder_of_split = files[0].parent != root and files[0].parent.name == name
    if len(files) > 1 and len(numbered) < len(files) and not in_folder_of_split:
        shown = ", ".join(file.name for file in files[:5])
        raise InvalidInput(
            f"{files[0].parent} has the split {name!r} in several files: {shown}. Name the file that is meant: "
            f"data.path={files[0]}, or remove the others."
        )
    if numbered and (len({s["of"] for s in numbered}) > 1 or len(numbered) != int(numbered[0]["of"])):
        raise InvalidInput(
            f"{files[0].parent} has {len(numbered)} of {int(numbered[0]['of'])} parts of the split {name!r}: "
            f"{', '.join(file.name for file in files[:5])}."
        )
