"""Registers the winner, and moves `champion` if the verdict justifies it: `python -m src.promote study.name=mine`."""

import hydra
from omegaconf import DictConfig

from src.cli import help_pages
from src.cli.entry import handle_errors, run_and_exit
from src.config import groups
from src.console import error_messages


def promote(cfg: DictConfig) -> None:
    """Register the winner, and decide about the champion."""
    from pathlib import Path

    from src.config import reader
    from src.core.paths import Paths
    from src.workflows import promote as workflow

    with handle_errors(error_messages.DOES_THE_REST):
        workflow.promote(reader.read_promotion_settings(cfg), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(groups.CONF_DIR), config_name="promote")(promote)

if __name__ == "__main__":
    run_and_exit(lambda: help_pages.run("promote", main))
