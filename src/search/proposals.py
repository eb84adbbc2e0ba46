"""Where a trial's point comes from: any Optuna sampler, made to propose whole points, and none twice."""

import copy
import hashlib
import heapq
import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from src.records import Point
from src.search.halving import Asha
from src.search.space import Space
from src.search.targets import expected_warnings, made, resolve

ATTEMPTS = 20  # of the sampler, before an unseen point is taken at random
COUNTABLE = 100_000  # points of a finite space that are looked through for an unseen one
COSTLY = (TPESampler, GPSampler)  # what they propose costs the more, the more trials they see
MOST_SEEN = 1000
Key = tuple[tuple[str, str], ...]  # of a point
FINAL = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def derived_seed(seed: int, number: int, attempt: int = 0) -> int:
    """A 32-bit seed from (study seed, trial number, attempt): the same after any interruption."""
    digest = hashlib.sha256(f"{seed}/{number}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def build_sampler(node: Mapping[str, Any], seed: int) -> BaseSampler:
    """The sampler that a YAML names, seeded."""
    make, options = resolve(node, "sampler")
    if "seed" in inspect.signature(make).parameters:
        options["seed"] = seed
    return made(make, options, "sampler")


def key_of(point: Mapping[str, Any]) -> Key:
    """Equal for equal points; floats to 12 digits."""
    return tuple(sorted((k, f"{v:.12g}" if isinstance(v, float) else repr(v)) for k, v in point.items()))


class Taken:
    """The points of all trials, also where a pruner shows its sampler only a part of the study (Hyperband)."""

    def __init__(self) -> None:
        self._ended, self._keys = set[int](), set[Key]()  # trials that have an end: their points are spelled out once

    def of(self, study: Study) -> set[Key]:
        others = set[Key]()
        begun = (TrialState.RUNNING, *FINAL)
        for trial in study._storage.get_all_trials(study._study_id, deepcopy=False, states=begun):
            if trial.number in self._ended:
                continue
            ended = trial.state in FINAL
            if ended:
                self._ended.add(trial.number)
            if trial.params:
                (self._keys if ended else others).add(key_of(trial.params))
        return self._keys | others


class Informed:
    """A study as samplers should see it.

    Trials that pause stay RUNNING for Optuna. Where they do, one that was judged at a rung and has no end counts as
    pruned there: a sampler would learn nothing from it otherwise. With `most`, so many of the ended trials are seen:
    the best tenth of them and the latest: what a proposal costs stays bounded. Nothing is kept from one proposal to the
    next, as Optuna's own cache would.
    """

    def __init__(self, study: Study, most: int | None = None) -> None:
        self._study = study
        pauses = isinstance(study.pruner, Asha)
        trials = [self._judged(t) if pauses else t for t in study.get_trials(deepcopy=False)]
        self._trials = trials if most is None else bounded(trials, most, study.direction == StudyDirection.MAXIMIZE)

    @staticmethod
    def _judged(trial: FrozenTrial) -> FrozenTrial:
        if trial.state != TrialState.RUNNING or not trial.intermediate_values:
            return trial
        judged = copy.copy(trial)
        judged.state = TrialState.PRUNED
        return judged

    def get_trials(self, deepcopy: bool = True, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        chosen = [t for t in self._trials if states is None or t.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _get_trials(
        self, deepcopy: bool = True, states: Sequence[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del use_cache
        return self.get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def bounded(trials: list[FrozenTrial], most: int, maximize: bool) -> list[FrozenTrial]:
    """All trials that have no end yet, and of the ended ones `most`: the best tenth of these, and the latest."""
    ended = [t for t in trials if t.state in FINAL]
    if len(ended) <= most:
        return trials
    scored = [t for t in ended if t.state == TrialState.COMPLETE and t.value is not None]
    first = heapq.nlargest if maximize else heapq.nsmallest
    best = first(most // 10, scored, key=lambda t: t.value or 0.0)
    unended = [t for t in trials if t.state not in FINAL]
    chosen = {t.number: t for t in (*best, *ended[len(best) - most :], *unended)}
    return [chosen[number] for number in sorted(chosen)]


def unseen(space: Space, seen: set[Any]) -> Iterator[Point]:
    """The points of a finite space that no trial has, in order."""
    return (p for p in islice(space.points(), COUNTABLE) if key_of(p) not in seen)


def exhausted(space: Space, study: Study) -> bool:
    """Whether every point of the space has been taken."""
    return space.finite() and next(unseen(space, Taken().of(study)), None) is None


class WholePoints(BaseSampler):
    """Wraps a sampler per trial: proposes a whole point, conditional keys resolved, that no trial has yet.

    Each proposal's sampler is seeded by (study seed, trial number, attempt), so neither workers nor resumes repeat or
    lose points. Quasi-random sequences keep the study's seed: their order is their point.
    """

    def __init__(self, node: Mapping[str, Any], space: Space, seed: int) -> None:
        self.node, self.space, self.seed = node, space, seed
        self._point: Point = {}
        self._taken = Taken()

    def propose(self, study: Study, trial: FrozenTrial) -> Point:
        """A new point for `trial`; keys that are fixed keep their values: of an enqueued setting, or of a trial whose
        worker was killed between two of its keys."""
        fixed: Point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        seen = self._taken.of(study)
        if len(fixed) >= len(self.space.active(fixed)) and set(fixed) >= {p.key for p in self.space.active(fixed)}:
            return fixed
        for attempt in range(ATTEMPTS):
            point = self._sample(study, trial, fixed, attempt)
            if key_of(point) not in seen:
                return point
        rng = np.random.default_rng(derived_seed(self.seed, trial.number, ATTEMPTS))
        if self.space.finite() and (left := list(unseen(self.space, seen))):
            return left[int(rng.integers(len(left)))]
        return point

    def _sample(self, whole: Study, trial: FrozenTrial, fixed: Point, attempt: int) -> Point:
        sampler = build_sampler(self.node, derived_seed(self.seed, trial.number, attempt))
        most = MOST_SEEN if isinstance(sampler, COSTLY) else None
        study: Any = Informed(whole, most)
        if isinstance(sampler, QMCSampler):
            sampler = build_sampler(self.node, self.seed)
        if attempt > ATTEMPTS // 2:
            sampler = RandomSampler(seed=derived_seed(self.seed, trial.number, attempt))
        shadow = copy.deepcopy(trial)
        with expected_warnings():
            sampler.before_trial(study, shadow)
            joint = sampler.sample_relative(study, shadow, sampler.infer_relative_search_space(study, shadow))
            point: Point = {}
            for parameter in self.space.parameters:
                if parameter not in self.space.active(point):
                    continue
                key = parameter.key
                if key in fixed:
                    point[key] = fixed[key]
                elif key in joint and parameter.holds(joint[key]):
                    point[key] = joint[key]
                else:
                    point[key] = sampler.sample_independent(study, shadow, key, parameter.distribution)
                shadow.params = {**shadow.params, key: point[key]}
                shadow.distributions = {**shadow.distributions, key: parameter.distribution}
        return point

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._point = {k: v for k, v in self.propose(study, trial).items() if k not in trial.params}
        by_key = {p.key: p.distribution for p in self.space.parameters}
        return {key: by_key[key] for key in self._point}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The point that was proposed when its keys were asked for."""
        return {key: self._point[key] for key in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Every key comes with the whole point; this is for Optuna's interface."""
        rng = RandomSampler(seed=derived_seed(self.seed, trial.number))
        return rng.sample_independent(study, trial, param_name, param_distribution)
