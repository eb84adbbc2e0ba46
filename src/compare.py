"""Compares a study's best settings on fresh seeds and the test split: `python -m src.compare study.name=mine`."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins
from src.cli import help_pages
from src.cli.entry import run_and_exit
from src.config import groups

plugins.register()


def work(cfg: DictConfig) -> None:
    """The job that Hydra starts: one worker of the comparison."""
    from pathlib import Path

    from src.config import reader
    from src.core import own_code, shutdown
    from src.core.paths import Paths
    from src.workers import comparison_worker

    shutdown.listen_for_scheduler()
    paths, worker = Paths(Path(cfg.worker.root)), cfg.worker
    own_code.load(reader.read_code(cfg), paths.root)
    comparison_worker.run_worker(
        cfg.study.name, worker.index, worker.of, paths, worker.cpus, measure_only=cfg.compare.plan_only
    )
    shutdown.call_scheduler_handler()


main = hydra.main(version_base="1.3", config_path=str(groups.CONF_DIR), config_name="compare")(work)

if __name__ == "__main__":
    run_and_exit(lambda: help_pages.run("compare", main))
