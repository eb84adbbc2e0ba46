"""A recorded run again: `python -m src.reproduce run=<id>` trains it from its record and compares every number."""

import hydra
from omegaconf import DictConfig

from src import manual
from src.commands import answered, at_once


def reproduce(cfg: DictConfig) -> None:
    """Restore, train, compare."""
    from pathlib import Path

    from src.paths import Paths
    from src.runner import reproducing

    with answered():
        reproducing.reproduce(None if cfg.run is None else str(cfg.run), cfg.tracking_uri, Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(manual.CONF), config_name="reproduce")(reproduce)

if __name__ == "__main__":
    at_once(lambda: manual.run("reproduce", main))
