"""Chooses settings of other studies that a new one tries first (study.learn_from): a few that complement each other.

A setting is ranked among the trials of its own study. Its rank in the other studies, which did not try it, is predicted
from their trials by a random forest. A greedy portfolio over these ranks is tried right after the default recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.comparison.saved_study import SavedStudy
from src.config.settings import Settings
from src.core.errors import InvalidInput
from src.core.formatting import plural
from src.core.metric import gain
from src.core.paths import Paths
from src.core.records import Params, TrialRecord
from src.search import stopping
from src.search.inheritance import LearnedTrial, Source
from src.search.portfolio import choose_portfolio
from src.search.space import Space
from src.workflows.sweep.inheritance import load_other_study

MOST_LEARNED = 4  # settings; never more than half of study.n_trials
TREES = 200  # of the forest


@dataclass(frozen=True)
class _Candidate:
    source: Source
    params: Params
    study: int  # index of its study
    rank: float  # among the trials of its study: 0 is the best, 1 the worst


def plan_learning(settings: Settings, space: Space, paths: Paths) -> tuple[LearnedTrial, ...]:
    """Choose the settings of the studies in study.learn_from that the new study tries first, in their order.

    Args:
        settings: of the new study.
        space: of the new study.
        paths: of the folder that has all of them.

    Raises:
        InvalidInput: there is no such study, it searched other keys, or none of its settings lies in the space.
    """
    names = list(dict.fromkeys(settings.study.learn_from))
    others = [load_other_study(name, "study.learn_from", settings, paths) for name in names]
    InvalidInput.raise_if_any([problem for other in others if (problem := _key_problem(other, space))])
    ranked = [_ranked_trials(other) for other in others]
    default = space.default_params()
    candidates: dict[str, _Candidate] = {}
    for index, (other, trials) in enumerate(zip(others, ranked, strict=True)):
        for trial, rank in trials:
            params, why = space.params_from(trial.params)
            if not why and params != default:
                source = other.source_of(trial)
                candidates.setdefault(repr(sorted(params.items())), _Candidate(source, params, index, rank))
    if not candidates:
        raise InvalidInput(
            f"study.learn_from is {names}, and none of their complete trials has settings inside the space of "
            f"{settings.study.name}, apart from its default recipe. Widen the space, or leave study.learn_from out."
        )
    found = list(candidates.values())
    ranks = np.array([[0.0] * len(others)] * len(found))
    for index, trials in enumerate(ranked):
        predicted = _predict_ranks(space, trials, [c.params for c in found])
        ranks[:, index] = [c.rank if c.study == index else p for c, p in zip(found, predicted, strict=True)]
    most = max(1, min(MOST_LEARNED, settings.study.n_trials // 2))
    return tuple(LearnedTrial(found[i].source, found[i].params) for i in choose_portfolio(ranks, most))


def describe(learned: Sequence[LearnedTrial]) -> str:
    """The chosen settings, in words."""
    sources = ", ".join(f"trial {t.source.trial} of {t.source.study}" for t in learned)
    return f"{plural(len(learned), 'setting')}, tried after the default recipe: {sources}"


def _key_problem(other: SavedStudy, space: Space) -> str:
    here, there = set(space.describe()), set(other.study.space.describe())
    if here == there:
        return ""
    more, missing = (", ".join(sorted(keys)) for keys in (there - here, here - there))
    texts = [f"it searched {more}, too" if more else "", f"it did not search {missing}" if missing else ""]
    return (
        f"study.learn_from has {other.name}, which searched other keys: {' and '.join(filter(None, texts))}. Studies "
        "learn from those that searched the same keys; their ranges may differ."
    )


def _ranked_trials(other: SavedStudy) -> list[tuple[TrialRecord, float]]:
    """The complete trials of a study within its constraints, each with its rank by the first metric.

    The best has 0 and the worst 1; equal ones have the mean of their ranks.
    """
    from scipy.stats import rankdata  # takes a second

    best_first = stopping.rank_trials(other.study.trials(), other.study.direction)
    if not best_first:
        raise InvalidInput(f"study.learn_from has {other.name}, which has no complete trial yet.")
    ranks = rankdata([-gain(t.score or 0.0, other.study.direction) for t in best_first]) - 1
    return [(trial, rank / max(1, len(best_first) - 1)) for trial, rank in zip(best_first, ranks, strict=True)]


def _predict_ranks(
    space: Space, trials: Sequence[tuple[TrialRecord, float]], points: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """The ranks that `points` would have among a study's trials, [n_points]."""
    from sklearn.ensemble import RandomForestRegressor  # takes a second

    forest = RandomForestRegressor(TREES, random_state=0)
    forest.fit([space.encode(trial.params) for trial, _ in trials], [rank for _, rank in trials])
    predicted: np.ndarray = forest.predict([space.encode(point) for point in points])
    return predicted
