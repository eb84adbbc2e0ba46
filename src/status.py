"""What has been searched here: `python -m src.status`, `python -m src.status mine`. Reads only; no Hydra here."""

import argparse
from collections.abc import Sequence

from src import manual
from src.commands import at_once

EPILOG = """examples:
  python -m src.status                             every study: how far it is, its best, what it cost, its verdict
  python -m src.status starter-minilm              every trial of one study
  python -m src.status starter-minilm --export trials.csv
"""


def parser() -> argparse.ArgumentParser:
    made = manual.parser(
        "python -m src.status",
        "How the studies in this folder stand. Reads only, also while they are searched.",
        EPILOG,
    )
    made.add_argument("study", nargs="?", metavar="STUDY", help="one study, by its name, with all its trials")
    made.add_argument("--export", metavar="PATH", help="write its trials to a csv, tsv, json, jsonl or parquet file")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parser().parse_args(arguments)
    from pathlib import Path

    from src.commands import answered
    from src.paths import Paths
    from src.runner import overview

    with answered():
        overview.show(asked.study, asked.export, Paths(Path.cwd()))


if __name__ == "__main__":
    at_once(main)
