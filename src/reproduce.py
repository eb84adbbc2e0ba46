"""Trains a recorded run again and compares every number: `python -m src.reproduce run=<id>`."""

import hydra
from omegaconf import DictConfig

from src.cli import help_pages
from src.cli.entry import handle_errors, run_and_exit
from src.config import groups
from src.console import error_messages


def reproduce(cfg: DictConfig) -> None:
    """Train the run again and compare it."""
    from pathlib import Path

    from src.config import reader
    from src.core.paths import Paths
    from src.workflows import reproduce as workflow

    with handle_errors(error_messages.STARTS_AGAIN):
        run_id = None if cfg.run is None else str(cfg.run)
        workflow.reproduce(run_id, cfg.tracking_uri, reader.read_code(cfg), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(groups.CONF_DIR), config_name="reproduce")(reproduce)

if __name__ == "__main__":
    run_and_exit(lambda: help_pages.run("reproduce", main))
