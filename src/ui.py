"""Browse what was searched: `python -m src.ui` starts MLflow's UI and optuna-dashboard. No Hydra here."""

import argparse
from collections.abc import Sequence

from src import manual
from src.commands import at_once

EPILOG = """examples:
  python -m src.ui                     both, for the study that was searched last; Ctrl-C stops them
  python -m src.ui starter-minilm      the dashboard of this study
  python -m src.ui --open              and open MLflow's UI in the browser
"""


def parser() -> argparse.ArgumentParser:
    made = manual.parser(
        "python -m src.ui",
        "Start MLflow's UI and optuna-dashboard on what was searched here, for this machine only.",
        EPILOG,
    )
    made.add_argument("study", nargs="?", metavar="STUDY", help="whose dashboard (default: the one searched last)")
    made.add_argument("--open", action="store_true", help="open MLflow's UI in the browser")
    made.add_argument("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db here")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parser().parse_args(arguments)
    from pathlib import Path

    from src.commands import answered
    from src.paths import Paths
    from src.runner import browsing

    with answered():
        browsing.browse(asked.study, asked.open, asked.tracking_uri, Paths(Path.cwd()))


if __name__ == "__main__":
    at_once(main)
