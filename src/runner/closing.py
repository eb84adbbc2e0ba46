"""A study after its workers have ended: records settled, the best model delivered, what came of it said."""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from src import config, mirror
from src.errors import StudyEnded, first_line, masked
from src.evidence import delivered, views
from src.evidence.runs import Run
from src.evidence.store import Store
from src.paths import write_whole
from src.records import State, TrialRecord
from src.runner import outpost, reporting
from src.runner.plan import Plan
from src.runner.studies import Studied
from src.search import life, stopping
from src.search.account import Account
from src.search.study import Book


def close(plan: Plan, book: Book, run: Run, store: Store, account: Account) -> None:
    """Settle, deliver, account. Raises StudyEnded when the study failed or is not done.

    A study that another launch still works on is left to that one.
    """
    trials = book.trials()
    if elsewhere := book.in_work():
        account.say(f"\nTrials {', '.join(map(str, elsewhere))} are in other hands; whoever has them ends the study.")
        return
    if plan.settings.worker.home is not None:
        try:
            outpost.gather(book, store)
        except OSError as error:
            raise StudyEnded(
                f"What the workers of {book.name} have kept cannot be had from {store.address}: {first_line(error)}. "
                "The same command goes on once it can."
            ) from error
    waiting = _settle_runs(book, store, trials)
    life.keep_best(book)
    reason = book.enough()
    account.result(trials, book.baselines(), book.direction)
    account.ending(reason, Counter(str(t.state) for t in trials), book.spent())
    best = book.best()
    if best is not None:
        run.tags({"best.trial": best.number, "best.score": best.score})
        uri = _deliver_best(book, run, store, best)
        waiting = waiting if uri else "its model could not be logged"
        account.best(best, config.as_overrides(dict(best.params)), _places(plan, book, store, run, best, uri))
    run.tags({"study.state": "ENDED" if reason else "INTERRUPTED", "study.ending": reason or ""})
    run.status(State.COMPLETE if reason else State.PAUSED)
    if not run.deliver(store, patient=True) or waiting:
        account.say(
            f"  note: records wait in {book.folder} ({run.problem or waiting}); the same command delivers them."
        )
    if problem := reporting.written(Studied(plan.settings, book, plan.paths), store):
        account.say(f"  note: {problem}")
    if failing := stopping.failing(book.ended(), book.rules):
        raise StudyEnded(f"The study {book.name} ended: {failing}. Tracebacks are on the runs (error.txt).")
    if not reason:
        raise StudyEnded(f"The study {book.name} is not done: its workers ended early. The same command continues it.")
    if best is not None:
        account.say(f"\nNext: python -m src.compare study.name={book.name}")


def _settle_runs(book: Book, store: Store, trials: list[TrialRecord]) -> str | None:
    """Write the ends that a killed worker could not, and deliver what waits; the problem if it cannot be."""
    problem = None
    for trial in trials:
        if State(trial.state).final:
            run = mirror.trial_run(book, trial.number)
            if not run.ended:
                mirror.record_outcome(run, trial)
            run.deliver(store, patient=True)
            problem = run.problem or problem
    for name in book.rules.baselines:
        run = mirror.baseline_run(book, name)
        run.deliver(store, patient=True)
        problem = run.problem or problem
    return problem


def _deliver_best(book: Book, run: Run, store: Store, best: TrialRecord) -> str | None:
    """Log the best trial's weights as a model, once; a model that is the best no longer is deleted. None: not yet."""
    file = book.folder / "delivered-model"
    with FileLock(book.folder / "delivered-model.lock"):  # two launches may end a study at once
        return _deliver_once(book, run, store, best, file)


def _deliver_once(book: Book, run: Run, store: Store, best: TrialRecord, file: Path) -> str | None:
    number, _, uri = file.read_text().partition(" ") if file.exists() else ("", "", "")
    if number == str(best.number):
        return uri
    trial = mirror.trial_run(book, best.number)
    try:
        new = mirror.deliver_model(store, trial, book.training_folder(best.number))
        write_whole(file, f"{best.number} {new}")
        run.tags({"best.model": new})
        if uri:
            delivered.drop_model(store, uri)
    except Exception as error:  # a store that is down or full: the weights stay where they are until the next command
        run.tags({"best.model.problem": str(error)[:500] or type(error).__name__})
        return None
    return new


def _ui(store: Store) -> str:
    """Where MLflow's UI is: at its server, or wherever one is started on a local store."""
    return (
        store.address
        if store.uri.startswith("http")
        else "python -m src.ui    or: mlflow ui, and http://127.0.0.1:5000"
    )


def _places(plan: Plan, book: Book, store: Store, run: Run, best: TrialRecord, uri: str | None) -> Mapping[str, str]:
    return {
        **({"model": uri, "load it": mirror.how_to_load(uri)} if uri else {}),
        "its run": f"{mirror.trial_run(book, best.number).known_id or 'not delivered yet'} in {store.address}",
        "study's run": run.known_id or "not delivered yet",
        **({"report": "report/report.html on the study's run"} if plan.settings.study.report else {}),
        "browse": f"{_ui(store)}/{views.path(store, mirror.view_of(book))}",
        "train it again": "python -m src.train "
        + masked(shlex.join(reporting.training_of(plan.settings.overrides, best))),
    }
