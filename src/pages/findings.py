"""Everything that is known of a search that was judged, in one record: enough to draw its card and report anywhere."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from src.pages.analysis import Analysis
from src.pages.history import History
from src.records import Change
from src.verdict.record import Verdict


@dataclass(frozen=True)
class Inspected:
    """What is seen in the weights that a training left."""

    layers: tuple[Change, ...]  # how far each moved
    tensors: tuple[Change, ...]
    summary: str  # the model's parts
    analysis: Analysis | None  # on validation; None: a training of before its answers were kept


@dataclass(frozen=True)
class Findings:
    """A search, its verdict, and the weights that the verdict registers."""

    history: History
    verdict: Verdict
    test: Analysis  # of the registered weights: numbers only
    validation: Analysis | None
    changes: tuple[Change, ...]  # by layer

    def to_json(self) -> str:
        return str(TypeAdapter(Findings).dump_json(self, indent=1).decode())

    @staticmethod
    def from_json(text: str) -> "Findings":
        return TypeAdapter(Findings).validate_json(text)
