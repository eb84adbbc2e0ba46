"""Search: `python -m src.sweep -m`. Each study runs in as many workers as pay; the same command continues it."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins
from src import manual
from src.commands import at_once

plugins.register()


def work(cfg: DictConfig) -> None:
    """What Hydra starts as a job: one worker of the study."""
    from pathlib import Path

    from src import config, drain
    from src.paths import Paths
    from src.runner import worker

    drain.heed_scheduler()
    overrides = [o for o in config.task_overrides() if not o.startswith("worker.")]
    settings = config.settings_from(cfg, overrides)
    worker.work(settings, cfg.worker.index, cfg.worker.of, Paths(Path(cfg.worker.root)))
    drain.hand_over()


main = hydra.main(version_base="1.3", config_path=str(manual.CONF), config_name="sweep")(work)


def command() -> None:
    """`trialbook-sweep`: the same under a name that shells can complete."""
    at_once(lambda: manual.run("sweep", main))


if __name__ == "__main__":
    command()
