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
    text_column: str = "text"
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
            self.encoding, self.separator, self.quote, (), self.text_column, setting="--", encoding_setting="--encoding"
        )
