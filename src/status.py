"""Shows all studies or one: `python -m src.status`, `python -m src.status mine`. It does not use Hydra."""

import argparse
from collections.abc import Sequence

from src.cli import help_pages
from src.cli.entry import run_and_exit

EPILOG = """examples:
  python -m src.status                             every study: how far it is, its best, what it cost, its verdict
  python -m src.status starter-minilm              every trial of one study
  python -m src.status starter-minilm --export trials.csv
"""


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    arguments = help_pages.parser(
        "python -m src.status",
        "Show the studies in this folder. It only reads, also while they are searched.",
        EPILOG,
    )
    arguments.add_argument("study", nargs="?", metavar="STUDY", help="one study, by its name, with all its trials")
    arguments.add_argument(
        "--export", metavar="PATH", help="write its trials to a csv, tsv, json, jsonl or parquet file"
    )
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = parser().parse_args(arguments)
    from pathlib import Path

    from src.cli.entry import handle_errors
    from src.console import error_messages
    from src.core.paths import Paths
    from src.workflows import status

    with handle_errors(error_messages.STARTS_AGAIN):
        status.show_status(options.study, options.export, Paths(Path.cwd()))


if __name__ == "__main__":
    run_and_exit(main)
