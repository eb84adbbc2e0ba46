"""What a comparison found out, as frozen records: JSON both ways."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

VERDICT = "verdict.json"  # the file, in a comparison's folder
BETTER, WORSE, NOT_SHOWN = "better", "worse", "not shown"


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RepeatRecord:
    """One recipe trained once, from one fresh seed."""

    seed: int
    run_id: str | None
    validation: dict[str, float]  # metrics of the weights that were kept
    test: dict[str, float] = field(default_factory=dict)  # empty: the test split was not opened for it
    seconds: float = 0.0  # of training


@dataclass(frozen=True)
class ContenderRecord:
    """A baseline, the default recipe, tuned settings or the champion, and how it did."""

    name: str
    kind: str  # baseline, default, tuned, champion
    key: str  # of its recipe
    about: str  # in words: the trial, the version
    params: dict[str, Any]  # the searched settings
    search_score: float | None
    validation: float | None  # study.metric, the mean over fresh seeds; of a baseline, its own
    spread: float | None  # standard deviation over the seeds
    optimism: float | None  # how much better the search's score was than the fresh seeds' mean
    registered_seed: int | None  # of the repeat with the median validation score: the one to register
    repeats: tuple[RepeatRecord, ...]
    test: dict[str, Interval]  # empty: the test split was not opened for it
    megabytes: float | None = None
    ms_per_1000_texts: float | None = None
    problem: str | None = None  # why it could not be judged

    @property
    def registered(self) -> RepeatRecord:
        """The repeat to register."""
        return next(r for r in self.repeats if r.seed == self.registered_seed)


@dataclass(frozen=True)
class Against:
    """The winner against one other contender, on the same test examples."""

    other: str
    metric: str
    difference: Interval  # winner minus other
    verdict: str
    only_winner: int  # McNemar's test on the registered weights: examples that only the winner's got right,
    only_other: int  # only the other's,
    p: float  # and the exact two-sided p


@dataclass(frozen=True)
class Verdict:
    """The whole of it."""

    number: int  # counts a study's verdicts, from 1
    study: str
    uid: str
    key: str  # of the contenders, but the champion, and seeds that it is about
    made: str  # when, ISO 8601
    data: str
    fingerprints: dict[str, str]
    registry: str
    metric: str
    direction: str
    margin: float
    seeds: tuple[int, ...]
    test_examples: int
    chosen_among: int
    contenders: tuple[ContenderRecord, ...]
    winner: str
    best_baseline: str
    against: tuple[Against, ...]
    opening: int  # the how-manieth opening of this test split this was
    openings: int  # how often it had been opened when the verdict was written
    champion: str | None  # the version that was the champion
    champion_key: str  # names its very model, whatever its number
    notes: tuple[str, ...] = ()

    def contender(self, name: str) -> ContenderRecord:
        return next(c for c in self.contenders if c.name == name)

    def versus(self, name: str) -> Against | None:
        return next((a for a in self.against if a.other == name), None)

    @property
    def search_top(self) -> str:
        """Whom the search alone would have taken."""
        found = {c.name: c.search_score for c in self.contenders if c.search_score is not None}
        return (min if self.direction == "minimize" else max)(found, key=lambda name: found[name])

    def to_json(self) -> str:
        return str(TypeAdapter(Verdict).dump_json(self, indent=1).decode())

    @staticmethod
    def from_json(text: str) -> "Verdict":
        return TypeAdapter(Verdict).validate_json(text)


def recorded(folder: Path) -> Verdict | None:
    """The verdict in a comparison's folder, if there is one."""
    file = folder / VERDICT
    return Verdict.from_json(file.read_text()) if file.exists() else None
