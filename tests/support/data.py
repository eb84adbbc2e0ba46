"""Settings as Hydra composes them, and small files of texts and labels."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

import hydra_plugins.trialbook as plugins
from src.config.groups import CONF_DIR
from src.config.reader import read_settings
from src.config.settings import Settings

plugins.register()  # for a process that did not start with pytest

LAUNCHER_PLUGINS = {
    "launcher/ray": "hydra_plugins.hydra_ray_launcher",
    "launcher/slurm": "hydra_plugins.hydra_submitit_launcher",
}
"""The plug-ins of launchers that are extras; the environment of the cluster tests has them."""


def settings_of(*overrides: str, config: str = "config") -> Settings:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return read_settings(compose(config, overrides=list(overrides), return_hydra_config=True), overrides)


def write_rows(path: Path, rows: Sequence[tuple[str, object]], header: str = "text,label") -> Path:
    import csv

    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def write_letters(path: Path, rows: int = 300) -> Path:
    """Words of letters from the alphabet's start (label low) or end (high), hardly one of them twice.

    A model that reads characters learns it in a few steps; counts of words say little about a new text.
    """
    import random

    generator = random.Random(0)
    letters = ("abcdefgh", "stuvwxyz")
    words = lambda label: " ".join("".join(generator.choices(letters[label], k=8)) for _ in range(2))  # noqa: E731
    return write_rows(path, [(words(i % 2), i % 2) for i in range(rows)])
