"""Starts MLflow's UI and optuna-dashboard: `python -m src.ui`. It does not use Hydra."""

import argparse
from collections.abc import Sequence

from src.cli import help_pages
from src.cli.entry import run_and_exit

EPILOG = """examples:
  python -m src.ui                     both, for the study that was searched last; Ctrl-C stops them
  python -m src.ui starter-minilm      the dashboard of this study
  python -m src.ui --open              and open MLflow's UI in the browser
"""


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    arguments = help_pages.parser(
        "python -m src.ui",
        "Start MLflow's UI and optuna-dashboard on what was searched here, for this machine only.",
        EPILOG,
    )
    arguments.add_argument("study", nargs="?", metavar="STUDY", help="whose dashboard (default: the one searched last)")
    arguments.add_argument("--open", action="store_true", help="open MLflow's UI in the browser")
    arguments.add_argument("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db here")
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = parser().parse_args(arguments)
    from pathlib import Path

    from src.cli.entry import handle_errors
    from src.console import error_messages
    from src.core.paths import Paths
    from src.workflows import ui

    with handle_errors(error_messages.STARTS_AGAIN):
        ui.run_ui(options.study, options.open, options.tracking_uri, Paths(Path.cwd()))


if __name__ == "__main__":
    run_and_exit(main)
