"""Opens folders that datasets' save_to_disk wrote."""

import json
from pathlib import Path

from src.core.errors import InvalidInput, first_line
from src.data.files.arrow_table import MemoryTable
from src.data.files.table import Table

DATASET_FILES = ("state.json", "dataset_info.json")
DICT_FILE = "dataset_dict.json"


def is_saved_dataset(folder: Path) -> bool:
    """Whether save_to_disk wrote the folder, with one split or several."""
    return (folder / DICT_FILE).is_file() or all((folder / name).is_file() for name in DATASET_FILES)


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The files whose content is the data, by split; a folder of one split is called train."""
    if not (folder / DICT_FILE).is_file():
        return {"train": sorted(folder.glob("*.arrow"))}
    names = json.loads((folder / DICT_FILE).read_text(encoding="utf-8"))["splits"]
    return {str(name): sorted((folder / str(name)).glob("*.arrow")) for name in names}


def open_saved_dataset(folder: Path) -> dict[str, Table]:
    """The tables by split; a folder of one split is called train. Raises InvalidInput if it cannot be read."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
        splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        return {
            str(name): MemoryTable(folder / str(name), split.with_format("arrow")[:]) for name, split in splits.items()
        }
    except Exception as error:  # its readers raise errors of many types
        raise InvalidInput(
            f"{folder} is a folder of datasets' save_to_disk, and could not be loaded: {first_line(error)}. Write the "
            "splits with to_parquet instead."
        ) from error
