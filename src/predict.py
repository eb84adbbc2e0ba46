"""Classifies texts: `python -m src.predict "a warm, funny film"`. It does not use Hydra."""

import argparse
from collections.abc import Sequence

from src.cli import help_pages
from src.cli.entry import run_and_exit

EPILOG = """examples:
  python -m src.predict "It's a warm, funny film." "dull"
  python -m src.predict --file reviews.csv                 writes reviews.predictions.csv
  cat reviews.txt | python -m src.predict                  one text per line
  python -m src.predict -- "-10/10, never again"           a text that begins with a dash
  python -m src.predict --file reviews.csv --resume        goes on where a run broke off
  python -m src.predict --run 0123abcd... "dull"           the model of any run that has one
  python -m src.predict --pair "A man sleeps." "He rests"  a pair, for a model that was trained on pairs
  python -m src.predict --file nli.csv --text-column premise hypothesis
"""


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    arguments = help_pages.parser(
        "python -m src.predict", "Classify texts with the champion, or with any model on record.", EPILOG
    )
    add = arguments.add_argument
    add(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="texts; without any, the standard input, one per line (empty lines are passed over)",
    )
    add("--file", metavar="PATH", help="a csv, tsv, json, jsonl, parquet, arrow or xlsx file with a column of texts")
    add("--out", metavar="PATH", help="where the file's rows go with label and score (default: beside it)")
    add("--overwrite", action="store_true", help="let --out be the --file itself")
    add("--resume", action="store_true", help="go on with the answers that a broken run has kept beside --out")
    add("--encoding", metavar="NAME", help="of files, standard input and arguments (default: utf-8)")
    add("--separator", metavar="C", help="between the cells of a csv or tsv file (default: as found)")
    add("--quote", metavar="C", help="the quotation mark of a csv or tsv file; none: such marks are letters")
    add(
        "--text-column", dest="text_columns", nargs="+", default=["text"], metavar="NAME",
        help="the file's column of texts (default: text); two for pairs of texts",
    )  # fmt: skip
    add(
        "--pair",
        action="store_true",
        help="texts are pairs: two by two here, with a tab between them on standard input",
    )
    add("--model", metavar="NAME", help="the registered model (default: the only one there is)")
    add("--version", metavar="N", help="this version of it (default: the champion, else the challenger)")
    add("--run", metavar="ID", help="the model of this MLflow run, instead of a registered one")
    add("--batch-size", type=int, default=32, metavar="N", help="texts at once (default: 32)")
    add("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db here")
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options, unknown = parser().parse_known_args(arguments)
    from pathlib import Path

    from src.cli.entry import handle_errors
    from src.console import error_messages
    from src.core.errors import InvalidInput
    from src.core.paths import Paths

    with handle_errors(error_messages.ANSWERS_KEPT):
        if unknown:
            raise InvalidInput(
                f"{unknown[0]!r} is no option of this command (see --help). If it is a text that begins with a dash, "
                f"write -- before the texts: python -m src.predict -- '{unknown[0]}'"
            )
        from src.workflows.predict import run
        from src.workflows.predict.request import PredictRequest

        run.predict(PredictRequest(**vars(options)), Paths(Path.cwd()))


if __name__ == "__main__":
    run_and_exit(main)
