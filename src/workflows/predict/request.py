"""What is asked for on the command line of src.predict."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.data.files.table import ReadOptions
from src.training import inference


@dataclass(frozen=True)
class PredictRequest:
    """The command line."""

    texts: Sequence[str] = ()
    file: str | None = None
    out: str | None = None
    text_columns: Sequence[str] = ("text",)  # of the file; two for pairs
    pair: bool = False  # whether the texts, or lines of the standard input, are pairs
    model: str | None = None
    version: str | None = None
    run: str | None = None
    batch_size: int = inference.BATCH_SIZE
    tracking_uri: str | None = None
    encoding: str | None = None  # of files, of the standard input and of arguments; None is UTF-8
    separator: str | None = None  # of csv and tsv files
    quote: str | None = None  # see data.csv.quote
    resume: bool = False  # whether to go on with the answers that a broken run has kept
    overwrite: bool = False  # whether the output may replace the input

    @property
    def read_options(self) -> ReadOptions:
        """How files are read."""
        return ReadOptions(
            self.encoding,
            self.separator,
            self.quote,
            (),
            self.text_columns[0],
            setting="--",
            encoding_setting="--encoding",
        )
