"""Runs a comparison in the launching process: plan, train, select, open the test split, evaluate, record."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from filelock import Timeout

from src.comparison import contenders, saved_study
from src.comparison.contenders import DEFAULT, Contender
from src.comparison.launch_lock import launch_lock
from src.comparison.selection import SELECTION_FILE, Selection, best_baseline, best_recipe, median_seed, select_winner
from src.console.output import StudyConsole
from src.core.cache import content_key
from src.core.errors import CommandFailed, InvalidInput
from src.core.formatting import plural
from src.core.record_files import read_json
from src.core.records import Calibration, State
from src.data import test_split
from src.tracking import recorders, registry, run_tree
from src.training import pretrained
from src.verdict.records import AVERAGE, REFIT, SINGLE, STUDENT, Verdict, load_verdict
from src.workers.worker_count import calibrations
from src.workflows.compare import evaluate, form_choice, monitor, record
from src.workflows.compare.plan import ComparisonPlan, print_plan, print_price
from src.workflows.sweep import report

Launch = Callable[
    ..., object
]  # starts so many workers on the comparison, with these overrides, and waits until they end


def compare(plan: ComparisonPlan, launch: Launch) -> Verdict | None:
    """Train, select, open the test split and evaluate, or the rest of it if an earlier command was stopped.

    One command at a time; a second one is refused.

    Raises:
        CommandFailed: workers ended early, so that the comparison is not complete.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        with launch_lock(plan.folder):
            if not plan.settings.plan_only:
                run_tree.forget_lost_runs(plan.saved_study.study, plan.store)
            settings = replace(plan.saved_study.settings, progress=plan.settings.progress)
            return _compare(plan, launch, StudyConsole(settings))
    except Timeout:
        if plan.settings.plan_only:
            _print_plan_only(plan, StudyConsole(plan.saved_study.settings))
            return None
        raise InvalidInput(
            f"The study {plan.saved_study.name} is being compared by another process; look there, or wait "
            "until it is done."
        ) from None


def _compare(plan: ComparisonPlan, launch: Launch, console: StudyConsole) -> Verdict | None:
    if standing := _valid_verdict(plan):
        console.print(
            f"The comparison of {standing.study} is done, and nothing in it has changed since {standing.made}."
        )
        if not record.is_recorded(plan.saved_study, standing):
            record.record_verdict(plan.saved_study, standing, plan.store, console)
        _write_report(plan, console)
        evaluate.print_verdict(standing, evaluate.test_errors(plan.folder, standing), console)
        return standing
    print_plan(plan, console)
    expected = None
    if plan.remaining():
        if len(speed_measured(plan)) < plan.workers:
            launch(plan.workers, "compare.plan_only=true")  # workers measure their speed, and end
        expected = print_price(plan, console, speed_measured(plan))
    if plan.settings.plan_only:
        console.print("  compare.plan_only=true: nothing was trained, and the test split stays sealed.")
        return None
    selection = _train_and_select(plan, launch, console, expected)
    console.print(f"Opening {selection.opening} of the test split.")
    if not evaluate.all_answered(selection):
        launch(plan.workers)
    if not evaluate.all_answered(selection):
        raise CommandFailed(
            "Predictions on the test split are missing: workers ended early. The same command continues."
        )
    verdict = evaluate.evaluate(plan.saved_study, selection, plan.settings.margin, plan.registry)
    record.record_verdict(plan.saved_study, verdict, plan.store, console)
    _write_report(plan, console)
    evaluate.print_verdict(verdict, evaluate.test_errors(plan.folder, verdict), console)
    return verdict


def _train_and_select(plan: ComparisonPlan, launch: Launch, console: StudyConsole, expected: float | None) -> Selection:
    """Train what is left, select the winner and its form, and open the test split. `expected`: seconds of the rest."""
    _prepare(plan)
    if plan.remaining():
        with monitor.ComparisonMonitor(plan, console, contenders.seed_runs(plan.contenders, plan.folder), expected):
            launch(plan.workers)
    _restore_ledger(plan, console)
    selection = Selection.read(plan.folder, plan.contenders) or _select(plan)
    best = f"Best of {len(plan.contenders.candidates)} on fresh-seed validation: {selection.winner}."
    console.print(f"\n{f'{selection.winner}: {plan.contenders.pick}.' if plan.contenders.pick else best}")
    if not selection.is_opened:
        _make_forms(plan, selection, launch, console)
        selection = _open(plan, selection)
    if selection.form_reason:
        console.print(f"To register: {selection.delivered}, since {selection.form_reason}.")
    return selection


