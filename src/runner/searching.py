"""A search, in the launching process: plan, launch, account, deliver."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from src import mirror
from src.errors import Refusal, masked
from src.evidence.runs import Run
from src.evidence.store import Store, open_store, tracking_uri
from src.learning import devices
from src.records import State
from src.runner import closing, joining, outpost, pace, studies
from src.runner.plan import Plan, facts, machine_for, say_price
from src.runner.watch import Watch
from src.search import life
from src.search.account import Account, minutes
from src.search.study import DEFAULT_RECIPE, Book

Launch = Callable[[int], object]  # start so many workers on the study, and return when they have ended


def search(plan: Plan, launch: Launch) -> None:
    """Run the study, or what is left of it. Raises StudyEnded when it cannot usefully go on."""
    settings = plan.settings
    account = Account(settings)
    begun = plan.begun()
    ended = len(begun.ended()) if begun else 0
    account.plan(plan.space, plan.workers, {**facts(plan), **(standing(begun) if begun else {})}, ended)
    for warning in (*plan.warnings, *(moved(plan, begun) if begun else ())):
        account.say(f"  note: {warning}")
    if not studies.known(plan.paths):  # who did not mean this folder sees it here
        where = masked(tracking_uri(settings.tracking, plan.paths.root))
        account.say(f"  note: no study is here yet; this one goes to {plan.folder.parents[1]}, its runs to {where}")
    if settings.study.plan_only:
        say_price(_paced(plan, account, launch), account, ended)
        account.say("  study.plan_only=true: nothing was trained.")
        return
    store = open_store(settings.tracking, plan.paths.root)
    book = plan.book()
    book.create(plan.definition)
    studies.remember(settings, book.folder)
    joining.note(book, settings)
    run = _study_run(plan, book, store)
    if not (book.enough() and not book.unfinished() and _baselines_done(book)):
        if settings.worker.home is not None:
            outpost.send(settings, plan.corpus, plan.models, book, run, store)
        try:
            with life.kept(files_too=False), Watch(plan, book, run, store, account):
                launch(plan.workers)
        except KeyboardInterrupt:
            run.tags({"study.state": "INTERRUPTED"})
            run.status(State.PAUSED)
            run.deliver(store, patient=True)
            raise
    with life.kept(files_too=False):
        closing.close(plan, book, run, store, account)


def standing(book: Book) -> dict[str, str]:
    """Where a study stands that the command goes on with: what is half done, and what others are at."""
    held, said = book.in_work(), {}
    waiting = [t for t in book.trials() if not State(t.state).final and t.number not in held]
    if waiting:
        where = [f"{t.number} after {t.rung} %" if t.rung else f"{t.number} from its beginning" for t in waiting]
        said["goes on"] = f"trial{'s' * (len(where) > 1)} {', '.join(where)}; {minutes(book.spent())} searched so far"
    if held:
        trials = f"trial{'s' * (len(held) > 1)} {', '.join(map(str, held))}"
        said["in work"] = f"{trials}, in other hands: the study is being searched, and this command adds workers to it"
    return said


def moved(plan: Plan, book: Book) -> Iterator[str]:
    """Values given now for what is searched: they are the default recipe's, which has its trial already."""
    first = next((t.params for t in book.trials() if t.origin == DEFAULT_RECIPE), {})
    for key, value in plan.space.default().items():
        if key in first and first[key] != value:
            yield (
                f"{key}={value} changes nothing here: it is searched, and the default recipe has been tried with "
                f"{first[key]}. To try it: study.enqueue, or another study.name."
            )


def _paced(plan: Plan, account: Account, launch: Launch) -> Plan:
    """The plan with its speed measured; with workers=auto, with the count of workers that gets through most."""
    settings = plan.settings
    if settings.worker.home is not None:
        return plan
    if settings.workers:
        if not pace.measured(settings, plan.paths, plan.corpus, plan.workers):
            launch(plan.workers)
        return plan
    machine = devices.with_memory(machine_for(settings))
    found = pace.measure(settings, plan.paths, plan.corpus, machine, launch)
    workers = pace.best(found)
    account.pace(found, workers)
    return replace(plan, workers=workers)


def _study_run(plan: Plan, book: Book, store: Store) -> Run:
    """The parent of all runs of the study."""
    study = plan.settings.study
    run = mirror.study_run(book)
    if not run.described:
        mirror.describe(run, plan.settings)
        run.params({f"space.{k}": v for k, v in plan.space.describe().items()})
        run.params({"study.metric": study.metric, "study.direction": plan.direction, "study.seed": study.seed})
    run.tags({**mirror.facts(plan.corpus, study.name), "kind": "study", "study.state": "RUNNING"})
    run.tags(mirror.origin(plan.checkpoint))
    run.status(State.RUNNING)
    if not run.deliver(store, patient=True):
        raise Refusal(f"The MLflow store at {store.address} does not take records: {run.problem}")
    mirror.experiment_file(book.folder).write_text(store.experiment_id)
    with suppress(Exception):  # a store that takes runs and no views: the study does without
        mirror.save_view(store, book)
    return run


def _baselines_done(book: Book) -> bool:
    return set(book.baselines()) == set(book.rules.baselines)
