"""A study in a database: what is done with its lock held is one transaction, and known without asking."""

import copy
import json
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import filelock
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage  # what Optuna itself puts over a database; not exported
from optuna.storages._rdb import models  # its tables; not exported
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

SQLITE = "sqlite:///"
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True}  # of a worker; more only for a moment


def open_database(url: str) -> "Steady":
    """Raises what SQLAlchemy and its drivers raise."""
    return Steady(_sqlite(url) if url.startswith(SQLITE) else RDBStorage(url, engine_kwargs=ONE_CONNECTION))


def together(storage: BaseStorage) -> AbstractContextManager[None]:
    """For a block in which the study's lock is held."""
    return storage.steady() if isinstance(storage, Steady) else nullcontext()


class Steady(_CachedStorage):
    """Optuna's cache over a database, for what is done with a study's lock held.

    Nobody else changes the study's trials then: running ones too are read once, and what this process writes is known
    without asking; and all it writes is one transaction, which is stored before the lock is free. A process killed
    within has written nothing. What is new of a trial that is known goes there together, before anything else is asked.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._depth, self._turn = 0, threading.RLock()  # a thread that reads waits for one that has the study's lock
        self._whole = set[int]()  # studies of which every trial in the cache is as the database has it
        self._fresh = set[int]()  # trials of which this is so
        self._kept = set[int]()  # trials that nobody else writes to: of these it stays so without the lock
        self._sessions = _Sessions(backend.scoped_session)
        backend.scoped_session = self._sessions

    @contextmanager
    def steady(self) -> Iterator[None]:
        """From here to the block's end, of this process's threads, this one has the study's lock."""
        with self._turn:
            self._depth += 1
            try:
                with self._sessions.one() if self._depth == 1 else nullcontext():
                    yield
            except (SQLAlchemyError, StorageInternalError):
                self._forget()
                raise
            finally:
                self._depth -= 1
                if not self._depth:
                    self._whole.clear()
                    self._fresh &= self._kept

    def keep(self, trial_id: int) -> None:
        """Until it has an end or is let go of, nobody but this process writes to the trial. Call with the lock held."""
        self._kept.add(trial_id)

    def let_go(self, trial_id: int) -> None:
        with self._turn:
            self._kept.discard(trial_id)
            self._fresh.discard(trial_id)

    def _forget(self) -> None:
        """All that was read: some of it may have been undone."""
        with self._lock:
            for study in self._studies.values():
                study.trials.clear()
                study.unfinished_trial_ids.clear()
                study.last_finished_trial_id = -1
            self._trial_id_to_study_id_and_number.clear()
            self._study_id_and_number_to_trial_id.clear()
        self._fresh.clear()

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._turn:
            if study_id in self._whole:
                return
            super()._read_trials_from_remote_storage(study_id)
            if self._depth:
                self._whole.add(study_id)
                self._fresh.update(t._trial_id for t in self._studies[study_id].trials.values())

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """By number, as Optuna has it, without asking thousands of trials for theirs."""
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            trials = self._studies[study_id].trials
            found = [trials[n] for n in sorted(trials) if states is None or trials[n].state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Also a running one from what was read under the lock, as a copy: Optuna's trials write into theirs."""
        with self._turn:
            if trial_id in self._fresh:
                return copy.deepcopy(self._cached(trial_id))
            trial = super().get_trial(trial_id)
            if self._depth and trial_id in self._trial_id_to_study_id_and_number:
                self._put(trial)
            return trial

    def create_new_trial(self, *given: Any, **named: Any) -> int:
        trial_id = super().create_new_trial(*given, **named)
        if self._depth:
            self._fresh.add(trial_id)
        return trial_id

    def set_trial_state_values(self, trial_id: int, *given: Any, **named: Any) -> bool:
        """The database has the clock of a trial's beginning and end: it is read again."""
        self.let_go(trial_id)
        self._whole.clear()
        return super().set_trial_state_values(trial_id, *given, **named)

    def set_trial_param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        with self._writing(trial_id):
            if self._is_new(trial_id, "params", name):
                others = self._studies[self._study_of(trial_id)].trials.values()
                if other := next((t for t in others if name in t.distributions), None):
                    check_distribution_compatibility(other.distributions[name], distribution)
                written = distribution_to_json(distribution)
                row = models.TrialParamModel(
                    trial_id=trial_id, param_name=name, param_value=value, distribution_json=written
                )
                self._sessions.later(row)
            else:
                super().set_trial_param(trial_id, name, value, distribution)
            self._note(trial_id, "params", name, distribution.to_external_repr(value))
            self._note(trial_id, "distributions", name, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._writing(trial_id):
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            self._note(trial_id, "intermediate_values", step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attr(trial_id, key, value, "user_attrs", models.TrialUserAttributeModel, super().set_trial_user_attr)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        table, ordinary = models.TrialSystemAttributeModel, super().set_trial_system_attr
        self._set_attr(trial_id, key, value, "system_attrs", table, ordinary)

    def _set_attr(
        self, trial_id: int, key: str, value: Any, field: str, table: type[models.BaseModel],
        ordinary: Callable[[int, str, Any], None],
    ) -> None:  # fmt: skip
        with self._writing(trial_id):
            if self._is_new(trial_id, field, key):
                self._sessions.later(table(trial_id=trial_id, key=key, value_json=json.dumps(value)))
            else:
                ordinary(trial_id, key, value)
            self._note(trial_id, field, key, json.loads(json.dumps(value)))

    @contextmanager
    def _writing(self, trial_id: int) -> Iterator[None]:
        """What went wrong may have been written all the same: the trial is read again then."""
        with self._turn:
            try:
                yield
            except BaseException:
                self.let_go(trial_id)
                raise

    def _is_new(self, trial_id: int, field: str, key: str) -> bool:
        """Whether a known trial, which goes on, has nothing there yet: its row needs no question before it."""
        if not self._depth or trial_id not in self._fresh:
            return False
        trial = self._cached(trial_id)
        return not trial.state.is_finished() and key not in getattr(trial, field)

    def _note(self, trial_id: int, field: str, key: Any, value: Any) -> None:
        """Into a copy of the trial: whoever was given it may look at what it was."""
        if trial_id in self._fresh:
            trial = copy.copy(self._cached(trial_id))
            setattr(trial, field, {**getattr(trial, field), key: value})
            self._put(trial)

    def _cached(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            study_id, number = self._trial_id_to_study_id_and_number[trial_id]
            return self._studies[study_id].trials[number]

    def _put(self, trial: FrozenTrial) -> None:
        with self._lock:
            self._add_trials_to_cache(self._study_of(trial._trial_id), [trial])
            self._fresh.add(trial._trial_id)

    def _study_of(self, trial_id: int) -> int:
        return self._trial_id_to_study_id_and_number[trial_id][0]


class _Sessions:
    """A database's sessions as Optuna asks for them: one for every step, or within `one` a single one for all."""

    def __init__(self, ordinary: Callable[[], Session]) -> None:
        self._ordinary, self._within = ordinary, threading.local()

    def __call__(self) -> Any:
        held = getattr(self._within, "session", None)
        return held.begin() if held else self._ordinary()

    def later(self, row: models.BaseModel) -> None:
        """Write it, together with others, before the next step or at the end of `one`, which this thread is in."""
        self._within.session.rows.append(row)

    @contextmanager
    def one(self) -> Iterator[None]:
        """What this thread writes until the block's end is one transaction.

        Raises StorageInternalError if the database undid any of it; then none of it is stored. What was written
        before the block raised something else is stored.
        """
        self._within.session = session = _Held(self._ordinary())
        try:
            yield
        except BaseException:
            with suppress(SQLAlchemyError, StorageInternalError):
                session.end()
            raise
        else:
            session.end()
        finally:
            self._within.session = None


class _Held:
    """A session whose steps are stored together at its end; each step sees what those before it wrote."""

    def __init__(self, session: Session) -> None:
        self._session, self._undone = session, False
        self.rows: list[models.BaseModel] = []  # not written yet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def begin(self) -> "_Held":
        """For a step, which sees what waited to be written."""
        if self.rows:
            self._session.add_all(self.rows)
            self.rows = []
            try:
                self._session.flush()
            except SQLAlchemyError:
                self.rollback()
                raise
        return self

    def commit(self) -> None:
        self._session.flush()

    def rollback(self) -> None:
        """After an error of the database, which has ended the transaction; others come before a step has written."""
        if isinstance(sys.exception(), SQLAlchemyError):
            self._session.rollback()
            self._undone = True

    def close(self) -> None:
        """What was read is forgotten: the next step reads it anew."""
        self._session.expunge_all()

    def end(self) -> None:
        try:
            if self._undone:
                raise StorageInternalError("the database undid what belongs together")
            self.begin()
            self._session.commit()
        finally:
            self._session.close()


def _sqlite(url: str) -> RDBStorage:
    """SQLite that takes its write lock when a transaction begins: two workers cannot take one trial."""
    from sqlalchemy import event

    Path(url.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(url.removeprefix(SQLITE) + ".lock"):  # one process at a time makes the tables
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    event.listen(storage.engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    storage.engine.dispose()
    return storage
