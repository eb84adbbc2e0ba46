"""A comparison, in the launching process: line up, price, train, choose, open the test split, judge, record."""

from collections.abc import Callable
from dataclasses import replace

from filelock import Timeout

from src import mirror
from src.errors import Refusal, StudyEnded, first_line
from src.evidence import registry
from src.evidence.registry import Version
from src.evidence.store import Store, open_store
from src.learning import checkpoints, classify, ready_made
from src.paths import Paths
from src.records import Calibration, State
from src.runner import contenders, judging, pace, reporting, studies, telling
from src.runner.choice import Choice, best_baseline, best_of, median_seed, winner
from src.runner.contenders import CHAMPION, DEFAULT, Contender, LineUp
from src.runner.pace import calibrations
from src.runner.plan import machine_for
from src.runner.studies import Studied
from src.runner.telling import ComparePlan
from src.search.account import Account
from src.settings import ComparisonSettings
from src.text import seal
from src.text.corpus import content_key
from src.verdict.record import Verdict, recorded

Launch = Callable[..., object]  # start so many workers on the comparison (with these overrides), and wait for their end


def check(asked: ComparisonSettings, paths: Paths) -> ComparePlan:
    """Everything that can be refused is refused here, before anything is trained."""
    studied = studies.load(asked.study, paths)
    line_up = contenders.line_up(studied, asked)
    store = open_store(studied.settings.tracking, paths.root)
    model = asked.registry or studied.registry
    if now := registry.by_alias(store, model, registry.CHAMPION):
        line_up = line_up.with_champion(_champion(store, now, studied))
    _check_checkpoints(studied, line_up)
    machine = machine_for(studied.settings)
    trainings = len(line_up.recipes) * len(line_up.seeds)
    workers = asked.workers or pace.auto(studied.settings, studied.paths, studied.corpus, machine, trainings)
    return ComparePlan(asked, studied, line_up, workers, store, model)


def compare(plan: ComparePlan, launch: Launch) -> Verdict | None:
    """Train, choose, open, judge, or what is left of it. Raises StudyEnded when it cannot be brought to an end.

    One launch at a time: another one is refused.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        with contenders.launch_lock(plan.folder):
            settings = replace(plan.studied.settings, progress=plan.asked.progress)
            return _compare(plan, launch, Account(settings))
    except Timeout:
        if plan.asked.plan_only:
            _told(plan, Account(plan.studied.settings))
            return None
        raise Refusal(
            f"The study {plan.studied.name} is being compared by another process; look there, or wait until it is done."
        ) from None


def _compare(plan: ComparePlan, launch: Launch, account: Account) -> Verdict | None:
    if standing := _standing(plan):
        account.say(f"The comparison of {standing.study} is done, and nothing in it has changed since {standing.made}.")
        if not judging.on_record(plan.folder, standing):
            judging.record(plan.studied, standing, plan.store, account)
        _present(plan, account)
        judging.say(standing, account)
        return standing
    telling.plan(plan, account)
    expected = None
    if plan.todo():
        if len(measured(plan)) < plan.workers:
            launch(plan.workers, "compare.plan_only=true")  # workers measure their speed, and end
        expected = telling.price(plan, account, measured(plan))
    if plan.asked.plan_only:
        account.say("  compare.plan_only=true: nothing was trained, and the test split stays sealed.")
        return None
    _prepare(plan)
    if plan.todo():
        with telling.Watch(plan, account, expected):
            launch(plan.workers)
    choice = Choice.read(plan.folder, plan.line_up) or _choose(plan)
    among = len(plan.line_up.candidates)
    account.say(
        f"\nBest of {among} on fresh-seed validation: {choice.winner}. Opening {choice.opening} of the test split."
    )
    if not judging.answered(choice):
        launch(plan.workers)
    if not judging.answered(choice):
        raise StudyEnded("Not everybody has answered the test split: workers ended early. The same command goes on.")
    verdict = judging.judge(plan.studied, choice, plan.asked.margin, plan.registry)
    judging.record(plan.studied, verdict, plan.store, account)
    _present(plan, account)
    judging.say(verdict, account)
    return verdict


def _told(plan: ComparePlan, account: Account) -> None:
    """The plan of a comparison that another process is at: nothing is measured beside it."""
    telling.plan(plan, account)
    if plan.todo() and (found := measured(plan)):
        telling.price(plan, account, found)
    account.say("  It is being compared by another process; compare.plan_only=true: nothing was done here.")


def _present(plan: ComparePlan, account: Account) -> None:
    if plan.studied.settings.study.report:
        problem = reporting.written(plan.studied, plan.store)
        account.say(f"  note: {problem}" if problem else "\nOn the study's run: report/report.html, card/README.md")


def measured(plan: ComparePlan) -> list[Calibration]:
    studied = plan.studied
    return calibrations(studied.paths, studied.settings, studied.corpus.fingerprint, plan.workers)


def _champion(store: Store, version: Version, studied: Studied) -> Contender:
    """The champion as a contender. Raises Refusal if it answers with other labels than the study's data have."""
    try:
        labels = classify.label_names(registry.load(store, version.uri))
    except Exception as error:  # MLflow raises what it likes; a model of another kind is no contender
        raise Refusal(
            f"The champion, version {version.number} of {version.model}, cannot be loaded as a transformers "
            f"classifier, so nothing can be compared with it: {first_line(error)}. Compare under another "
            "name: registry.model=<name>."
        ) from error
    if set(labels) != set(studied.corpus.label_names):
        raise Refusal(
            f"The champion, version {version.number} of {version.model}, answers with {', '.join(labels)}; the data of "
            f"{studied.name} have the labels {', '.join(studied.corpus.label_names)}. Compare under another name: "
            "registry.model=<name>."
        )
    before = version.tags.get("data.fingerprint.test")
    here = studied.corpus.fingerprints["test"]
    note = "" if before == here else (
        f"was made with another test split ({before or 'none on record'}, here {here}): it may have been trained on "
        "these test examples, which would favour it"
    )  # fmt: skip
    about = f"{version.model} version {version.number}"
    return Contender(CHAMPION, CHAMPION, version.key, about, uri=version.uri, version=version.number, note=note)


