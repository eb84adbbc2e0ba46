"""Writes a study's report, and, once it has a verdict, its model card."""

import json
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from src.comparison.contenders import Contenders, config_of
from src.comparison.saved_study import SavedStudy
from src.config import compose
from src.config.settings import Settings
from src.core.errors import first_line, mask_secrets
from src.core.paths import atomic_write
from src.core.record_files import read_record, without_schema, write_json
from src.core.records import State, TrialRecord, WeightChange
from src.reports.search_record import DataSource, JudgedSearch, SearchRecord, StartingModel, TrialCurve
from src.search import screening
from src.search.importance import importances
from src.tracking import environment, logged_model, recorders, run_tree
from src.tracking.store import TrackingStore
from src.training import pretrained
from src.training.pretrained import BEST_DIR
from src.verdict.records import SINGLE, Verdict, load_verdict
from src.workers import timeline
from src.workflows.sweep import average, weight_inspection

FINDINGS_FILE = "findings.json"
LAYERS_FILE = "layers.json"  # in a trial's folder: how far its best weights have moved from the checkpoint
REPORTED_FILE = "reported.json"  # the search record that the report in MLflow was made from


def try_write_report(saved: SavedStudy, store: TrackingStore) -> str | None:
    """Write the report. Returns the problem, if any: a study does not fail because a page cannot be drawn."""
    if not saved.settings.study.report:
        return None
    try:
        return write_report(saved, store)
    except Exception as error:
        return f"the report could not be drawn ({type(error).__name__}: {first_line(error)})"


def write_report(saved: SavedStudy, store: TrackingStore) -> str | None:
    """Write report and card to the study's run, unless they are there and nothing has changed since.

    The analysis of the best trial's weights goes to that trial's run first. A part that cannot be made is left out, and
    the problem is returned.
    """
    best, verdict = saved.study.best_trial(), load_verdict(saved.comparison_dir)
    problems: list[str] = []
    judged = None
    with _collect_problem(problems, "the best trial's weights could not be analysed"):
        if best is not None:
            _inspect_best(saved, best, store)
    with _collect_problem(problems, "there is no card"):
        judged = judged_search(saved, verdict, store) if verdict else None
    record = search_record(saved)
    file = saved.study.folder / REPORTED_FILE
    now = replace(record, made="").to_json() + (verdict.made if verdict else "") + str(judged is None)
    if read_record(file, str) == now:
        return "; ".join(problems) or None
    seen = (
        weight_inspection.validation_errors(saved.study.training_folder(best.number), saved.dataset) if best else None
    )
    run = run_tree.study_run(saved.study)
    recorders.record_report(run, record, seen, judged, verdict)
    if judged:
        recorders.record_card(run, judged)
    if run.send_to(store, retry_now=True):
        atomic_write(file, now)
    return "; ".join(problems) or None


def attach_card(saved: SavedStudy, verdict: Verdict, store: TrackingStore, uri: str) -> str | None:
    """Add the card to the model `uri`, unless it is there. Returns the problem, if any.

    A card that cannot be drawn does not stop a promotion.
    """
    problems: list[str] = []
    with _collect_problem(problems, "the version has no card with it"):
        with tempfile.TemporaryDirectory() as scratch:
            location = logged_model.artifact_location(store, uri)
            file = logged_model.download_attached(
                store, location, f"{recorders.CARD_DIR}/{recorders.FINDINGS_FILE}", Path(scratch)
            )
            if file and JudgedSearch.from_json(file.read_text(encoding="utf-8")).verdict.made == verdict.made:
                return None
        if judged := judged_search(saved, verdict, store):
            recorders.attach_card(store, uri, judged)
        else:
            problems.append("the version has no card with it: its weights were gone before they were analysed")
    return "; ".join(problems) or None


@contextmanager
def _collect_problem(problems: list[str], what: str) -> Iterator[None]:
    """Append a message to `problems` if the block raises, instead of raising."""
    try:
        yield
    except Exception as error:
        problems.append(f"{what} ({type(error).__name__}: {first_line(error)})")


