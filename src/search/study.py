"""A study and its trials, shared by all processes that search."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from src.config.settings import LIMITS, Settings, StorageSettings, StudySettings
from src.core import own_code
from src.core.errors import InvalidInput, mask_secrets
from src.core.metric import direction_of
from src.core.paths import atomic_write
from src.core.record_files import SCHEMA, SCHEMA_KEY, check_schema, read_json, read_record, write_json
from src.core.records import DEFAULT_RECIPE, ENQUEUED, LEARNED, Params, TrainingResult, TrialRecord
from src.search import inheritance, stopping
from src.search.asha import Asha
from src.search.inheritance import LEARNED_ATTR, InheritedTrial, LearnedTrial, Source
from src.search.instantiate import instantiate
from src.search.sampler import FINAL_STATES, UniquePointSampler, derived_seed, is_exhausted
from src.search.space import Space
from src.search.storages.connect import load_optuna_study, open_leases, open_storage
from src.search.storages.database import has_database
from src.search.trial_records import EndedTrials, to_record

# the definition has the fingerprint of the weights instead
LOCATION_KEYS = ("model.checkpoint", "model.name")
CLOCK_DIFFERENCE_SECONDS = 60.0  # between two machines; a larger one means that a clock was set
LABELS_KEY = "data.label_names"  # in a study's definition
CODE_PREFIX = "code."  # there, before the path of each file of the user's own code; its sha256
LIMITS_ATTR = "limits"  # attribute of a study: the limits that the newest command has set
BEGUN_ATTR = "begun_with"  # attribute of a study: study.inherit and study.learn_from as they were when it began
UID_FILE = "uid"  # in a study's folder, for studies that have inherited its trials


class Study:
    """A study, as each of its processes sees it.

    Trials are in an Optuna storage; checkpoints, runs and baselines in `folder`. Leases say which process runs which
    trial (see storages/leases).
    """

    def __init__(self, settings: Settings, space: Space, direction: str, folder: Path) -> None:
        self.settings, self.space, self.direction, self.folder = settings, space, direction, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.leases = open_leases(settings.storage, settings.study.name, folder)
        self.storage: BaseStorage = open_storage(settings.storage, folder)
        self._optuna_study: optuna.Study | None = None
        self._ended = EndedTrials(settings.study)
        self.weights_deleted: set[int] = set()  # ended trials whose weights are known to be deleted

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The study's lock, over all its processes: trials are claimed, judged and ended while it is held."""
        return self.leases.lock

    @property
    def name(self) -> str:
        """The study's name."""
        return self.settings.study.name

    @property
    def study_settings(self) -> StudySettings:
        """The group study of the settings."""
        return self.settings.study

    @property
    def directions(self) -> list[str]:
        """The direction of each objective."""
        return [self.direction, *(direction_of(name) for name in self.study_settings.further_metrics)]

    def limits(self) -> StudySettings:
        """The group study with the limits of the newest command: they count for every process that searches."""
        return replace(self.settings.study, **self.optuna_study.user_attrs.get(LIMITS_ATTR, {}))

    @property
    def optuna_study(self) -> optuna.Study:
        """The Optuna study, with its sampler and pruner.

        Raises:
            LookupError: it was not created yet.
            NewerRecord: a newer version created it.
        """
        if self._optuna_study is None:
            study = load_optuna_study(self.name, self.storage)
            if study is None:
                raise LookupError(f"there is no study {self.name}")
            check_schema(study.user_attrs.get(SCHEMA_KEY, 1), f"The study {self.name}")
            seed = self.study_settings.seed
            if any(study.user_attrs.get(BEGUN_ATTR, {}).values()):  # else it would repeat the draws of those studies
                seed = derived_seed(seed, self.name)
            study.sampler = UniquePointSampler(self.settings.sampler, self.space, seed, study)
            study.pruner = instantiate(self.settings.pruner, "pruner")
            study.get_trials(deepcopy=False)  # fills Optuna's cache of finished trials before the lock is taken
            self.leases.is_held(self.lease_name(0))  # opens the connection for leases before the lock is taken
            self._optuna_study = study
        return self._optuna_study

    # --- the study ---

    def check_definition(
        self, definition: Mapping[str, Any], advise: Callable[[Mapping[str, Any]], tuple[str, str]] = lambda _: ("", "")
    ) -> bool:
        """Whether the study exists. Raises InvalidInput if it exists with another definition.

        Args:
            definition: of today's config.
            advise: given the definition that the study has, two texts about how to go on: one for the middle of the
                message, which ends with a blank, and one for its end.
        """
        if not self.exists():
            return False
        before = self.definition(definition)
        changed = [
            f"{key} was {_brief(before.get(key))} and is {_brief(definition.get(key))}"
            for key in sorted({*before, *definition})
            if before.get(key) != definition.get(key)
        ]
        if changed:
            first, last = advise(before)
            raise InvalidInput(
                f"The study {self.name} exists with another definition: {'; '.join(changed)}. Its trials would not "
                f"compare. {first}Either undo the change and continue it, or start another one: "
                f"study.name={self.name}-2.{last}"
            )
        return True

    def definition(self, now: Mapping[str, Any]) -> dict[str, Any]:
        """The definition that the study has. What an earlier version did not store, the labels, is as in `now`."""
        return {LABELS_KEY: now.get(LABELS_KEY), **self.optuna_study.user_attrs["definition"]}

    def check_beginning(self) -> None:
        """Raise InvalidInput if study.inherit or study.learn_from is another one than when the study began."""
        begun = self.optuna_study.user_attrs.get(BEGUN_ATTR, {})
        for key, verb in (("inherit", "took over"), ("learn_from", "learned from")):
            asked, before = getattr(self.study_settings, key), begun.get(key)
            if asked and asked != before:
                raise InvalidInput(
                    f"study.{key} is {asked}, and the study {self.name}, which exists already, {verb} "
                    f"{before or 'nothing'} when it began. It has no effect afterwards. Leave study.{key} out, or "
                    f"begin another study: study.name={self.name}-2."
                )

    def exists(self) -> bool:
        """Whether the study was created completely."""
        study = load_optuna_study(self.name, self.storage)
        return study is not None and "definition" in study.user_attrs

    def create(
        self,
        definition: Mapping[str, Any],
        inherited: Sequence[InheritedTrial] = (),
        learned: Sequence[LearnedTrial] = (),
    ) -> None:
        """Create the study if it does not exist, enqueue its first trials, and set its limits. Safe to repeat.

        Enqueued are the default recipe, what was learned, and study.enqueue.

        Args:
            definition: of today's config.
            inherited: trials of another study that a new study takes over.
            learned: settings of other studies that a new study tries first.
        """
        with self.lock:
            if not self.check_definition(definition):
                self._create(definition, inherited, learned)
            uid = str(self.optuna_study.user_attrs["uid"])
            if read_record(self.folder / UID_FILE, str) != uid:
                atomic_write(self.folder / UID_FILE, uid)
            known = self.optuna_study.get_trials(deepcopy=False)
            have = [t.system_attrs.get("fixed_params", t.params) for t in known]
            first = self.space.default_params()
            has_default = any(t.user_attrs.get("origin") == DEFAULT_RECIPE for t in known)
            starts: list[tuple[Params, dict[str, Any]]] = []
            if not has_default and not self.space.problems_with(first):
                starts.append((first, {"origin": DEFAULT_RECIPE}))
            starts += [(t.params, {"origin": LEARNED, LEARNED_ATTR: asdict(t.source)}) for t in self.learned()]
            starts += [(dict(params), {"origin": ENQUEUED}) for params in self.study_settings.enqueue]
            room = max(0, self.study_settings.n_trials - len(inheritance.own_trials(known)))
            for params, attributes in [s for s in starts if s[0] not in have][:room]:
                self.optuna_study.enqueue_trial(params, user_attrs=attributes)
            limits = {name: getattr(self.study_settings, name) for name in LIMITS}
            if self.optuna_study.user_attrs.get(LIMITS_ATTR) != limits:
                self.optuna_study.set_user_attr(LIMITS_ATTR, limits)

    def learned(self) -> list[LearnedTrial]:
        """The settings of other studies that this one tries first, as chosen when it began."""
        stored = self.optuna_study.user_attrs.get(LEARNED_ATTR, [])
        return [LearnedTrial(Source(**one["source"]), one["params"]) for one in stored]

    def _create(
        self, definition: Mapping[str, Any], inherited: Sequence[InheritedTrial], learned: Sequence[LearnedTrial]
    ) -> None:
        """Create the study with its inherited trials. It exists once its definition is there, which comes last."""
        if load_optuna_study(self.name, self.storage) is not None:  # a command that was killed has begun to create it
            optuna.delete_study(study_name=self.name, storage=self.storage)
        study = optuna.create_study(study_name=self.name, storage=self.storage, directions=self.directions)
        study.set_user_attr("uid", uuid.uuid4().hex)
        study.set_user_attr(SCHEMA_KEY, SCHEMA)
        for place, uid in {(self.folder.parent / i.source.study, i.source.uid) for i in inherited}:
            if place.is_dir() and not (place / UID_FILE).exists():  # of an earlier version
                atomic_write(place / UID_FILE, uid)
        for number, trial in enumerate(inherited):
            atomic_write(self.inherited_config_path(number), trial.config)
            study.add_trial(inheritance.to_frozen_trial(trial, self.space, self.study_settings.constraints))
        settings = self.study_settings
        study.set_user_attr(BEGUN_ATTR, {"inherit": settings.inherit, "learn_from": settings.learn_from})
        if learned:
            study.set_user_attr(LEARNED_ATTR, [asdict(trial) for trial in learned])
        study.set_user_attr("definition", dict(definition))

    def trials(self) -> list[TrialRecord]:
        """All trials that have started, by number."""
        return [self._trial_record(t) for t in self.trials_in_state(TrialState.RUNNING, *FINAL_STATES)]

    def ended_trials(self) -> list[TrialRecord]:
        """Trials with a final state, in the order in which they ended."""
        ended = self._ended
        trials = self.trials_in_state(*FINAL_STATES)
        if len(trials) != len(ended.records):
            for trial in trials:
                ended.record_of(trial)
        return [ended.records[number] for _, number in ended.order]

    def own_ended_trials(self) -> list[TrialRecord]:
        """The ended trials that the study has trained itself: without inherited ones."""
        return stopping.own_trials(self.ended_trials())

    def _trial_record(self, trial: FrozenTrial) -> TrialRecord:
        return self._ended.record_of(trial) if trial.state in FINAL_STATES else to_record(trial, self.study_settings)

    def baseline_results(self) -> dict[str, TrainingResult]:
        """The results of the baselines that have been evaluated, in the study's order."""
        files = {name: self.folder / "baselines" / name / "outcome.json" for name in self.study_settings.baselines}
        results = {name: read_record(file, TrainingResult.from_json) for name, file in files.items()}
        return {name: result for name, result in results.items() if result is not None}

    def best_trial(self) -> TrialRecord | None:
        """The COMPLETE trial within the constraints with the best score, or None.

        With several objectives the score is the first; of equal scores the others decide, so the trial is on the front.
        """
        return stopping.best_trial(self.trials(), self.direction)

    def front(self) -> list[TrialRecord]:
        """The trials for which no other one is as good in all objectives and better in one, best score first.

        With one objective, these are the best trials.
        """
        numbers = {t.number for t in self.optuna_study.best_trials}
        return [t for t in stopping.rank_trials(self.trials(), self.direction) if t.number in numbers]

    def stop_reason(self) -> str | None:
        """Why no further trial starts or continues, or None."""
        limits = self.limits()
        spent = 0.0 if limits.budget_minutes is None else self.seconds_spent()
        ended = self.ended_trials()
        epochs = stopping.epochs_spent(ended, self.settings.recipe)
        return stopping.stop_reason(ended, limits, self.direction, spent, epochs)

    def end_reason(self) -> str | None:
        """Why the study has ended, or None."""
        if reason := self.stop_reason():
            return reason
        if is_exhausted(self.space, self.optuna_study) and not self.unfinished_trials():
            return f"all {sum(1 for _ in self.space.points())} points of the space have been tried"
        return None

    def trials_in_progress(self) -> list[int]:
        """Numbers of the trials that a living process works on."""
        unfinished = self.unfinished_trials()
        held = self.leased(unfinished)
        return [number for number in unfinished if number in held]

    def unfinished_trials(self) -> list[int]:
        """Numbers of the trials that have started and not ended: running, paused, or left by a process that died."""
        return [t.number for t in self.trials_in_state(TrialState.RUNNING)]

    @property
    def pauses_trials(self) -> bool:
        """Whether trials pause at rungs and may continue later (pruner=asha)."""
        return isinstance(self.optuna_study.pruner, Asha)

    @property
    def rungs(self) -> list[int]:
        """Where trials are judged, in percent of their schedules."""
        return [round(share * 100) for share in self.study_settings.rungs]

    def expected_progress(self, rung: int) -> float:
        """How much of its expected training a trial has done that is paused at `rung`, from 0 to 1.

        `rung`: in percent of its schedule.
        """
        pruner = self.optuna_study.pruner
        return rung / 100 / (pruner.expected_fraction(rung, self.rungs) if isinstance(pruner, Asha) else 1.0)

    # --- time ---

    def seconds_spent(self) -> float:
        """Wall-clock seconds of searching, over all launches."""
        return self._clock()["seconds"]

    def add_time(self, elapsed: float, until: float) -> None:
        """Add a period of searching. Periods of two launches that overlap count once.

        Args:
            elapsed: seconds that the period took, by a monotonic clock.
            until: when it ended, in seconds since the epoch. A clock that was set back or forward in between changes
                no sum: it only says how much of the period another launch has counted.
        """
        with self.lock:
            clock = self._clock()
            other = clock["until"] if clock["until"] <= until + CLOCK_DIFFERENCE_SECONDS else 0.0  # the clock was set
            counted = min(max(0.0, other - (until - elapsed)), elapsed)
            new = {"seconds": clock["seconds"] + elapsed - counted, "until": max(until, other)}
            if self.leases.needs_shared_folder:
                write_json(self.folder / "spent.json", new)
            else:
                self.optuna_study.set_user_attr("spent", new)

    def _clock(self) -> dict[str, float]:
        nothing = {"seconds": 0.0, "until": 0.0}
        if not self.leases.needs_shared_folder:
            return dict(self.optuna_study.user_attrs.get("spent", nothing))
        file = self.folder / "spent.json"
        clock: dict[str, float] = read_json(file, {})
        if {"seconds", "until"} <= clock.keys():
            return clock
        return {**nothing, "seconds": self._seconds_of_trials()} if file.exists() else nothing

    def _seconds_of_trials(self) -> float:
        """How long trials ran, by the storage: periods in which several ran count once."""
        own = inheritance.own_trials(self.trials_in_state(*FINAL_STATES))
        ended = [t for t in own if t.datetime_start and t.datetime_complete]
        seconds, until = 0.0, datetime.min
        for trial in sorted(ended, key=lambda t: t.datetime_start or datetime.min):
            assert trial.datetime_start is not None
            assert trial.datetime_complete is not None
            start = max(trial.datetime_start, until)
            seconds += max(0.0, (trial.datetime_complete - start).total_seconds())
            until = max(until, trial.datetime_complete)
        return seconds

    # --- for trial_lifecycle ---

    def trials_in_state(self, *states: TrialState) -> list[FrozenTrial]:
        """Optuna's trials in these states."""
        return self.optuna_study.get_trials(deepcopy=False, states=states)

    def trial_id(self, number: int) -> int:
        """The id by which the storage knows trial `number`."""
        study_id = self.storage.get_study_id_from_name(self.name)
        return self.storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def frozen_trial(self, number: int) -> FrozenTrial:
        """Trial `number` as the storage has it now."""
        return self.storage.get_trial(self.trial_id(number))

    @cached_property
    def sources(self) -> dict[int, Source]:
        """Where inherited trials were trained, by their numbers here. They do not change once the study exists."""
        every = ((t.number, inheritance.source_of(t)) for t in self.optuna_study.get_trials(deepcopy=False))
        return {number: source for number, source in every if source is not None}

    def trial_folder(self, number: int) -> Path:
        """The folder of trial `number`. Of an inherited one it is in the folder of the study that trained it.

        If that study is not there any more, it is an empty folder of this one.
        """
        source = self.sources.get(number)
        if source is not None and self.has_folder_of(source):
            return self.folder.parent / source.study / "trials" / f"{source.trial:04d}"
        return self.folder / "trials" / f"{number:04d}"

    def inherited_config_path(self, number: int) -> Path:
        """The config of an inherited trial, which stays here if the folder of its own study is deleted."""
        return self.folder / "inherited" / f"{number:04d}.yaml"

    def has_folder_of(self, source: Source) -> bool:
        """Whether the folder of the study that trained an inherited trial is there, and is that of the same study."""
        return read_record(self.folder.parent / source.study / UID_FILE, str) == source.uid

    def training_folder(self, number: int) -> Path:
        """Checkpoints and best weights of trial `number`."""
        return self.trial_folder(number) / "training"

    def lease_name(self, number: int) -> str:
        """The name of the lease that a process holds while it works on trial `number`."""
        return f"trials/{number:04d}"

    def acquire(self, frozen: FrozenTrial) -> None:
        """Take the lease of a trial that no living process works on. Call with the lock held."""
        self.leases.acquire(self.lease_name(frozen.number))

    def release(self, frozen: FrozenTrial) -> None:
        """Give the lease of a trial back."""
        self.leases.release(self.lease_name(frozen.number))

    def leased(self, numbers: Sequence[int]) -> set[int]:
        """Those of `numbers` whose trials a living process works on."""
        names = self.leases.held_names([self.lease_name(number) for number in numbers])
        return {number for number in numbers if self.lease_name(number) in names}


