"""Answers to the rows of a file, kept as they come, so that a run that broke off can go on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from src.core.errors import InvalidInput
from src.core.record_files import with_schema, without_schema
from src.data.files.table import BATCH_ROWS

Answer = tuple[str, float]  # the label, and its probability


@dataclass(frozen=True)
class Job:
    """What answers belong to: a file's content, its column of texts (of pairs, both), and a model."""

    content: str  # hash of the file
    column: str
    model: str

    @classmethod
    def of(cls, file: Path, columns: Sequence[str], model: str) -> "Job":
        """The job of answering `file` with the model of this URI."""
        with file.open("rb") as stream:
            return cls(hashlib.file_digest(stream, "sha256").hexdigest(), "\t".join(columns), model)


class AnswerFile:
    """A file beside the output with a line per answer. It is deleted once the output is written."""

    def __init__(self, out: Path, job: Job) -> None:
        self.path, self.job = out.with_name(f"{out.name}.answers"), job
        self.n_answers = 0  # that are kept

    def begin(self, resume: bool) -> int:
        """Make the file ready. Returns the number of answers that are kept.

        Raises:
            InvalidInput: `resume` is asked for, and there is nothing to go on with, or it belongs to another job.
        """
        if not resume:
            self.path.write_text(json.dumps(with_schema(asdict(self.job))) + "\n", encoding="utf-8")
            return 0
        if not self.path.is_file():
            raise InvalidInput(
                f"--resume goes on with a run that broke off, and there is none: {self.path} is missing."
            )
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # the last may have been cut off
        if not whole or without_schema(json.loads(whole[0])) != asdict(self.job):
            raise InvalidInput(
                f"--resume: {self.path} has answers of another model, or to another file or column. Leave --resume out "
                "to begin anew."
            )
        if len(whole) < len(lines):
            self.path.write_text("".join(whole), encoding="utf-8")
        self.n_answers = len(whole) - 1
        return self.n_answers

    def add(self, answers: list[Answer]) -> None:
        """Append answers."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(answer) + "\n" for answer in answers))
        self.n_answers += len(answers)

    def frames(self, columns: tuple[str, str]) -> Iterator[pd.DataFrame]:
        """All answers, BATCH_ROWS at a time; one frame without rows if there are none. `columns`: their names."""
        with self.path.open(encoding="utf-8") as stream:
            next(stream)
            batch: list[Answer] = []
            n_frames = 0
            for line in stream:
                batch.append(json.loads(line))
                if len(batch) == BATCH_ROWS:
                    yield _frame(batch, columns)
                    batch, n_frames = [], n_frames + 1
            if batch or not n_frames:
                yield _frame(batch, columns)

    def delete(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _frame(answers: list[Answer], columns: tuple[str, str]) -> pd.DataFrame:
    labels, scores = ([answer[i] for answer in answers] for i in range(2))
    return pd.DataFrame({columns[0]: pd.Series(labels, dtype=object), columns[1]: pd.Series(scores, dtype=float)})