def _inspect_best(saved: SavedStudy, best: TrialRecord, store: TrackingStore) -> None:
    """Analyse the best trial's weights, once, and write the result to its run."""
    file = _layers_file(saved, best)
    folder = saved.study.training_folder(best.number)
    if file.exists() or not (folder / BEST_DIR).is_dir():
        return
    yaml = config_of(saved, best)
    settings = compose.restore_settings(yaml) if yaml else saved.settings
    # the run of an inherited trial belongs to another study
    run = run_tree.study_run(saved.study) if best.is_inherited else run_tree.trial_run(saved.study, best.number)
    seen = weight_inspection.inspect_weights(settings, folder, saved.dataset, saved.paths)
    recorders.record_inspection(run, seen)
    write_json(file, {"layers": [asdict(layer) for layer in seen.layers]})
    run.send_to(store, retry_now=True)


def _layers_file(saved: SavedStudy, best: TrialRecord) -> Path:
    """The file with how far the best trial's weights have moved, in the folder of this study."""
    if best.is_inherited:
        return saved.study.inherited_config_path(best.number).with_suffix(".layers.json")
    return saved.study.trial_folder(best.number) / LAYERS_FILE


def judged_search(saved: SavedStudy, verdict: Verdict, store: TrackingStore) -> JudgedSearch | None:
    """Everything that card and report say about a search with a verdict, stored in the comparison's folder.

    None if the weights to register are gone and have not been analysed.
    """
    file = saved.comparison_dir / FINDINGS_FILE
    if file.exists():
        kept = read_record(file, JudgedSearch.from_json)
        if kept and kept.verdict.made == verdict.made:
            return kept
    judged = _make_judged_search(saved, verdict, store)
    if judged is not None:
        atomic_write(file, judged.to_json())
    return judged


def _make_judged_search(saved: SavedStudy, verdict: Verdict, store: TrackingStore) -> JudgedSearch | None:
    from src.workflows.compare import evaluate, record

    winner = verdict.contender(verdict.winner)
    folder = record.registered_training_dir(verdict, saved.comparison_dir)
    key = verdict.recipe_of(verdict.winner).key
    recipe = next((c for c in Contenders.read(saved.comparison_dir).contenders if c.key == key), None)
    test = evaluate.test_errors(saved.comparison_dir, verdict)
    if recipe is None or test is None or not (folder / BEST_DIR).is_dir():
        return None
    settings = recipe.settings(winner.registered_seed)
    seen = weight_inspection.inspect_weights(settings, folder, saved.dataset, saved.paths, head=winner.form == SINGLE)
    run = record.registered_run(saved, verdict)
    recorders.record_inspection(run, seen)
    run.send_to(store, retry_now=True)
    # the winner may start from another checkpoint
    search = replace(search_record(saved), base=_starting_model(settings, saved))
    return JudgedSearch(search, verdict, test, seen.analysis, seen.layers)


def search_record(saved: SavedStudy) -> SearchRecord:
    """The record of the search, read from its folder."""
    study, settings = saved.study, saved.settings
    study_settings = settings.study
    trials, best = study.trials(), study.best_trial()
    entries = timeline.read_timeline(study.folder)
    run = run_tree.study_run(study)
    return SearchRecord(
        study=study_settings.name,
        uid=saved.uid,
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        metric=study_settings.metric,
        direction=study.direction,
        data=_data_source(saved),
        base=_starting_model(settings, saved),
        space=study.space.describe(),
        default={k: v for k, v in settings.flatten().items() if k in study.space.describe()},
        sampler=_describe_target(settings.sampler),
        pruner=_describe_target(settings.pruner),
        rungs=tuple(study_settings.rungs),
        n_trials=study.limits().n_trials,
        limits=study.limits().limits,
        average=average.load_average(study),
        objectives=study_settings.objectives if study_settings.has_several_objectives else (),
        front=tuple(t.number for t in study.front()) if study_settings.has_several_objectives else (),
        constraints=study_settings.constraint_texts,
        screening=screening.read_results(study.folder),
        workers=len({s.worker for s in entries}),
        seed=study_settings.seed,
        trials=tuple(trials),
        curves=tuple(_curve(saved, t.number) for t in trials),
        baselines=study.baseline_results(),
        importances=importances(study),
        importances_by="PED-ANOVA",
        stretches=entries,
        seconds=study.seconds_spent(),
        ending=study.end_reason() or "not over yet",
        best=best.number if best else None,
        changes=_layers(saved, best) if best else (),
        commands=_commands(settings, best),
        run_id=run.known_run_id,
        machine=environment.machine(),
        versions=environment.versions(),
        commit=environment.git_commit(),
        code=settings.code_argument,
    )


