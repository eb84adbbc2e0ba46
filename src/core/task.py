"""What a data set asks of a classifier."""

from dataclasses import dataclass
from typing import Any

TEXT_COLUMNS = "text_columns"  # in the config of a model that classifies pairs: the columns that it was trained on


@dataclass(frozen=True)
class Task:
    """The labels that texts are given, and whether what is classified is one text or a pair."""

    label_names: tuple[str, ...]  # by label index
    text_columns: tuple[str, ...] = ("text",)  # in the source: one, or two for pairs

    @property
    def has_pairs(self) -> bool:
        """Whether pairs of texts are classified."""
        return len(self.text_columns) > 1


def pair_columns(config: Any) -> tuple[str, ...]:
    """The two columns that a model for pairs was trained on; empty for a model for single texts.

    `config`: of transformers.
    """
    return tuple(getattr(config, TEXT_COLUMNS, None) or ())
