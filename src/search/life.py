"""The life of a trial: asked, running, paused at a rung, continued, told.

Everything that moves a trial from one to the next is here, and under the study's lock, so that the total is exact, no
point is given out twice, and any process may be killed between any two lines:

- a claimed trial is RUNNING in the store and has a lease; it is dead when the process named in the lease is;
- a trial waits at its last rung when it was judged there, was not promoted, nobody holds it, and it was let go of
  there, or its checkpoint is the one written there;
- an end is stored with all its details before the state becomes final: a process killed in between loses nothing.
"""

import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from src.errors import BookLost, first_line
from src.learning import resume
from src.records import Evaluation, Outcome, Point, State, Stop
from src.search import stopping
from src.search.halving import PROMOTED, Asha, last_rung, promoted
from src.search.proposals import FINAL, exhausted
from src.search.study import DEFAULT_RECIPE, Book

HOLD = "hold"  # attribute of a trial: when it began, how often it was taken up, how often in vain at the same place
PAUSED = "paused"  # attribute of a trial: where it was let go of, and what its checkpoint takes


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on."""

    number: int
    point: Point
    folder: Path
    trial: optuna.Trial
    origin: str
    starts: int  # how often a process began or continued it


def claim(book: Book, default_alone: bool = False) -> Claim | None:
    """The next trial for this process: one whose worker died, one to continue, else a new one; or None.

    With `default_alone`, none while another process works on the default recipe.
    """
    _ = book.study  # found, and what is in it read, before others wait for the lock
    with book.lock:
        if default_alone and default_in_work(book):
            return None
        for frozen in _unheld(book):
            if "outcome" in frozen.user_attrs:  # its process was killed between the end's details and the end
                _settle(book, frozen, Outcome(**frozen.user_attrs["outcome"]))
            elif not waits(book, frozen) and (taken := _take(book, frozen)):
                return taken
        if book.over():
            _end_paused(book, book.over() or "")
            return None
        if continued := _promote(book):
            return _take(book, continued)
        if not _all_begun(book):
            return _take(book, _begin(book))
        if not more_may_come(book):
            _end_paused(book, "not among the best of its rung")
        return None


def more_may_come(book: Book) -> bool:
    """Whether a trial is in other hands: it may let a paused one go on, or its process may die. Worth waiting for."""
    return bool(book.in_work())


def default_in_work(book: Book) -> bool:
    """Whether a living process works on the default recipe."""
    running = book.of_state(TrialState.RUNNING)
    return bool(book.held([t.number for t in running if t.user_attrs.get("origin") == DEFAULT_RECIPE]))


def default_to_come(book: Book) -> bool:
    """Whether the default recipe has a trial that has not ended: enqueued, in work, or left by a dead process."""
    return any(
        t.user_attrs.get("origin") == DEFAULT_RECIPE for t in book.of_state(TrialState.WAITING, TrialState.RUNNING)
    )


@contextmanager
def kept(files_too: bool = True) -> Iterator[None]:
    """Raises BookLost for what goes wrong with the study's records, whatever their store raises.

    Without `files_too`, a database alone is meant, not the disk.
    """
    try:
        yield
    except _errors(files_too) as error:
        raise BookLost(f"{type(error).__name__}: {first_line(error)}") from error


def _errors(files_too: bool) -> tuple[type[Exception], ...]:
    proxy = sys.modules.get("grpc")  # imported where the storage is Optuna's proxy
    of_files = (OSError,) if files_too else ()
    return (SQLAlchemyError, StorageInternalError, *((proxy.RpcError,) if proxy else ()), *of_files)


def report(book: Book, mine: Claim, evaluation: Evaluation) -> Stop | None:
    """Tell of a score at its share of the schedule, in percent; an order to stop if the trial is not to go on.

    Raises BookLost if the study's records cannot be written.
    """
    with kept():
        return _report(book, mine, evaluation)


def _report(book: Book, mine: Claim, evaluation: Evaluation) -> Stop | None:
    score, percent = evaluation.metrics[book.rules.metric], round(evaluation.share * 100)
    with book.lock:
        frozen = _mine(book, mine)
        if percent not in frozen.intermediate_values:
            mine.trial.report(score, percent)
        if evaluation.share >= 1:
            return None
        if book.pauses:
            if percent in promoted(frozen) or _pass_default(book, mine, percent) or _promote(book, mine.number):
                return None
            return Stop(State.PAUSED, f"paused at {percent} % of its schedule with {book.rules.metric} {score:.4f}")
        if not mine.trial.should_prune():
            return None
        pruner = type(book.study.pruner).__name__
        return Stop(State.PRUNED, f"{pruner}: {book.rules.metric} {score:.4f} after {percent} % of its schedule")


def pause(book: Book, mine: Claim, outcome: Outcome) -> None:
    """Let go of a trial that has its checkpoint; the worst paused ones end if their checkpoints take too much disk."""
    with book.lock:
        frozen = _mine(book, mine)
        rung = last_rung(frozen)
        mine.trial.set_user_attr("so_far", dataclasses.asdict(outcome))
        size = resume.gigabytes(book.training_folder(mine.number))
        mine.trial.set_user_attr(PAUSED, {"rung": rung, "gigabytes": size})
        book.drop(frozen)
        budget = book.rules.disk_budget_gb
        paused = [t for t in _unheld(book) if waits(book, t)]
        sign = -1.0 if book.direction == "maximize" else 1.0
        order = {t.number: (-(last_rung(t) or 0), sign * t.intermediate_values[last_rung(t) or 0]) for t in paused}
        worst_first = sorted(paused, key=lambda t: order[t.number], reverse=True)
        sizes = {t.number: t.user_attrs.get(PAUSED, {}).get("gigabytes", 0.0) for t in paused}
        while budget is not None and worst_first and sum(sizes[t.number] for t in worst_first) > budget:
            _end_as_pruned(book, worst_first.pop(0), f"its checkpoint went for study.disk_budget_gb={budget:g}")


def release(book: Book, mine: Claim) -> None:
    """Let go of a trial that was drained: whoever comes next continues it from its checkpoint."""
    with book.lock:
        frozen = _mine(book, mine)
        mine.trial.set_user_attr(HOLD, {**_hold(frozen), "at": None})
        book.drop(frozen)


def finish(book: Book, mine: Claim, outcome: Outcome) -> None:
    """End the trial that this process works on. Raises BookLost if it is in other hands by now."""
    with book.lock:
        _end(book, _mine(book, mine), outcome)


def tell(book: Book, number: int, outcome: Outcome) -> None:
    """End a trial, unless it has ended."""
    with book.lock:
        _end(book, book.frozen(number), outcome)


def note_run(mine: Claim, run_id: str) -> None:
    """Remember the run that mirrors the trial."""
    if mine.trial.user_attrs.get("run_id") != run_id:
        mine.trial.set_user_attr("run_id", run_id)


def keep_best(book: Book) -> None:
    """Delete the weights of all ended trials but the best `study.keep_checkpoints`."""
    with book.lock:
        ended = book.ended()
        kept = {t.number for t in stopping.ranked(ended, book.direction)[: book.rules.keep_checkpoints]}
        for number in {t.number for t in ended} - kept - book.cleared:
            shutil.rmtree(book.training_folder(number), ignore_errors=True)
            book.cleared.add(number)


def waits(book: Book, frozen: FrozenTrial) -> bool:
    """Whether the trial stands at its last rung with a checkpoint, not promoted: it continues only when it is."""
    rung = last_rung(frozen)
    if not book.pauses or rung is None or rung >= 100 or rung in promoted(frozen):
        return False
    said = frozen.user_attrs.get(PAUSED, {}).get("rung")
    return said == rung or resume.rung_of(book.training_folder(frozen.number)) == rung


def _hold(frozen: FrozenTrial) -> dict[str, Any]:
    return dict(frozen.user_attrs.get(HOLD, {}))


def _mine(book: Book, mine: Claim) -> FrozenTrial:
    """The trial as it stands. Raises BookLost if somebody has begun it anew since: this process counted as dead."""
    frozen = book.frozen(mine.number)
    if _hold(frozen).get("starts") != mine.starts:
        raise BookLost(f"trial {mine.number} is in other hands by now")
    return frozen


def _begin(book: Book) -> FrozenTrial:
    """A new trial, RUNNING: one that is enqueued, or one more."""
    for frozen in book.of_state(TrialState.WAITING):
        book.take(frozen)
        book.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        return book.frozen(frozen.number)
    trial_id = book.storage.create_new_trial(book.study._study_id)
    return book.frozen(book.storage.get_trial_number_from_id(trial_id))


def _take(book: Book, frozen: FrozenTrial) -> Claim | None:
    """Make `frozen` this process's own; a trial that killed its workers too often ends as failed."""
    book.take(frozen)
    trial = optuna.Trial(book.study, frozen._trial_id)
    attributes = frozen.user_attrs
    reached = [attributes.get("so_far", {}).get("steps"), len(frozen.intermediate_values)]
    before = attributes.get(HOLD, {})
    deaths = before["deaths"] + 1 if before and before["at"] == reached else 0
    if deaths > book.rules.max_restarts:
        tell(book, frozen.number, Outcome(State.FAIL, reason=f"its worker died {deaths} times at the same place"))
        return None
    starts = before.get("starts", 0) + 1
    began = before.get("began", time.time())
    trial.set_user_attr(HOLD, {"at": reached, "deaths": deaths, "starts": starts, "began": began})
    point: Point = {}
    for parameter in book.space.parameters:
        if parameter in book.space.active(point):
            point[parameter.key] = parameter.suggest(trial)
    origin = str(attributes.get("origin", "sampler"))
    return Claim(frozen.number, point, book.trial_folder(frozen.number), trial, origin, starts)


