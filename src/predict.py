"""Classify texts: `python -m src.predict "a warm, funny film"`. A text is no Hydra override: no Hydra here."""

import argparse
from collections.abc import Sequence

from src import manual
from src.commands import at_once

EPILOG = """examples:
  python -m src.predict "It's a warm, funny film." "dull"
  python -m src.predict --file reviews.csv                 writes reviews.predictions.csv
  cat reviews.txt | python -m src.predict                  one text per line
  python -m src.predict --run 0123abcd... "dull"           the model of any run that has one
"""


def parser() -> argparse.ArgumentParser:
    made = manual.parser(
        "python -m src.predict", "Classify texts with the champion, or with any model on record.", EPILOG
    )
    add = made.add_argument
    add(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="texts; without any, the standard input, one per line (empty lines are passed over)",
    )
    add("--file", metavar="PATH", help="a csv, tsv, json, jsonl or parquet file with a column of texts")
    add("--out", metavar="PATH", help="where the file's rows go with label and score (default: beside it)")
    add("--text-column", default="text", metavar="NAME", help="the file's column of texts (default: text)")
    add("--model", metavar="NAME", help="the registered model (default: the only one there is)")
    add("--version", metavar="N", help="this version of it (default: the champion, else the challenger)")
    add("--run", metavar="ID", help="the model of this MLflow run, instead of a registered one")
    add("--batch-size", type=int, default=32, metavar="N", help="texts at once (default: 32)")
    add("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db here")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parser().parse_args(arguments)
    from pathlib import Path

    from src.commands import answered
    from src.paths import Paths
    from src.runner import predicting

    with answered():
        predicting.predict(predicting.Request(**vars(asked)), Paths(Path.cwd()))


if __name__ == "__main__":
    at_once(main)
