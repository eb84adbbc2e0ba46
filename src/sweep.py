"""Searches for the best settings: `python -m src.sweep -m`. The same command continues a study."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins
from src.cli import help_pages
from src.cli.entry import run_and_exit
from src.config import groups

plugins.register()


def work(cfg: DictConfig) -> None:
    """The job that Hydra starts: one worker of the study."""
    from pathlib import Path

    from src.config import compose, reader
    from src.core import shutdown
    from src.core.paths import Paths
    from src.workers import search_worker

    shutdown.listen_for_scheduler()
    overrides = [o for o in compose.task_overrides() if not o.startswith("worker.")]
    settings = reader.read_settings(cfg, overrides)
    search_worker.run_worker(settings, cfg.worker.index, cfg.worker.of, Paths(Path(cfg.worker.root)))
    shutdown.call_scheduler_handler()


main = hydra.main(version_base="1.3", config_path=str(groups.CONF_DIR), config_name="sweep")(work)


def command() -> None:
    """The script `trialbook-sweep`, whose overrides shells can complete."""
    run_and_exit(lambda: help_pages.run("sweep", main))


if __name__ == "__main__":
    command()
