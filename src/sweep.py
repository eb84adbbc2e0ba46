"""Search: `python -m src.sweep -m`. Each study runs in as many workers as pay; the same command continues it."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins

plugins.register()


def work(cfg: DictConfig) -> None:
    """What Hydra starts as a job: one worker of the study."""
    from pathlib import Path

    from src import config
    from src.paths import Paths
    from src.runner import worker

    overrides = [o for o in config.task_overrides() if not o.startswith("worker.")]
    settings = config.settings_from(cfg, overrides)
    worker.work(settings, cfg.worker.index, cfg.worker.of, Paths(Path(cfg.worker.root)))


main = hydra.main(version_base="1.3", config_path="../conf", config_name="sweep")(work)

if __name__ == "__main__":
    main()
