"""Past the gate: `python -m src.promote study.name=mine`. Registers; moves `champion` if the verdict says so."""

import hydra
from omegaconf import DictConfig

from src import manual
from src.commands import answered, at_once


def promote(cfg: DictConfig) -> None:
    """Decide from the records, say why, act."""
    from pathlib import Path

    from src import config
    from src.paths import Paths
    from src.runner import promoting

    with answered():
        promoting.promote(config.promotion_from(cfg), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(manual.CONF), config_name="promote")(promote)

if __name__ == "__main__":
    at_once(lambda: manual.run("promote", main))
