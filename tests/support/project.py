"""A copy of the project, as a user has it who has just cloned it."""

import subprocess
from pathlib import Path

from src.config.groups import ROOT


def copy_project(place: Path) -> Path:
    """The project as it is checked out, in a folder of its own."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True,
                            text=True).stdout.split("\n")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes((ROOT / name).read_bytes())
    return place
