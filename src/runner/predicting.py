"""Texts in, labels and scores out: which model answers, where texts come from, where answers go."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from src.errors import Refusal, first_line
from src.evidence import registry
from src.evidence.delivered import LABEL, SCORE
from src.evidence.registry import CHALLENGER, CHAMPION
from src.evidence.store import Store, existing_store
from src.learning import classify
from src.paths import Paths
from src.text import sources


@dataclass(frozen=True)
class Request:
    """The command line."""

    texts: Sequence[str] = ()
    file: str | None = None
    out: str | None = None
    text_column: str = "text"
    model: str | None = None
    version: str | None = None
    run: str | None = None
    batch_size: int = classify.BATCH
    tracking_uri: str | None = None


@dataclass(frozen=True)
class Found:
    """A model on record, and what to call it."""

    uri: str
    name: str


def predict(asked: Request, paths: Paths) -> None:
    """Answer the texts, or the file's rows. Raises Refusal for texts or models that are not there."""
    if asked.batch_size < 1:
        raise Refusal(f"--batch-size is {asked.batch_size}; it is a whole number from 1 up.")
    frame = _file(asked) if asked.file else pd.DataFrame({"text": _texts(asked)}, dtype=object)
    out = _out(asked)
    store = existing_store(asked.tracking_uri, paths.root)
    try:
        found = find(asked, store)
    except Refusal:
        raise
    except Exception as error:  # a server that is down or refuses: MLflow and the drivers raise what they like
        first = first_line(error)
        raise Refusal(f"The MLflow store at {store.address} cannot be read: {first}") from error
    note(f"Answered by {found.name}.")
    answered = answer(
        _load(store, found), frame[asked.text_column if asked.file else "text"].tolist(), asked.batch_size
    )
    if out is None:
        width = max(len(label) for label, _ in answered) if answered else 0
        for (label, score), text in zip(answered, frame["text"], strict=True):
            print(f"{label:<{width}}  {score:.4f}  {text}")
        return
    taken = LABEL in frame or SCORE in frame
    columns = [f"predicted_{name}" if taken else name for name in (LABEL, SCORE)]
    for column, values in zip(columns, zip(*answered, strict=True), strict=True):
        frame[column] = list(values)
    sources.write_file(frame, out)
    note(f"{len(frame)} rows with {' and '.join(columns)}: {out}")


def answer(classifier: Any, texts: Sequence[str], batch: int = classify.BATCH) -> list[tuple[str, float]]:
    """Per text, the likeliest label and its chance."""
    names = classify.label_names(classifier)
    with _bar(len(texts)) as advance:
        chances = classify.chances(classifier, texts, batch, advance)
    return [(names[int(row.argmax())], float(row.max())) for row in chances]


def find(asked: Request, store: Store) -> Found:
    """The model that is to answer: a run's, a version, the champion, or else the challenger."""
    if asked.run:
        return _of_run(asked.run, store)
    model = asked.model or registry.only_model(store, "--model NAME")
    if asked.version:
        version = registry.of_number(store, model, asked.version)
        return Found(version.uri, f"{model} version {version.number}")
    champion = registry.by_alias(store, model, CHAMPION)
    if champion:
        return Found(champion.uri, f"{model} version {champion.number}, the champion")
    challenger = registry.by_alias(store, model, CHALLENGER)
    if challenger:
        name = (
            f"{model} version {challenger.number}, the challenger: no version has passed the gate, there is no champion"
        )
        return Found(challenger.uri, name)
    raise Refusal(
        f"The registered model {model} has neither a champion nor a challenger in {store.address}. Compare and promote "
        "first (python -m src.compare, python -m src.promote), or name a --version or a --run."
    )


def note(text: str) -> None:
    """Beside the answers, not among them."""
    print(text, file=sys.stderr)


def _load(store: Store, found: Found) -> Any:
    try:
        return registry.load(store, found.uri)
    except Exception as error:  # MLflow raises what it likes
        first = first_line(error)
        raise Refusal(f"The model {found.name} ({found.uri}) cannot be loaded: {first}") from error


def _of_run(run_id: str, store: Store) -> Found:
    from src.evidence import recorded

    tags = recorded.tags(store, run_id)
    if "model.uri" not in tags:
        raise Refusal(
            f"--run is {run_id}, and that run has no model: only the best trial of a study, a promoted training and "
            "python -m src.train log theirs."
        )
    return Found(tags["model.uri"], f"the run {run_id}")


def _texts(asked: Request) -> list[str]:
    if asked.texts and list(asked.texts) != ["-"]:
        blank = [i for i, text in enumerate(asked.texts, start=1) if not text.strip()]
        if blank:
            raise Refusal(f"Text {blank[0]} of {len(asked.texts)} is empty; there is nothing to classify in it.")
        return list(asked.texts)
    if not asked.texts and sys.stdin.isatty():
        raise Refusal(
            'There is no text: python -m src.predict "a warm, funny film", or --file, or texts on the standard input, '
            "one per line."
        )
    lines = [line.rstrip("\n") for line in sys.stdin]
    return [line for line in lines if line.strip()]


def _file(asked: Request) -> pd.DataFrame:
    if asked.texts:
        raise Refusal("There are texts and a --file on the command line; give one of the two.")
    path = Path(str(asked.file)).expanduser()
    frame = _rows(path)
    if asked.text_column not in frame.columns:
        raise Refusal(
            f"--text-column is {asked.text_column!r}, and {path} has the columns {', '.join(map(str, frame.columns))}."
        )
    if frame.empty:
        raise Refusal(f"{path} has no rows; there is nothing to classify in it.")
    texts = frame[asked.text_column]
    blank = texts.isna() | (texts.astype(str).str.strip() == "")
    if blank.any():
        rows = ", ".join(str(i) for i in blank[blank].index[:5])
        raise Refusal(f"{path} has {int(blank.sum())} rows without a text (rows {rows} ...); every row needs one.")
    frame[asked.text_column] = texts.astype(str)
    return frame


def _rows(path: Path) -> pd.DataFrame:
    """The file's rows as they stand: of csv and tsv every cell as text, so that an id such as 007 stays one."""
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv") or not path.is_file():
        return sources.read_file(path)
    try:
        return pd.read_csv(path, sep="\t" if ending == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' own errors and a wrong encoding are ValueErrors
        raise Refusal(f"{path} could not be read as {ending.removeprefix('.')}: {first_line(error)}") from error


def _out(asked: Request) -> Path | None:
    if asked.file is None:
        if asked.out:
            raise Refusal("--out goes with --file; the answers to texts are printed.")
        return None
    path = Path(asked.file).expanduser()
    out = Path(asked.out).expanduser() if asked.out else path.with_name(f"{path.stem}.predictions{path.suffix}")
    if out.suffix.lower() not in sources.FORMATS:
        raise Refusal(f"--out is {out}; the name of a file it writes ends in {', '.join(sorted(sources.FORMATS))}.")
    if not out.parent.is_dir():
        raise Refusal(f"--out is {out}, and there is no folder {out.parent}.")
    return out


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A progress bar on the error output, where that is a terminal."""
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console,
                  transient=True, disable=not console.is_terminal or total < 2) as progress:  # fmt: skip
        task = progress.add_task("classifying", total=total)
        yield lambda: progress.advance(task)