def _print_plan_only(plan: ComparisonPlan, console: StudyConsole) -> None:
    """Print the plan of a comparison that another process is running. Nothing is measured meanwhile."""
    print_plan(plan, console)
    if plan.remaining() and (calibrations_found := speed_measured(plan)):
        print_price(plan, console, calibrations_found)
    console.print("  It is being compared by another process; compare.plan_only=true: nothing was done here.")


def _write_report(plan: ComparisonPlan, console: StudyConsole) -> None:
    if plan.saved_study.settings.study.report:
        problem = report.try_write_report(plan.saved_study, plan.store)
        console.print(f"  note: {problem}" if problem else "\nOn the study's run: report/report.html, card/README.md")


def speed_measured(plan: ComparisonPlan) -> list[Calibration]:
    """The calibrations that the workers of this comparison have measured."""
    saved = plan.saved_study
    return calibrations(saved.paths, saved.settings, saved.dataset.fingerprint, plan.workers)


def _valid_verdict(plan: ComparisonPlan) -> Verdict | None:
    """The stored verdict, if nothing has changed since. Promoting its winner does not count as a change."""
    verdict = load_verdict(plan.folder)
    if verdict is None or (verdict.registry, verdict.margin) != (plan.registry, plan.settings.margin):
        return None
    keys = [plan.contenders.key_without_champion]
    if plan.contenders.deliver == "auto":  # a verdict of an earlier version, which knew single trainings only, stands
        keys.append(replace(plan.contenders, forms=(SINGLE,)).key_without_champion)
    if verdict.key not in keys:
        return None
    champion = plan.contenders.champion
    if (champion.key if champion else "") == verdict.champion_key:
        return verdict
    version = registry.find_version(plan.store, plan.registry, champion.version) if champion else None
    is_registered = version is not None and version.tags.get(registry.SEED_RUN_TAG) == record.registered_name(verdict)
    return verdict if is_registered else None


def _prepare(plan: ComparisonPlan) -> None:
    """Create the contenders' runs, write the contenders for the workers, and clear failed seed runs for another try."""
    plan.contenders.write(plan.folder)
    for seed_run in plan.remaining():
        (seed_run.folder / "outcome.json").unlink(missing_ok=True)
    _create_runs(plan, plan.contenders.contenders)


def _create_runs(plan: ComparisonPlan, created: Sequence[Contender]) -> None:
    """Create the runs of contenders. Raises InvalidInput if MLflow does not take them."""
    for contender in created:
        run = run_tree.contender_run(plan.saved_study.study, plan.folder, contender.key, contender.name)
        run.set_status(State.RUNNING)
        facts = recorders.common_tags(plan.saved_study.dataset, plan.saved_study.name)
        run.set_tags({**facts, "kind": "contender", "contender": contender.name, "contender.key": contender.key})
        if contender.form != SINGLE:
            run.set_tags({"form": contender.form})
            recorders.record_config(run, contender.settings())
        if contender.is_recipe:
            model = contender.settings().recipe.model
            run.set_tags(recorders.weights_tags(pretrained.resolve(model, plan.saved_study.paths.cache_dir)))
        if not run.send_to(plan.store, retry_now=True):
            raise InvalidInput(f"The MLflow store at {plan.store.address} does not take records: {run.problem}")


