"""Records of a comparison and its verdict, which are stored as JSON."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.core.metric import gain
from src.core.record_files import read_record
from src.core.records import nested_from_json, nested_to_json
from src.core.task import SINGLE_LABEL, Threshold

VERDICT_FILE = "verdict.json"  # the file, in a comparison's folder
SINGLE, AVERAGE, REFIT, STUDENT = "single", "average", "refit", "student"
"""Forms of a recipe.

Trained once; its fresh-seed trainings averaged; trained on train + validation and averaged; trained on their answers to
unlabelled texts, too, and averaged.
"""
BETTER, WORSE, NOT_SHOWN = "better", "worse", "not shown"


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SeedRunRecord:
    """One recipe trained once, from one fresh seed."""

    seed: int
    run_id: str | None
    validation: dict[str, float]  # metrics of the weights that were kept
    test: dict[str, float] = field(default_factory=dict)  # empty: the test split was not opened for it
    seconds: float = 0.0  # of training


@dataclass(frozen=True)
class PairwiseResult:
    """One contender, mostly the winner, compared with another one on the same test examples."""

    other: str
    metric: str
    difference: Interval  # the one minus the other
    verdict: str
    only_winner: int  # McNemar's test on the registered weights: examples that only the one's got right,
    only_other: int  # only the other's,
    p: float  # and the exact two-sided p


@dataclass(frozen=True)
class LabelScores:
    """How well one label is predicted."""

    label: str
    examples: int  # that have it
    predicted: int  # that are predicted as it; the mean over seeds, rounded
    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True)
class ContenderRecord:
    """A contender and its results: a baseline, the champion, or the default recipe or tuned settings in one form."""

    name: str
    kind: str  # baseline, default, tuned, champion
    key: str  # of its recipe, in its form
    about: str  # in words: the trial, the version
    params: dict[str, Any]  # the searched settings
    search_score: float | None
    validation: float | None  # study.metric, the mean over fresh seeds; of a baseline, its own
    spread: float | None  # standard deviation over the seeds
    optimism: float | None  # how much better the search's score is than the mean over fresh seeds
    registered_seed: int | None  # of the seed run with the median validation score; of an average, None
    repeats: tuple[SeedRunRecord, ...]
    test: dict[str, Interval]  # empty: the test split was not opened for it
    megabytes: float | None = None
    ms_per_1000_texts: float | None = None
    problem: str | None = None  # why it could not be evaluated
    form: str = SINGLE
    recipe: str = ""  # the name of the contender that is this recipe trained once
    run_id: str | None = None  # of its own run
    sha256: str | None = None  # of an average's weights
    over_default: PairwiseResult | None = None  # this one against the default recipe trained once
    threshold: Threshold | None = None  # if it was chosen on validation: of label 1 of two, or of several labels

    @property
    def registered_test(self) -> dict[str, float]:
        """The test metrics of the weights to register: the median seed run's, or the average's."""
        if self.form != SINGLE:
            return {metric: interval.value for metric, interval in self.test.items()}
        return next(r for r in self.repeats if r.seed == self.registered_seed).test

    @property
    def registered_run_id(self) -> str | None:
        """The run of the weights to register."""
        if self.form != SINGLE:
            return self.run_id
        return next(r for r in self.repeats if r.seed == self.registered_seed).run_id


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison."""

    number: int  # counts a study's verdicts, from 1
    study: str
    uid: str
    key: str  # hash of the contenders, without the champion, and of the seeds
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
    winner: str  # in the form that is registered
    best_baseline: str
    against: tuple[PairwiseResult, ...]
    opening: int  # number of this opening of the test split, from 1
    openings: int  # how often the test split had been opened when the verdict was written
    champion: str | None  # the version that was the champion
    champion_key: str  # identifies its model, since version numbers can be reused
    notes: tuple[str, ...] = ()
    not_judged: tuple[tuple[str, str], ...] = ()  # baselines of the study without a result, and why
    limits: tuple[str, ...] = ()  # what the test split cannot show, in words
    form_reason: str = ""  # why the winner is registered in this form; empty: an earlier version's, which knew no forms
    task: str = SINGLE_LABEL  # see core.task
    pick: str = ""  # how the winner was picked from the trials, as typed; empty: it is the best of the candidates
    merge: bool = True  # whether an adapter is registered merged into its base, as a plain model

    def contender(self, name: str) -> ContenderRecord:
        """The record of the contender `name`."""
        return next(c for c in self.contenders if c.name == name)

    def result_against(self, name: str) -> PairwiseResult | None:
        """The winner against the contender `name`; None if they were not compared."""
        return next((a for a in self.against if a.other == name), None)

    def recipe_of(self, name: str) -> ContenderRecord:
        """The record of the recipe of the contender `name`, trained once."""
        return self.contender(self.contender(name).recipe or name)

    @property
    def search_top(self) -> str:
        """The contender with the best score in the search."""
        scores = {c.name: c.search_score for c in self.contenders if c.search_score is not None}
        return max(scores, key=lambda name: gain(scores[name], self.direction))

    def to_json(self) -> str:
        """The record as JSON."""
        return nested_to_json(self)

    @staticmethod
    def from_json(text: str) -> "Verdict":
        """The record that `text`, its JSON, describes. Raises NewerRecord if a newer version wrote it."""
        return nested_from_json(Verdict, text, {"number": 1, "champion_key": ""})


def load_verdict(folder: Path) -> Verdict | None:
    """The verdict in a comparison's folder, if there is one."""
    return read_record(folder / VERDICT_FILE, Verdict.from_json)
