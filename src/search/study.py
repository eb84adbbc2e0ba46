"""A study and its trials: created once, continued by the same command, exact in number."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from src.errors import Refusal
from src.records import Evaluation, Outcome, Point, State, TrialRecord
from src.search import leases, stopping
from src.search.proposals import WholePoints, exhausted
from src.search.space import Space
from src.search.storage import load, open_storage
from src.search.targets import build
from src.settings import Settings, StudySettings

PLACES = ("model.checkpoint", "model.name")  # not part of a definition: the weights' hash is
FINAL = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
MOST_STARTS = 3  # of one trial; a trial whose worker dies every time is a failed trial


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on."""

    number: int
    point: Point
    folder: Path
    trial: optuna.Trial
    origin: str
    starts: int


class Book:
    """One study as all its processes see it: claims, reports and results, over a shared storage and folder."""

    def __init__(self, settings: Settings, space: Space, direction: str, folder: Path) -> None:
        self.settings, self.space, self.direction, self.folder = settings, space, direction, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / "study.lock")
        self.storage: BaseStorage = open_storage(settings.storage, folder)
        self._study: optuna.Study | None = None

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
            self._study = found
        return self._study

    # --- the study ---

    def existing(self, definition: Mapping[str, Any]) -> bool:
        """Whether the study exists; raises Refusal if it was defined otherwise."""
        found = load(self.name, self.storage)
        if found is None:
            return False
        before = found.user_attrs.get("definition", {})
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

    def create(self, definition: Mapping[str, Any]) -> None:
        """Create the study if need be, and room for `n_trials` trials: the default recipe first, then enqueued ones."""
        with self.lock:
            if not self.existing(definition):
                made = optuna.create_study(
                    study_name=self.name, storage=self.storage, direction=self.direction, load_if_exists=True
                )
                made.set_user_attr("uid", uuid.uuid4().hex)
                made.set_user_attr("definition", dict(definition))
            known = self.study.get_trials(deepcopy=False)
            have = [t.system_attrs.get("fixed_params") for t in known]
            first = self.space.default()
            starts = [] if self.space.outside(first) else [(first, "default recipe")]
            starts += [(dict(point), "enqueued") for point in self.rules.enqueue]
            missing = self.rules.n_trials - len(known)
            for point, origin in [s for s in starts if s[0] not in have][: max(0, missing)]:
                self.study.enqueue_trial(point, user_attrs={"origin": origin})
                missing -= 1
            for _ in range(missing):
                self.study.enqueue_trial({})

    def trials(self) -> list[TrialRecord]:
        """All trials that were begun, by number."""
        every = self.study.get_trials(deepcopy=False)
        return [_record(t) for t in every if t.state != TrialState.WAITING]

    def ended(self) -> list[TrialRecord]:
        """Trials with a final state, in the order they ended."""
        every = self.study.get_trials(deepcopy=False, states=FINAL)
        return [_record(t) for t in sorted(every, key=lambda t: (t.datetime_complete, t.number))]

    def best(self) -> TrialRecord | None:
        return stopping.best_of(self.trials(), self.direction)

    def enough(self) -> str | None:
        """Why no further trial is to start, or None."""
        if reason := stopping.enough(self.ended(), self.rules, self.direction, self.spent()):
            return reason
        if exhausted(self.space, self.study):
            return f"all {sum(1 for _ in self.space.points())} points of the space have been tried"
        return None

    def unfinished(self) -> list[int]:
        """Numbers of trials that a process works on, or died on."""
        return [t.number for t in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    # --- time ---

    def spent(self) -> float:
        """Wall-clock seconds of searching, over all resumes."""
        try:
            return float(json.loads((self.folder / "spent.json").read_text())["seconds"])
        except (FileNotFoundError, ValueError, KeyError):
            return 0.0

    def spend(self, seconds: float) -> None:
        with self.lock:
            scratch = self.folder / "spent.json.part"
            scratch.write_text(json.dumps({"seconds": self.spent() + seconds}))
            scratch.replace(self.folder / "spent.json")

    # --- trials ---

    def claim(self) -> Claim | None:
        """The next trial for this process: one whose worker died, else a new one; None when there is enough.

        Under the study's lock, point included: the total is exact and no point is given out twice.
        """
        with self.lock:
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not leases.alive(self._lease(frozen.number)) and (claim := self._take(frozen)):
                    return claim
            running = len(self.unfinished())
            if self.enough() or running + len(self.ended()) >= self.rules.n_trials:
                return None
            waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            for frozen in waiting:
                leases.take(self._lease(frozen.number))
                self.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
                return self._take(frozen)
            return None

    def _take(self, frozen: FrozenTrial) -> Claim | None:
        """Make `frozen` this process's own; a trial that killed its workers too often ends as failed."""
        leases.take(self._lease(frozen.number))
        if "outcome" in frozen.user_attrs:  # killed after its end was stored, before its state was
            self._settle(frozen, frozen.user_attrs["outcome"])
            return None
        trial = optuna.Trial(self.study, frozen._trial_id)
        starts = int(trial.user_attrs.get("starts", 0)) + 1
        if starts > MOST_STARTS:
            self.tell(frozen.number, Outcome(State.FAIL, reason=f"its worker died {MOST_STARTS} times"))
            return None
        trial.set_user_attr("starts", starts)
        trial.set_user_attr("began", trial.user_attrs.get("began", time.time()))
        point: Point = {}
        for parameter in self.space.parameters:
            if parameter in self.space.active(point):
                point[parameter.key] = parameter.suggest(trial)
        origin = str(trial.user_attrs.get("origin", "sampler"))
        return Claim(frozen.number, point, self.trial_folder(frozen.number), trial, origin, starts)

    def report(self, claim: Claim, evaluation: Evaluation) -> str | None:
        """Tell the pruner of a score at its share of the schedule, in percent; a reason if the trial is to end."""
        score = evaluation.metrics[self.rules.metric]
        percent = round(evaluation.share * 100)
        claim.trial.report(score, percent)
        if evaluation.share >= 1 or not claim.trial.should_prune():
            return None
        pruner = type(self.study.pruner).__name__
        return f"{pruner}: {self.rules.metric} {score:.4f} after {percent} % of its schedule"

    def tell(self, number: int, outcome: Outcome) -> None:
        """End a trial. All that is known of it is stored before its state becomes final."""
        frozen = next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)
        if frozen.state in FINAL:
            return
        details = {
            "state": str(outcome.state),
            "reason": outcome.reason,
            "share": outcome.share,
            "score": outcome.score,
            "metrics": dict(outcome.metrics),
            "megabytes": outcome.megabytes,
            "ms_per_1000_texts": outcome.ms_per_1000_texts,
            "seconds": time.time() - float(frozen.user_attrs.get("began", time.time())),
        }
        self.storage.set_trial_user_attr(frozen._trial_id, "outcome", details)
        self._settle(frozen, details)

    def _settle(self, frozen: FrozenTrial, details: Mapping[str, Any]) -> None:
        state = TrialState[details["state"]]
        self.study.tell(frozen.number, details["score"] if state == TrialState.COMPLETE else None, state=state)
        leases.drop(self._lease(frozen.number))

    def note_run(self, claim: Claim, run_id: str) -> None:
        """Remember the MLflow run that mirrors the trial."""
        claim.trial.set_user_attr("run_id", run_id)

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def _lease(self, number: int) -> Path:
        folder = self.trial_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "lease.json"


def definition(settings: Settings, space: Space, fingerprint: str, weights: str) -> dict[str, Any]:
    """What must stay the same for a study's trials to compare, as plain data."""
    searched = {p.key for p in space.parameters}
    recipe = {k: v for k, v in settings.recipe.flat().items() if k not in searched and k not in PLACES}
    return {
        "space": space.describe(),
        "metric": settings.study.metric,
        "rungs": list(settings.study.rungs),
        "data": fingerprint,
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
        share=outcome.get("share"),
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