def _restore_ledger(plan: ComparisonPlan, console: StudyConsole) -> None:
    """Make openings of this test split again that the ledger has lost, from the comparisons in this project."""
    saved, known, openings = plan.saved_study, dict[int, str](), 0
    split = saved.dataset.fingerprints["test"]
    for name in saved_study.study_names(saved.paths):
        folder = saved.paths.comparison_dir(name)
        verdict = load_verdict(folder)
        if name == saved.name or (verdict and verdict.fingerprints.get("test") == split):
            chosen = read_json(folder / SELECTION_FILE, {})
            known[int(chosen.get("opening", 0))] = str(chosen.get("key", ""))
            openings = max(openings, int(chosen.get("opening", 0)), verdict.openings if verdict else 0)
    ledger = saved.paths.test_openings_path(split)
    if restored := test_split.restore_ledger(ledger, known, openings):
        console.print(
            f"  note: {ledger}, which counts the openings of this test split, was damaged or lost: "
            f"{plural(restored, 'opening')} of {openings} made again from this project's verdicts."
        )


def _select(plan: ComparisonPlan) -> Selection:
    """Select the winner. The test split stays sealed."""
    left = [r for r in contenders.seed_runs(plan.contenders, plan.folder) if r.result() is None]
    if left:
        raise CommandFailed(f"{len(left)} trainings are not done: workers ended early. The same command goes on.")
    metric, comparison = plan.saved_study.settings.study.metric, plan.contenders
    chosen = select_winner(comparison, plan.folder, metric)
    key = content_key(plan.saved_study.uid, comparison.key, chosen)
    tuned = best_recipe(comparison.tuned_recipes, comparison, plan.folder, metric)
    baseline = best_baseline(comparison, metric)
    seed = median_seed(next(c for c in comparison.recipes if c.name == chosen), comparison, plan.folder)
    selection = Selection(comparison, plan.folder, chosen, tuned, baseline, 0, key, seed, forms=comparison.forms)
    selection.write()
    return selection


def _make_forms(plan: ComparisonPlan, selection: Selection, launch: Launch, console: StudyConsole) -> None:
    """Refit the winner, and judge averages of seed runs on validation.

    Raises:
        CommandFailed: workers ended early.
    """
    _create_runs(plan, [form.contender for form in selection.averaged_forms])
    if selection.contenders.deliver in (REFIT, STUDENT):
        for failed in form_choice.failed_trainings(selection, selection.contenders.deliver):
            (failed.folder / "outcome.json").unlink(missing_ok=True)
    if not _forms_are_made(selection):
        if selection.trainings_of(REFIT):
            sizes = plan.saved_study.dataset.sizes
            which = "It is" if selection.winning_recipe.kind == DEFAULT else "It and the default recipe are"
            n_texts = sizes["train"] + sizes["validation"]
            console.print(f"{which} trained again on train + validation, {n_texts} texts.")
        if selection.trainings_of(STUDENT):
            console.print(f"Students learn from its answers to {plan.saved_study.settings.data.unlabelled}, too.")
        with monitor.ComparisonMonitor(plan, console, selection.further_trainings):
            launch(plan.workers)
    if not _forms_are_made(selection):
        raise CommandFailed("Refits or averages are not done: workers ended early. The same command continues.")


def _forms_are_made(selection: Selection) -> bool:
    judged = [form for form in selection.averaged_forms if form.contender.form == AVERAGE]
    return all(form.validation_probabilities_path.exists() for form in judged) and all(
        run.result() is not None for run in selection.further_trainings
    )


def _open(plan: ComparisonPlan, selection: Selection) -> Selection:
    """Choose the form that is registered, and record that the test split is opened."""
    selection = replace(selection, thresholds=form_choice.choose_thresholds(plan.saved_study, selection))
    form, reason = form_choice.choose_form(plan.saved_study, selection)
    made = tuple(form for form in selection.forms if not form_choice.failed_trainings(selection, form))
    comparison, dataset = plan.contenders, plan.saved_study.dataset
    facts = {
        "study": plan.saved_study.name, "winner": selection.winner, "form": form,
        "contenders": [c.name for c in comparison.contenders], "seeds": list(comparison.seeds),
    }  # fmt: skip
    opening = test_split.open_test_split(
        dataset, plan.saved_study.paths.test_openings_path(dataset.fingerprints["test"]), selection.key, facts
    )
    opened = replace(selection, opening=opening.number, form=form, forms=made, form_reason=reason)
    opened.write()
    return opened