def study_attributes(storage: StorageSettings, name: str) -> dict[str, Any]:
    """The user attributes of a study in a database. Raises LookupError if there is no such study."""
    study = load_optuna_study(name, open_storage(storage, Path()))
    if study is None:
        raise LookupError(f"there is no study {name}")
    return dict(study.user_attrs)


def refuse_foreign_study(storage: StorageSettings, name: str, folder: Path) -> None:
    """Raise InvalidInput if the storage has a study of this name that another program made."""
    if storage.url is None or not has_database(storage.url):
        return
    study = load_optuna_study(name, open_storage(storage, folder))
    if study is None or "uid" in study.user_attrs:  # what Trialbook stores first
        return
    if study.get_trials(deepcopy=False) or study.user_attrs:
        raise InvalidInput(
            f"The storage at {mask_secrets(storage.url)} has a study {name} that Trialbook did not make; it is left as "
            "it is. Choose another name: study.name=<another>."
        )


def data_fingerprint(settings: Settings, folder: Path) -> str | None:
    """The fingerprint of the data of the study in `folder`; None if it was not created yet."""
    if not folder.is_dir():
        return None
    study = load_optuna_study(settings.study.name, open_storage(settings.storage, folder))
    return None if study is None else study.user_attrs.get("definition", {}).get("data")