def _pass_default(book: Book, mine: Claim, rung: int) -> bool:
    """Let the default recipe past its rung, whatever it says: a study has its first whole result early."""
    if mine.origin == DEFAULT_RECIPE:
        _let_past(book, book.frozen(mine.number), rung)
        return True
    return False


def _let_past(book: Book, frozen: FrozenTrial, rung: int) -> None:
    book.storage.set_trial_user_attr(frozen._trial_id, PROMOTED, [*promoted(frozen), rung])


def _promote(book: Book, mine: int | None = None) -> FrozenTrial | None:
    """Let the next trial past its rung, and note it; with `mine`, only that one, which is about to go on by itself."""
    pruner = book.study.pruner
    if not isinstance(pruner, Asha):
        return None
    begun = book.of_state(TrialState.RUNNING, *FINAL)
    held = book.held([t.number for t in begun if t.state == TrialState.RUNNING])
    found = pruner.promotable(
        begun,
        book.rungs,
        book.direction,
        waits=lambda t: t.number == mine or (t.number not in held and t.state == TrialState.RUNNING and waits(book, t)),
        closing=_all_begun(book) and not [n for n in held if n != mine],
    )
    if found is None or (mine is not None and found[0].number != mine):
        return None
    frozen, rung = found
    _let_past(book, frozen, rung)
    return book.frozen(frozen.number)


