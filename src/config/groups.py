"""Where the YAML files are, and the config groups with their options. It imports nothing, so that --help is instant."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONF_DIR, SWEEPS_DIR = ROOT / "conf", ROOT / "sweeps"


def group_options() -> dict[str, list[str]]:
    """Config groups in conf/ and the options of each, both sorted."""
    folders = sorted(folder for folder in CONF_DIR.iterdir() if folder.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def sweep_files() -> list[Path]:
    """The files in sweeps/, sorted by name."""
    return sorted(SWEEPS_DIR.glob("*.yaml"))
