"""Classifies texts: chooses the model, reads the texts, writes labels and scores."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from src.console.output import Console, progress_bar
from src.core.errors import CommandFailed, InvalidInput, first_line
from src.core.formatting import plural
from src.core.paths import Paths, replacing
from src.core.task import decided, gives_several_labels, pair_columns, predicts_numbers
from src.core.texts import Text, parts, shown
from src.data.files.formats import FORMATS, format_of, open_table, stem_of, write_with_columns
from src.data.files.table import BATCH_ROWS, NestedCell, Table
from src.data.files.text_stream import compression_of
from src.tracking.logged_model import LABEL, SCORE
from src.tracking.store import TrackingStore, explain, open_existing_store
from src.training import inference
from src.workflows.predict import texts
from src.workflows.predict.answers import Answer, AnswerFile, Job
from src.workflows.predict.model_choice import ChosenModel, choose_model, load_model
from src.workflows.predict.request import PredictRequest


def predict(request: PredictRequest, paths: Paths) -> None:
    """Classify the texts, or the rows of the file. Raises InvalidInput if there is no text or no model."""
    if request.batch_size < 1:
        raise InvalidInput(f"--batch-size is {request.batch_size}; it is a whole number from 1 up.")
    if request.file:
        _predict_file(request, paths)
    else:
        _predict_texts(request, paths)


def classify(classifier: Any, texts: Sequence[Text], batch: int = inference.BATCH_SIZE) -> list[Answer]:
    """The most likely label of each text, and its probability.

    Of a classifier that gives several labels, those above 0.5, with a comma between them, and how sure it is of the
    decision that it is least sure of. Of a model that predicts numbers, what it predicts, and the number.
    """
    names = inference.label_names(classifier)
    probabilities = inference.predict_probabilities(classifier, texts, batch)
    if predicts_numbers(classifier.model.config):
        return [(names[0], float(row[0])) for row in probabilities]
    if not gives_several_labels(classifier.model.config):
        return [(names[int(row.argmax())], float(row.max())) for row in probabilities]
    given = decided(probabilities, several=True)
    sure = np.where(given, probabilities, 1 - probabilities).min(axis=1)
    return [
        (",".join(name for name, has in zip(names, row, strict=True) if has), float(s))
        for row, s in zip(given, sure, strict=True)
    ]


def _predict_texts(request: PredictRequest, paths: Paths) -> None:
    if request.out or request.resume or request.overwrite:
        raise InvalidInput("--out, --resume and --overwrite go with --file; the answers to texts are printed.")
    if not request.texts and sys.stdin.isatty():
        raise InvalidInput(
            'There is no text: python -m src.predict "a warm, funny film", or --file, or texts on the standard input, '
            "one per line."
        )
    is_stdin = not request.texts or list(request.texts) == ["-"]
    wanted: Iterator[Text]
    if request.pair:
        wanted = texts.stdin_pairs(request) if is_stdin else iter(texts.argument_pairs(request))
    else:
        wanted = texts.stdin_texts(request) if is_stdin else iter(texts.argument_texts(request))
    store, model = _find_model(request, paths)
    classifier = _load(store, model, request.pair, "--pair")
    width = max(map(len, inference.label_names(classifier)))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have every character
    console = Console()
    for batch in texts.batches(wanted, request.batch_size):
        for (label, score), text in zip(classify(classifier, batch, request.batch_size), batch, strict=True):
            console.print(f"{label:<{width}}  {score:.4f}  {shown(text)}")


def _predict_file(request: PredictRequest, paths: Paths) -> None:
    if request.texts:
        raise InvalidInput("There are texts and a --file on the command line; give one of the two.")
    path = Path(str(request.file)).expanduser()
    out = _output_path(request, path)
    table = open_table(path, request.read_options) if not path.is_file() or path.stat().st_size else None
    if table is None or not table.columns:
        if path != out:
            shutil.copyfile(path, out)
        Console(stderr=True).print(f"{path} is empty; so is {out}.")
        return
    columns = _text_columns(request, table)
    names = _answer_columns(table)
    n_rows = _check_texts(table, columns)
    store, model = _find_model(request, paths)
    notes = Console(stderr=True)
    for remark in table.remarks:
        notes.print(f"note: {remark}.")
    classifier = _load(store, model, len(columns) > 1, "--text-column <first> <second>")
    kept = AnswerFile(out, Job.of(path, columns, model.uri))
    n_before = kept.begin(request.resume)
    try:
        wanted = islice(_texts(table, columns), n_before, None)
        with progress_bar("classifying", n_rows, n_before) as advance:
            for batch in texts.batches(wanted, max(request.batch_size, BATCH_ROWS // 4)):
                kept.add(classify(classifier, batch, request.batch_size))
                advance(len(batch))
    except (KeyboardInterrupt, Exception) as error:  # a model may fail with errors of any type
        why = "Stopped" if isinstance(error, KeyboardInterrupt) else f"Stopped by an error ({first_line(error)})"
        raise CommandFailed(
            f"{why} after {kept.n_answers} of {n_rows} rows. Their answers are kept in {kept.path}; the same command "
            "with --resume goes on with them."
        ) from error
    with replacing(out) as scratch:
        write_with_columns(table, scratch, out, kept.frames(names))
    kept.delete()
    notes.print(f"{n_rows} rows with {' and '.join(names)}: {out}")


def _answer_columns(table: Table) -> tuple[str, str]:
    """The names of the columns that are added. Raises InvalidInput if the file has them already."""
    has_such_columns = LABEL in table.columns or SCORE in table.columns
    names = (f"predicted_{LABEL}", f"predicted_{SCORE}") if has_such_columns else (LABEL, SCORE)
    if taken := [name for name in names if name in table.columns]:
        raise InvalidInput(
            f"{table.path} has a column {taken[0]!r} already, from an earlier prediction; rename it or take it out."
        )
    return names


def _load(store: TrackingStore, model: ChosenModel, pairs: bool, option: str) -> Any:
    """The classifier. Raises InvalidInput if it does not classify what is asked for.

    Args:
        store: has the model.
        model: to load.
        pairs: whether pairs of texts are to be classified.
        option: says so on the command line.
    """
    classifier = load_model(store, model)
    columns = pair_columns(classifier.model.config)
    if pairs and not columns:
        raise InvalidInput(f"{model.name} classifies single texts, and {option} gives it pairs of them.")
    if columns and not pairs:
        raise InvalidInput(
            f"{model.name} classifies pairs of texts, {' and '.join(columns)}: give {option}"
            + (", with the texts two by two." if option == "--pair" else ".")
        )
    return classifier


def _text_columns(request: PredictRequest, table: Table) -> list[str]:
    """The file's own names of the columns of texts. Raises InvalidInput if there is none of a name, or a third one."""
    names = request.text_columns
    if len(names) not in (1, 2):
        raise InvalidInput(f"--text-column has {plural(len(names), 'name')}; it is one column, or two for pairs.")
    if request.pair and len(names) == 1:
        raise InvalidInput("--pair with a --file needs the names of two columns: --text-column <first> <second>.")
    return [table.find_column(name, "--text-column") for name in names]