def _all_begun(book: Book) -> bool:
    """Whether no new trial is to start: the total is reached, or the space has no point left."""
    begun = len(book.of_state(TrialState.RUNNING, *FINAL))
    return begun >= book.rules.n_trials or exhausted(book.space, book.study)


def _unheld(book: Book) -> list[FrozenTrial]:
    running = book.of_state(TrialState.RUNNING)
    held = book.held([t.number for t in running])
    return [t for t in running if t.number not in held]


def _end_paused(book: Book, reason: str) -> None:
    for frozen in _unheld(book):
        if waits(book, frozen):
            rung = last_rung(frozen)
            _end_as_pruned(book, frozen, f"paused at {rung} % of its schedule, and {reason}")


def _end_as_pruned(book: Book, frozen: FrozenTrial, reason: str) -> None:
    so_far = Outcome(**frozen.user_attrs["so_far"]) if "so_far" in frozen.user_attrs else Outcome(State.PAUSED)
    tell(book, frozen.number, dataclasses.replace(so_far, state=State.PRUNED, reason=reason))


def _end(book: Book, frozen: FrozenTrial, outcome: Outcome) -> None:
    """All that is known of a trial is stored before its state becomes final."""
    if frozen.state in FINAL:
        return
    elapsed = time.time() - _hold(frozen).get("began", time.time())
    whole = dataclasses.replace(outcome, seconds=elapsed)
    book.storage.set_trial_user_attr(frozen._trial_id, "outcome", dataclasses.asdict(whole))
    _settle(book, frozen, whole)


def _settle(book: Book, frozen: FrozenTrial, outcome: Outcome) -> None:
    """Make the stored end the trial's state, and delete what it could have been continued from."""
    state = TrialState[outcome.state]
    value = outcome.score if state == TrialState.COMPLETE else None
    if state == TrialState.PRUNED:  # the last one, as by Optuna's tell, which reads the trial before and after
        value = frozen.intermediate_values.get(last_rung(frozen) or 0)
    known = value is not None and not math.isnan(value)
    book.storage.set_trial_state_values(frozen._trial_id, state, [value] if known else None)
    book.drop(frozen)
    book.afterwards(lambda: resume.drop(book.training_folder(frozen.number)))