def _layers(saved: SavedStudy, best: TrialRecord) -> tuple[WeightChange, ...]:
    def parse(text: str) -> tuple[WeightChange, ...]:
        stored = json.loads(text)
        layers = stored if isinstance(stored, list) else without_schema(stored)["layers"]  # a list: of schema 1
        return tuple(WeightChange(**layer) for layer in layers)

    return read_record(_layers_file(saved, best), parse) or ()


def _data_source(saved: SavedStudy) -> DataSource:
    data, dataset = saved.settings.data, saved.dataset
    place = data.path if data.path and data.path.startswith("pkg://") else data.path and Path(data.path).name
    return DataSource(
        name=data.name,
        place=data.loader or place or str(data.hub_id),
        hub_id=None if data.path else data.hub_id,
        commit=dataset.commit,
        label_names=dataset.label_names,
        sizes=dataset.sizes,
        fingerprints=dataset.fingerprints,
        notes={what: n for what, n in dataset.notes.items() if n},
        made_from=dataset.made_from,
        text_columns=dataset.text_columns,
    )


def _starting_model(settings: Settings, saved: SavedStudy) -> StartingModel:
    model = settings.recipe.model
    checkpoint = pretrained.resolve(model, saved.paths.cache_dir)
    name = checkpoint.folder.name if checkpoint.source == "folder" else checkpoint.id
    return StartingModel(
        name, checkpoint.source, checkpoint.revision, checkpoint.fingerprint, checkpoint.megabytes, model.max_tokens
    )


def _describe_target(node: dict[str, object]) -> str:
    """The name of a sampler or pruner with its options."""
    options = ", ".join(f"{key}={value}" for key, value in node.items() if key != "_target_")
    return f"{str(node.get('_target_')).rsplit('.', 1)[-1]}({options})"


def _curve(saved: SavedStudy, number: int) -> TrialCurve:
    """A trial's curve over training examples seen: as recorded at evaluations, interpolated by steps between them."""
    written = run_tree.trial_run(saved.study, number).read_curves()
    metric = saved.settings.study.metric
    seen = written.get("train/examples", {})
    score = {**written.get(f"rung/{metric}", {}), **written.get(f"validation/{metric}", {})}
    last = max(seen, default=0)
    per_step = seen[last] / last if last else 0.0
    loss = written.get("train/loss", {})
    return TrialCurve(
        number,
        tuple((seen[step], value) for step, value in sorted(score.items()) if step in seen),
        tuple((step * per_step, value) for step, value in sorted(loss.items())) if per_step else (),
    )


def _commands(settings: Settings, best: TrialRecord | None) -> dict[str, str]:
    name, code = settings.study.name, settings.code_argument
    commands = {"Search, or continue the search": shlex.join(["python", "-m", "src.sweep", "-m", *settings.overrides])}
    if best is not None:
        commands["Train the best settings once more"] = shlex.join(
            ["python", "-m", "src.train", *trial_overrides(settings.overrides, best)]
        )
    commands["Judge them on fresh seeds and the sealed test split"] = settings.compare_command
    commands["Register the winner"] = f"python -m src.promote study.name={name}"
    if best is not None and best.run_id and best.state == State.COMPLETE:
        commands["Train the best trial again and compare every number"] = (
            f"python -m src.reproduce run={best.run_id}{code}"
        )
    return {what: mask_secrets(command) for what, command in commands.items()}


def trial_overrides(overrides: tuple[str, ...], trial: TrialRecord) -> list[str]:
    """The overrides of a single training with a trial's settings. Those of the command line come first."""
    not_searched = [o for o in training_overrides(overrides) if o.lstrip("+").partition("=")[0] not in trial.params]
    return [*not_searched, *compose.to_overrides(dict(trial.params))]


def training_overrides(overrides: tuple[str, ...]) -> list[str]:
    """The overrides that a single training reads too, without those of the search."""
    search = (
        "study.",
        "space",
        "sampler",
        "pruner",
        "screening.",
        "storage",
        "workers",
        "launcher",
        "worker.cpus",
        "worker.gpus",
        "worker.home",
    )
    return [o for o in overrides if not o.lstrip("+~").startswith(search) or o.startswith("study.metric=")]
