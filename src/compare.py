"""The verdict: `python -m src.compare study.name=mine`. Fresh seeds, then the sealed test split."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins
from src import manual
from src.commands import at_once

plugins.register()


def work(cfg: DictConfig) -> None:
    """What Hydra starts as a job: one worker of the comparison."""
    from pathlib import Path

    from src import drain
    from src.paths import Paths
    from src.runner import repeats

    drain.heed_scheduler()
    paths, own = Paths(Path(cfg.worker.root)), cfg.worker
    repeats.work(cfg.study.name, own.index, own.of, paths, own.cpus, measure_only=cfg.compare.plan_only)
    drain.hand_over()


main = hydra.main(version_base="1.3", config_path=str(manual.CONF), config_name="compare")(work)

if __name__ == "__main__":
    at_once(lambda: manual.run("compare", main))
