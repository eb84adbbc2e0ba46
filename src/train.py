"""Trains one configuration as a tracked run: `python -m src.train optimizer.learning_rate=1e-4`."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins
from src.cli import help_pages
from src.cli.entry import handle_errors, run_and_exit
from src.config import groups
from src.console import error_messages

plugins.register()


def train(cfg: DictConfig) -> None:
    """Train the configuration."""
    from pathlib import Path

    from src.config import compose, reader
    from src.core.paths import Paths
    from src.workflows import train as workflow

    with handle_errors(error_messages.STARTS_AGAIN):
        workflow.train(reader.read_settings(cfg, compose.task_overrides()), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(groups.CONF_DIR), config_name="config")(train)

if __name__ == "__main__":
    run_and_exit(lambda: help_pages.run("train", main))
