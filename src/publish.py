"""To the Hugging Face Hub: `python -m src.publish repo=<owner>/<name>` sends a registered version with its card."""

import hydra
from omegaconf import DictConfig

from src import manual
from src.commands import answered, at_once


def publish(cfg: DictConfig) -> None:
    """Gather, show, send."""
    from pathlib import Path

    from src import config
    from src.paths import Paths
    from src.runner import publishing

    with answered():
        publishing.publish(config.publication_from(cfg), Paths(Path.cwd()))


main = hydra.main(version_base="1.3", config_path=str(manual.CONF), config_name="publish")(publish)

if __name__ == "__main__":
    at_once(lambda: manual.run("publish", main))
