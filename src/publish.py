"""Publishes a registered version with its card to the Hugging Face Hub: `python -m src.publish repo=<owner>/<name>`."""

import hydra
from omegaconf import DictConfig

from src.cli import help_pages
from src.cli.entry import handle_errors, run_and_exit
from src.config import groups
from src.console import error_messages


def publish(cfg: DictConfig) -> None:
    """Publish the version, or list its files."""
    from pathlib import Path

    from src.config import reader
    from src.core.paths import Paths
    from src.workflows import publish as workflow

    with handle_errors(error_messages.DOES_THE_REST):
        workflow.publish(reader.read_publication_settings(cfg), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(groups.CONF_DIR), config_name="publish")(publish)

if __name__ == "__main__":
    run_and_exit(lambda: help_pages.run("publish", main))