def _check_checkpoints(studied: Studied, line_up: LineUp) -> None:
    """Whether every recipe's checkpoint can be had, and the study's own is the one that was searched with."""
    if any(c.name == "ready_made" for c in line_up.fixed):
        ready_made.checked(studied.settings, studied.paths.cache)
    for contender in line_up.recipes:
        found = checkpoints.resolve(contender.settings().recipe.model, studied.paths.cache)
        searched = studied.book.study.user_attrs["definition"]["weights"]
        if contender.kind == DEFAULT and found.fingerprint != searched:
            raise Refusal(
                f"The weights of {found.id} in {found.folder} have changed since {studied.name} was searched: their "
                f"fingerprint was {searched} and is {found.fingerprint}. Put the old ones back, or search again."
            )


def _standing(plan: ComparePlan) -> Verdict | None:
    """The verdict that there is, if nothing has changed since; that its winner became the champion is no change."""
    verdict = recorded(plan.folder)
    asked = (plan.registry, plan.asked.margin, plan.line_up.base)
    if verdict is None or (verdict.registry, verdict.margin, verdict.key) != asked:
        return None
    champion = plan.line_up.champion
    if (champion.key if champion else "") == verdict.champion_key:
        return verdict
    version = registry.version(plan.store, plan.registry, champion.version) if champion else None
    own = version is not None and version.tags.get(registry.REPEAT) == judging.registered_name(verdict)
    return verdict if own else None


def _prepare(plan: ComparePlan) -> None:
    """Runs for the contenders, the line-up for the workers; failed trainings are cleared for another try."""
    plan.line_up.write(plan.folder)
    for repeat in plan.todo():
        (repeat.folder / "outcome.json").unlink(missing_ok=True)
    for contender in plan.line_up.contenders:
        run = mirror.contender_run(plan.studied.book, plan.folder, contender.key, contender.name)
        run.status(State.RUNNING)
        facts = mirror.facts(plan.studied.corpus, plan.studied.name)
        run.tags({**facts, "kind": "contender", "contender": contender.name, "contender.key": contender.key})
        if contender.trained:
            model = contender.settings().recipe.model
            run.tags(mirror.origin(checkpoints.resolve(model, plan.studied.paths.cache)))
        if not run.deliver(plan.store, patient=True):
            raise Refusal(f"The MLflow store at {plan.store.address} does not take records: {run.problem}")


def _choose(plan: ComparePlan) -> Choice:
    """Choose, and enter the opening of the test split; a choice that was made stands."""
    left = [r for r in contenders.repeats(plan.line_up, plan.folder) if r.outcome() is None]
    if left:
        raise StudyEnded(f"{len(left)} trainings are not done: workers ended early. The same command goes on.")
    metric, line_up, corpus = plan.studied.settings.study.metric, plan.line_up, plan.studied.corpus
    chosen = winner(line_up, plan.folder, metric)
    key = content_key(plan.studied.uid, line_up.key, chosen)
    facts = {
        "study": plan.studied.name, "winner": chosen, "contenders": [c.name for c in line_up.contenders],
        "seeds": list(line_up.seeds),
    }  # fmt: skip
    opening = seal.open_test(corpus, plan.studied.paths.openings(corpus.fingerprints["test"]), key, facts)
    tuned = best_of(line_up.tuned, line_up, plan.folder, metric)
    baseline = best_baseline(line_up, metric)
    seed = median_seed(next(c for c in line_up.recipes if c.name == chosen), line_up, plan.folder)
    choice = Choice(line_up, plan.folder, chosen, tuned, baseline, opening.number, key, seed)
    choice.write()
    return choice