def study_definition(
    settings: Settings, space: Space, fingerprint: str, label_names: Sequence[str], weights: str
) -> dict[str, Any]:
    """The settings that must not change while a study exists, as plain data.

    Args:
        settings: of the study.
        space: that is searched.
        fingerprint: of the data.
        label_names: of the data, by label index.
        weights: fingerprint of the recipe's pretrained model.
    """
    searched = {p.key for p in space.parameters}
    recipe = {k: v for k, v in settings.recipe.identity().items() if k not in searched and k not in LOCATION_KEYS}
    return {
        "space": space.describe(),
        "metric": list(settings.study.objectives) if settings.study.has_several_objectives else settings.study.metric,
        **(
            {"constraints": constraints}
            if (constraints := {name: bounds.given for name, bounds in settings.study.constraints.items()})
            else {}
        ),
        "rungs": list(settings.study.rungs),
        "rung_examples": settings.study.rung_examples,
        "data": fingerprint,
        LABELS_KEY: list(label_names),
        "weights": weights,
        **{key: value for key, value in recipe.items() if value is not None},
        **({"screening": asdict(settings.screening)} if settings.screening.keep is not None else {}),
        **({f"{CODE_PREFIX}{path}": sha256 for path, sha256 in own_code.hashes().items()} if settings.code else {}),
    }


def _brief(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 300 else text[:297] + "..."
