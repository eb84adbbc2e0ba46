"""The life of a trial: asked, running, paused at a rung, continued, told.

Everything that moves a trial from one to the next is here, and under the study's lock, so that the total is exact, no
point is given out twice, and any process may be killed between any two lines:

- a claimed trial is RUNNING in the store and has a lease; it is dead when the process named in the lease is;
- a trial waits at its last rung when it was judged there, was not promoted, nobody holds it, and its checkpoint is
  the one written there;
- an end is stored with all its details before the state becomes final: a process killed in between loses nothing.
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from src.errors import BookLost, first_line
from src.learning import resume
from src.records import Evaluation, Outcome, Point, State, Stop
from src.search import leases
from src.search.halving import PROMOTED, Asha, last_rung, promoted
from src.search.proposals import exhausted
from src.search.study import DEFAULT_RECIPE, FINAL, Book


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
    with book.lock:
        if default_alone and default_in_work(book):
            return None
        _end_what_was_told(book)
        for frozen in _unheld(book):
            if not waits(book, frozen) and (taken := _take(book, frozen)):
                return taken
        if book.over():
            _end_paused(book, book.over() or "")
            return None
        if continued := _promote(book):
            return _take(book, continued)
        if not _all_begun(book):
            for frozen in book.of_state(TrialState.WAITING):
                leases.take(book.lease(frozen.number))
                book.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
                return _take(book, book.frozen(frozen.number))
        if not more_may_come(book):
            _end_paused(book, "not among the best of its rung")
        return None


def more_may_come(book: Book) -> bool:
    """Whether a trial is in other hands: it may let a paused one go on, or its process may die. Worth waiting for."""
    return bool(book.in_work())


def default_in_work(book: Book) -> bool:
    """Whether a living process works on the default recipe."""
    running = book.of_state(TrialState.RUNNING)
    return any(t.user_attrs.get("origin") == DEFAULT_RECIPE and book.held(t.number) for t in running)


@contextmanager
def kept() -> Iterator[None]:
    """Raises BookLost for what goes wrong with the study's records, whatever their store raises."""
    try:
        yield
    except (OSError, SQLAlchemyError, StorageInternalError) as error:
        raise BookLost(f"{type(error).__name__}: {first_line(error)}") from error


def report(book: Book, mine: Claim, evaluation: Evaluation) -> Stop | None:
    """Tell of a score at its share of the schedule, in percent; an order to stop if the trial is not to go on.

    Raises BookLost if the study's records cannot be written.
    """
    with kept():
        return _report(book, mine, evaluation)


def _report(book: Book, mine: Claim, evaluation: Evaluation) -> Stop | None:
    score, percent = evaluation.metrics[book.rules.metric], round(evaluation.share * 100)
    with book.lock:
        frozen = book.frozen(mine.number)
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
        mine.trial.set_user_attr("so_far", dataclasses.asdict(outcome))
        leases.drop(book.lease(mine.number))
        budget = book.rules.disk_budget_gb
        paused = [t for t in _unheld(book) if waits(book, t)]
        sign = -1.0 if book.direction == "maximize" else 1.0
        order = {t.number: (-(last_rung(t) or 0), sign * t.intermediate_values[last_rung(t) or 0]) for t in paused}
        worst_first = sorted(paused, key=lambda t: order[t.number], reverse=True)
        sizes = {t.number: resume.gigabytes(book.training_folder(t.number)) for t in paused}
        while budget is not None and worst_first and sum(sizes[t.number] for t in worst_first) > budget:
            _end_as_pruned(book, worst_first.pop(0), f"its checkpoint went for study.disk_budget_gb={budget:g}")


def release(book: Book, mine: Claim) -> None:
    """Let go of a trial that was drained: whoever comes next continues it from its checkpoint."""
    mine.trial.set_user_attr("deaths", {})
    leases.drop(book.lease(mine.number))


def tell(book: Book, number: int, outcome: Outcome) -> None:
    """End a trial. All that is known of it is stored before its state becomes final."""
    with book.lock:
        frozen = book.frozen(number)
        if frozen.state in FINAL:
            return
        elapsed = time.time() - float(frozen.user_attrs.get("began", time.time()))
        details = dataclasses.asdict(dataclasses.replace(outcome, seconds=elapsed))
        book.storage.set_trial_user_attr(frozen._trial_id, "outcome", details)
        _settle(book, book.frozen(number))


def note_run(mine: Claim, run_id: str) -> None:
    """Remember the run that mirrors the trial."""
    if mine.trial.user_attrs.get("run_id") != run_id:
        mine.trial.set_user_attr("run_id", run_id)


def waits(book: Book, frozen: FrozenTrial) -> bool:
    """Whether the trial stands at its last rung with a checkpoint, not promoted: it continues only when it is."""
    rung = last_rung(frozen)
    if not book.pauses or rung is None or rung >= 100 or rung in promoted(frozen):
        return False
    return resume.rung_of(book.training_folder(frozen.number)) == rung


def _take(book: Book, frozen: FrozenTrial) -> Claim | None:
    """Make `frozen` this process's own; a trial that killed its workers too often ends as failed."""
    leases.take(book.lease(frozen.number))
    trial = optuna.Trial(book.study, frozen._trial_id)
    attributes = trial.user_attrs
    reached = attributes.get("so_far", {}).get("steps"), len(frozen.intermediate_values)
    before = attributes.get("deaths", {})
    deaths = before.get("count", -1) + 1 if before.get("at") == list(reached) else 0
    if deaths > book.rules.max_restarts:
        tell(book, frozen.number, Outcome(State.FAIL, reason=f"its worker died {deaths} times at the same place"))
        return None
    trial.set_user_attr("deaths", {"at": list(reached), "count": deaths})
    starts = int(attributes.get("starts", 0)) + 1
    trial.set_user_attr("starts", starts)
    if "began" not in attributes:
        trial.set_user_attr("began", time.time())
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
    held = [t.number for t in begun if t.state == TrialState.RUNNING and book.held(t.number)]
    rungs = [round(share * 100) for share in book.rules.rungs]
    found = pruner.promotable(
        begun,
        rungs,
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
    return [t for t in book.of_state(TrialState.RUNNING) if not book.held(t.number)]


def _end_what_was_told(book: Book) -> None:
    """Finish what a process was killed in: the end is stored, the state not yet."""
    for frozen in _unheld(book):
        if "outcome" in frozen.user_attrs:
            _settle(book, frozen)


def _end_paused(book: Book, reason: str) -> None:
    for frozen in _unheld(book):
        if waits(book, frozen):
            rung = last_rung(frozen)
            _end_as_pruned(book, frozen, f"paused at {rung} % of its schedule, and {reason}")


def _end_as_pruned(book: Book, frozen: FrozenTrial, reason: str) -> None:
    so_far = Outcome(**frozen.user_attrs["so_far"]) if "so_far" in frozen.user_attrs else Outcome(State.PAUSED)
    tell(book, frozen.number, dataclasses.replace(so_far, state=State.PRUNED, reason=reason))


def _settle(book: Book, frozen: FrozenTrial) -> None:
    """Make the stored end the trial's state, and delete what it could have been continued from."""
    outcome = Outcome(**frozen.user_attrs["outcome"])
    state = TrialState[outcome.state]
    book.study.tell(frozen.number, outcome.score if state == TrialState.COMPLETE else None, state=state)
    leases.drop(book.lease(frozen.number))
    resume.drop(book.training_folder(frozen.number))
