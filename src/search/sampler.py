"""Proposes the parameters of a trial with any Optuna sampler: all of them at once, and none twice."""

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
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from src.core.metric import gain
from src.core.records import Params
from src.search.asha import Asha
from src.search.instantiate import call_target, expected_warnings, resolve_target
from src.search.space import Space

ATTEMPTS = 20  # proposals of the sampler before an unseen point is taken at random
MAX_POINTS = 100_000  # points of a finite space that are searched for an unseen one
COSTLY_SAMPLERS = (TPESampler, GPSampler)  # samplers whose proposals take longer the more trials there are
MAX_TRIALS_SEEN = 1000
SCREENED_KEY = "model"  # the searched key whose choices a screening reduces
SCREENED_ATTR = "screened"  # attribute of a study: the choices that the screening has kept
Key = tuple[tuple[str, str], ...]  # of a point
FINAL_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def derived_seed(seed: int, number: int | str, attempt: int = 0) -> int:
    """A 32-bit seed from study seed, trial number (or a study's name) and attempt: the same after any interruption."""
    digest = hashlib.sha256(f"{seed}/{number}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def build_sampler(node: Mapping[str, Any], seed: int) -> BaseSampler:
    """The sampler that a config names, with `seed` if it takes one."""
    make, options = resolve_target(node, "sampler")
    if "seed" in inspect.signature(make).parameters:
        options["seed"] = seed
    return call_target(make, options, "sampler")


def point_key(params: Mapping[str, Any]) -> Key:
    """A hashable key, equal for equal parameters; floats are compared in 12 digits."""
    return tuple(sorted((k, f"{v:.12g}" if isinstance(v, float) else repr(v)) for k, v in params.items()))


class SeenPoints:
    """The parameters of all trials of a study, as keys."""

    def __init__(self) -> None:
        self._ended, self._keys = set[int](), set[Key]()  # ended trials, whose keys do not change

    def keys_of(self, study: Study) -> set[Key]:
        """The keys of all trials of the study that have params."""
        others = set[Key]()
        begun = (TrialState.RUNNING, *FINAL_STATES)
        for trial in study.get_trials(deepcopy=False, states=begun):
            if trial.number in self._ended:
                continue
            ended = trial.state in FINAL_STATES
            if ended:
                self._ended.add(trial.number)
            if trial.params:
                (self._keys if ended else others).add(point_key(trial.params))
        return self._keys | others


class StudyView:
    """The study as a sampler sees it.

    A paused trial is RUNNING for Optuna, and samplers learn nothing from running trials. So a trial that was judged at
    a rung and has not ended is shown as pruned there. With several objectives, pruned trials are not shown. With
    `most`, a costly sampler is shown only so many ended trials: the best tenth, and the latest.
    """

    def __init__(self, study: Study, most: int | None = None) -> None:
        self._study = study
        pauses = isinstance(study.pruner, Asha)
        trials = [self._as_pruned(t) if pauses else t for t in study.get_trials(deepcopy=False)]
        if len(study.directions) > 1:  # Optuna's samplers cannot rank a trial without all values
            trials = [t for t in trials if t.state != TrialState.PRUNED]
        direction = study.directions[0].name.lower()
        self._trials = trials if most is None else best_and_latest(trials, most, direction)

    @staticmethod
    def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
        if trial.state != TrialState.RUNNING or not trial.intermediate_values:
            return trial
        judged = copy.copy(trial)
        judged.state = TrialState.PRUNED
        return judged

    def get_trials(self, deepcopy: bool = True, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """As Study.get_trials of Optuna."""
        chosen = [t for t in self._trials if states is None or t.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _get_trials(
        self, deepcopy: bool = True, states: Sequence[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del use_cache
        return self.get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        """As Study.trials of Optuna."""
        return self.get_trials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _FirstObjective:
    """A study as if its first objective were the only one."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.direction, self.directions = study.directions[0], study.directions[:1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def pruners_view(study: Study) -> Any:
    """The study as a pruner sees it: trials are judged at rungs by the first objective, whose values are reported."""
    return study if len(study.directions) == 1 else _FirstObjective(study)


def best_and_latest(trials: list[FrozenTrial], most: int, direction: str) -> list[FrozenTrial]:
    """All trials without an end, and `most` of the ended ones: the best tenth of these, then the latest."""
    ended = [t for t in trials if t.state in FINAL_STATES]
    if len(ended) <= most:
        return trials
    scored = [t for t in ended if t.state == TrialState.COMPLETE and t.values]
    best = heapq.nlargest(most // 10, scored, key=lambda t: gain(t.values[0], direction))
    unended = [t for t in trials if t.state not in FINAL_STATES]
    chosen = {t.number: t for t in (*best, *ended[len(best) - most :], *unended)}
    return [chosen[number] for number in sorted(chosen)]


def kept_models(study: Study) -> list[str] | None:
    """The models that a screening has kept; None if there was none."""
    kept: list[str] | None = study.user_attrs.get(SCREENED_ATTR)
    return kept


def unseen_points(space: Space, seen: set[Any], kept: Sequence[str] | None = None) -> Iterator[Params]:
    """The points of a finite space that no trial has, in order. `kept`: models that may be proposed; None: all."""
    points = (p for p in islice(space.points(), MAX_POINTS) if point_key(p) not in seen)
    return (p for p in points if kept is None or p.get(SCREENED_KEY) in kept)


def is_exhausted(space: Space, study: Study) -> bool:
    """Whether every point of a finite space that may be proposed has been tried."""
    if not space.is_finite():
        return False
    return next(unseen_points(space, SeenPoints().keys_of(study), kept_models(study)), None) is None


class UniquePointSampler(BaseSampler):
    """Wraps a sampler so that it proposes all active parameters of a trial at once, and none twice.

    Each proposal's sampler is seeded by (study seed, trial number, attempt), so that neither several workers nor
    resumes repeat points. Quasi-random sequences keep the study's seed, since their order matters.
    """

    def __init__(self, node: Mapping[str, Any], space: Space, seed: int, study: Study) -> None:
        self.node, self.space, self.seed = node, space, seed
        self._study = study  # all of it; a pruner such as Hyperband hands a part of it to the methods below
        self._point: Params = {}
        self._seen = SeenPoints()

    def propose(self, study: Study, trial: FrozenTrial) -> Params:
        """New parameters for `trial`.

        Those that are fixed keep their values: of an enqueued trial, or of one that was started before.
        """
        fixed: Params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        seen, kept = self._seen.keys_of(self._study), kept_models(self._study)
        if len(fixed) >= len(self.space.active_parameters(fixed)) and set(fixed) >= {
            p.key for p in self.space.active_parameters(fixed)
        }:
            return fixed
        for attempt in range(ATTEMPTS):
            params = self._sample(study, trial, fixed, attempt, kept)
            if point_key(params) not in seen:
                return params
        rng = np.random.default_rng(derived_seed(self.seed, trial.number, ATTEMPTS))
        if self.space.is_finite() and (left := list(unseen_points(self.space, seen, kept))):
            return left[int(rng.integers(len(left)))]
        return params

    def _sample(
        self, full_study: Study, trial: FrozenTrial, fixed: Params, attempt: int, kept: Sequence[str] | None
    ) -> Params:
        sampler = build_sampler(self.node, derived_seed(self.seed, trial.number, attempt))
        most = MAX_TRIALS_SEEN if isinstance(sampler, COSTLY_SAMPLERS) else None
        study: Any = StudyView(full_study, most)
        if isinstance(sampler, QMCSampler):
            sampler = build_sampler(self.node, self.seed)
        if attempt > ATTEMPTS // 2:
            sampler = RandomSampler(seed=derived_seed(self.seed, trial.number, attempt))
        shadow = copy.deepcopy(trial)
        with expected_warnings():
            sampler.before_trial(study, shadow)
            joint = sampler.sample_relative(study, shadow, sampler.infer_relative_search_space(study, shadow))
            params: Params = {}
            for parameter in self.space.parameters:
                if parameter not in self.space.active_parameters(params):
                    continue
                key = parameter.key
                if key in fixed:
                    params[key] = fixed[key]
                elif key in joint and parameter.contains(joint[key]):
                    params[key] = joint[key]
                else:
                    params[key] = sampler.sample_independent(study, shadow, key, parameter.distribution)
                if key == SCREENED_KEY and kept and key not in fixed and params[key] not in kept:
                    rng = np.random.default_rng(derived_seed(self.seed, trial.number, attempt))
                    params[key] = kept[int(rng.integers(len(kept)))]
                shadow.params = {**shadow.params, key: params[key]}
                shadow.distributions = {**shadow.distributions, key: parameter.distribution}
        return params

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Propose the params of `trial`, and name those that it does not have yet."""
        self._point = {k: v for k, v in self.propose(study, trial).items() if k not in trial.params}
        by_key = {p.key: p.distribution for p in self.space.parameters}
        return {key: by_key[key] for key in self._point}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The parameters that infer_relative_search_space has proposed."""
        return {key: self._point[key] for key in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Required by Optuna; all parameters come from sample_relative."""
        rng = RandomSampler(seed=derived_seed(self.seed, trial.number))
        return rng.sample_independent(study, trial, param_name, param_distribution)