def _texts(table: Table, columns: Sequence[str]) -> Iterator[Text]:
    for frame in table.batches(columns):
        yield from frame[columns[0]] if len(columns) == 1 else zip(*(frame[c] for c in columns), strict=True)


def _check_texts(table: Table, columns: Sequence[str]) -> int:
    """The number of rows. Raises InvalidInput if one has no text."""
    blank, n_rows = dict[str, list[int]](), 0
    for number, text in enumerate(_texts(table, columns), start=1):
        n_rows = number
        for column, cell in zip(columns, parts(text or ""), strict=True):
            if isinstance(cell, NestedCell):
                raise InvalidInput(
                    f"--text-column is {column!r}, and {table.path} has a list, a mapping or bytes there in row "
                    f"{number}: {str(cell)[:80]}. A text is a text."
                )
            if cell is None or not cell.strip():
                blank.setdefault(column, []).append(number)
    for column, numbers in blank.items():
        rows = ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
        raise InvalidInput(
            f"{table.path} has {len(numbers)} rows without a text in the column {column!r} (rows {rows}; the first is "
            "row 1); every row needs one."
        )
    return n_rows


def _find_model(request: PredictRequest, paths: Paths) -> tuple[TrackingStore, ChosenModel]:
    store = open_existing_store(request.tracking_uri, paths.root)
    try:
        model = choose_model(request, store)
    except InvalidInput:
        raise
    except Exception as error:  # a server that is down or refuses: MLflow and database drivers raise errors of any type
        problem = explain(error) or first_line(error)
        raise InvalidInput(f"No model can be looked up in {store.address}: {problem}") from error
    Console(stderr=True).print(f"Answered by {model.name}.")  # on stderr, so that stdout has the labels only
    return store, model


def _output_path(request: PredictRequest, path: Path) -> Path:
    if request.out:
        out = Path(request.out).expanduser()
    else:
        compression = "" if compression_of(path) == ".zip" else compression_of(path)
        out = path.with_name(f"{stem_of(path)}.predictions{format_of(path)}{compression}")
    if not format_of(out) or compression_of(out) == ".zip":
        raise InvalidInput(f"--out is {out}; the name of a file it writes ends in {', '.join(FORMATS)}.")
    if not out.parent.is_dir():
        raise InvalidInput(f"--out is {out}, and there is no folder {out.parent}.")
    if out.exists() and path.exists() and out.samefile(path) and not request.overwrite:
        raise InvalidInput(
            f"--out is {out}, which is the --file itself. Give another name, or add --overwrite to replace the file by "
            "one with two more columns."
        )
    return out
