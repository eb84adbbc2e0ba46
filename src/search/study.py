"""A study and its trials: created once, continued by the same command, exact in number."""

import json
import uuid
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from src.errors import Refusal
from src.paths import write_whole
from src.records import Outcome, State, TrialRecord
from src.search import stopping
from src.search.database import Steady, together
from src.search.halving import Asha
from src.search.proposals import FINAL, WholePoints, exhausted
from src.search.space import Space
from src.search.storage import leases_of, load, open_storage
from src.search.targets import build
from src.settings import Settings, StorageSettings, StudySettings

PLACES = ("model.checkpoint", "model.name")  # not part of a definition: the weights' hash is
DEFAULT_RECIPE = "default recipe"  # where trial 0 comes from
LABELS = "data.label_names"  # in a study's definition


class Book:
    """One study as all its processes see it: claims, reports and results, over a shared storage and folder."""

    def __init__(self, settings: Settings, space: Space, direction: str, folder: Path) -> None:
        self.settings, self.space, self.direction, self.folder = settings, space, direction, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.leases = leases_of(settings.storage, settings.study.name, folder)
        self.storage: BaseStorage = open_storage(settings.storage, folder)
        self._study: optuna.Study | None = None
        self._ended = _Ended()
        self._entered, self._afterwards = 0, list[Callable[[], object]]()  # by the thread that has the lock
        self.cleared: set[int] = set()  # ended trials whose weights were seen to be gone

    @property
    def lock(self) -> AbstractContextManager[None]:
        """The study's; who has it sees the trials as they are. A database stores all that is done with it at once."""
        return self._locked()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.leases.lock:
            self._entered += 1
            try:
                with together(self.storage):
                    yield
            except BaseException:
                self._afterwards.clear()
                self._ended = _Ended()  # a database may have undone some of it
                raise
            finally:
                self._entered -= 1
            while self._afterwards and not self._entered:
                self._afterwards.pop(0)()

    def afterwards(self, act: Callable[[], object]) -> None:
        """Do it when what this process does with the study's lock is stored: what is deleted then is not missed."""
        self._afterwards.append(act)

    @property
    def name(self) -> str:
        return self.settings.study.name

    @property
    def rules(self) -> StudySettings:
        return self.settings.study

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, with this project's sampler and pruner around it."""
        if self._study is None:
            found = load(self.name, self.storage)
            if found is None:
                raise LookupError(f"there is no study {self.name}")
            found.sampler = WholePoints(self.settings.sampler, self.space, self.rules.seed)
            found.pruner = build(self.settings.pruner, "pruner")
            found.get_trials(deepcopy=False)  # what a database has of them that have an end is read once
            self.leases.alive(self.lease(0))  # and the session that has leases is there, before anybody waits for it
            self._study = found
        return self._study

    # --- the study ---

    def existing(self, definition: Mapping[str, Any]) -> bool:
        """Whether the study exists; raises Refusal if it was defined otherwise."""
        if not self.created():
            return False
        before = {LABELS: definition.get(LABELS), **self.study.user_attrs["definition"]}  # of old, without its labels
        changed = [
            f"{key} was {_brief(before.get(key))} and is {_brief(definition.get(key))}"
            for key in sorted({*before, *definition})
            if before.get(key) != definition.get(key)
        ]
        if changed:
            raise Refusal(
                f"The study {self.name} exists, defined otherwise: {'; '.join(changed)}. Trials of both would not "
                f"compare. Either undo the change and continue it, or start another one: study.name={self.name}-2."
            )
        return True

    def created(self) -> bool:
        """Whether there is a study yet, wholly made."""
        found = load(self.name, self.storage)
        return found is not None and "definition" in found.user_attrs

    def create(self, definition: Mapping[str, Any]) -> None:
        """Create the study if need be, and its first trials: the default recipe, then enqueued settings."""
        with self.lock:
            if not self.existing(definition):
                made = load(self.name, self.storage) or optuna.create_study(
                    study_name=self.name, storage=self.storage, direction=self.direction
                )
                made.set_user_attr("uid", uuid.uuid4().hex)
                made.set_user_attr("definition", dict(definition))
            known = self.study.get_trials(deepcopy=False)
            have = [t.system_attrs.get("fixed_params") for t in known]
            first = self.space.default()
            told = any(t.user_attrs.get("origin") == DEFAULT_RECIPE for t in known)
            starts = [] if told or self.space.outside(first) else [(first, DEFAULT_RECIPE)]
            starts += [(dict(point), "enqueued") for point in self.rules.enqueue]
            room = max(0, self.rules.n_trials - len(known))
            for point, origin in [s for s in starts if s[0] not in have][:room]:
                self.study.enqueue_trial(point, user_attrs={"origin": origin})

    def trials(self) -> list[TrialRecord]:
        """All trials that were begun, by number."""
        return [self._known(t) for t in self.of_state(TrialState.RUNNING, *FINAL)]

    def ended(self) -> list[TrialRecord]:
        """Trials with a final state, in the order they ended."""
        ended = self._ended
        found = self.of_state(*FINAL)
        if len(found) != len(ended.records):
            for trial in found:
                ended.known(trial)
        return [ended.records[number] for _, number in ended.order]

    def _known(self, trial: FrozenTrial) -> TrialRecord:
        return self._ended.known(trial) if trial.state in FINAL else _record(trial)

    def baselines(self) -> dict[str, Outcome]:
        """The baselines that are done, in the study's order."""
        files = {name: self.folder / "baselines" / name / "outcome.json" for name in self.rules.baselines}
        return {name: Outcome.from_json(file.read_text()) for name, file in files.items() if file.exists()}

    def best(self) -> TrialRecord | None:
        return stopping.best_of(self.trials(), self.direction)

    def over(self) -> str | None:
        """Why no trial is to start or to be continued any more, or None."""
        spent = 0.0 if self.rules.budget_minutes is None else self.spent()
        return stopping.enough(self.ended(), self.rules, self.direction, spent)

    def enough(self) -> str | None:
        """Why the study is at its end, or None."""
        if reason := self.over():
            return reason
        if exhausted(self.space, self.study) and not self.unfinished():
            return f"all {sum(1 for _ in self.space.points())} points of the space have been tried"
        return None

    def in_work(self) -> list[int]:
        """Numbers of trials that a living process works on."""
        unfinished = self.unfinished()
        held = self.held(unfinished)
        return [number for number in unfinished if number in held]

    def unfinished(self) -> list[int]:
        """Numbers of trials that were begun and have no end yet: in work, paused, or left by a dead process."""
        return [t.number for t in self.of_state(TrialState.RUNNING)]

    @property
    def pauses(self) -> bool:
        """Whether trials pause at rungs, to be continued or not."""
        return isinstance(self.study.pruner, Asha)

    @property
    def rungs(self) -> list[int]:
        """Where trials are judged, in percent of their schedules."""
        return [round(share * 100) for share in self.rules.rungs]

    def reached(self, rung: int) -> float:
        """How much is done, of what is to be expected, of a trial that waits at `rung` (percent of its schedule)."""
        pruner = self.study.pruner
        return rung / 100 / (pruner.expected(rung, self.rungs) if isinstance(pruner, Asha) else 1.0)

    # --- time ---

    def spent(self) -> float:
        """Wall-clock seconds of searching, over all resumes."""
        return self._clock()["seconds"]

    def spend(self, since: float, until: float) -> None:
        """Add a stretch of searching (seconds since the epoch); what two launches share counts once."""
        with self.lock:
            clock = self._clock()
            seconds = clock["seconds"] + max(0.0, until - max(since, clock["until"]))
            new = {"seconds": seconds, "until": max(until, clock["until"])}
            if self.leases.by_folder:
                write_whole(self.folder / "spent.json", json.dumps(new))
            else:
                self.study.set_user_attr("spent", new)

    def _clock(self) -> dict[str, float]:
        nothing = {"seconds": 0.0, "until": 0.0}
        if not self.leases.by_folder:
            return dict(self.study.user_attrs.get("spent", nothing))
        try:
            clock: dict[str, float] = json.loads((self.folder / "spent.json").read_text())
        except FileNotFoundError:
            return nothing
        return clock

    # --- what the life of a trial needs (life.py) ---

    def of_state(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def frozen(self, number: int) -> FrozenTrial:
        storage = self.study._storage  # Optuna's cache of the ended ones included
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def training_folder(self, number: int) -> Path:
        """Checkpoints and best weights of trial `number`."""
        return self.trial_folder(number) / "training"

    def lease(self, number: int) -> str:
        """What a process holds that works on trial `number`."""
        return f"trials/{number:04d}"

    def take(self, frozen: FrozenTrial) -> None:
        """Work on the trial, which nobody does. Call with the lock held."""
        self.leases.take(self.lease(frozen.number))
        if self.leases.sure and isinstance(self.storage, Steady):
            self.storage.keep(frozen._trial_id)

    def drop(self, frozen: FrozenTrial) -> None:
        """Work on it no more."""
        if isinstance(self.storage, Steady):
            self.storage.let_go(frozen._trial_id)
        self.leases.drop(self.lease(frozen.number))

    def held(self, numbers: Sequence[int]) -> set[int]:
        """Those of these trials that living processes work on."""
        found = self.leases.held([self.lease(number) for number in numbers])
        return {number for number in numbers if self.lease(number) in found}


class _Ended:
    """Records of trials that have an end, made once: nothing of these changes any more. Threads may share it."""

    def __init__(self) -> None:
        self.records = dict[int, TrialRecord]()
        self.order = list[tuple[datetime, int]]()  # when they ended, and their numbers

    def known(self, trial: FrozenTrial) -> TrialRecord:
        if (known := self.records.get(trial.number)) is not None:
            return known
        assert trial.datetime_complete is not None
        made = _record(trial)
        if (first := self.records.setdefault(trial.number, made)) is made:
            insort(self.order, (trial.datetime_complete, trial.number))
        return first


def attributes(storage: StorageSettings, name: str) -> dict[str, Any]:
    """What a study in a database knows of itself. Raises LookupError if there is no such study."""
    found = load(name, open_storage(storage, Path()))
    if found is None:
        raise LookupError(f"there is no study {name}")
    return dict(found.user_attrs)


def definition(settings: Settings, space: Space, fingerprint: str, weights: str) -> dict[str, Any]:
    """What must stay the same for a study's trials to compare, as plain data."""
    searched = {p.key for p in space.parameters}
    recipe = {k: v for k, v in settings.recipe.flat().items() if k not in searched and k not in PLACES}
    return {
        "space": space.describe(),
        "metric": settings.study.metric,
        "rungs": list(settings.study.rungs),
        "rung_examples": settings.study.rung_examples,
        "data": fingerprint,
        LABELS: list(settings.data.label_names),
        "weights": weights,
        **{key: value for key, value in recipe.items() if value is not None},
    }


def _record(trial: FrozenTrial) -> TrialRecord:
    outcome = trial.user_attrs.get("outcome", {})
    score = trial.value if trial.state == TrialState.COMPLETE else outcome.get("score")
    return TrialRecord(
        number=trial.number,
        state=State[trial.state.name],
        params=dict(trial.params),
        score=score,
        reason=outcome.get("reason"),
        rung=max(trial.intermediate_values, default=None),
        rung_score=trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None,
        share=outcome.get("share"),
        steps=outcome.get("steps"),
        seconds=outcome.get("seconds"),
        metrics=outcome.get("metrics", {}),
        run_id=trial.user_attrs.get("run_id"),
        megabytes=outcome.get("megabytes"),
        ms_per_1000_texts=outcome.get("ms_per_1000_texts"),
        origin=str(trial.user_attrs.get("origin", "sampler")),
    )


def _brief(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 300 else text[:297] + "..."
