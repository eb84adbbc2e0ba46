"""One tracked run of one configuration: `python -m src.train optimizer.learning_rate=1e-4`."""

import hydra
from omegaconf import DictConfig

import hydra_plugins.trialbook as plugins
from src import manual
from src.commands import answered, at_once

plugins.register()


def train(cfg: DictConfig) -> None:
    """Check, train, record, deliver."""
    from pathlib import Path

    from src import config
    from src.paths import Paths
    from src.runner import training

    with answered():
        training.train(config.settings_from(cfg, config.task_overrides()), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(manual.CONF), config_name="config")(train)

if __name__ == "__main__":
    at_once(lambda: manual.run("train", main))
