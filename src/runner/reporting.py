"""A study's history put together, its report, and, once it is judged, its findings and its card."""

import json
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from src import config, mirror
from src.errors import first_line, masked
from src.evidence import delivered, environment
from src.evidence.store import Store
from src.learning import checkpoints
from src.learning.checkpoints import BEST
from src.pages.findings import Findings
from src.pages.history import Base, Curve, History, Source
from src.paths import write_whole
from src.records import Change, State, TrialRecord
from src.runner import contenders, inspecting, timesheet
from src.runner.contenders import LineUp
from src.runner.studies import Studied
from src.search.importance import importances
from src.settings import Settings
from src.verdict.record import Verdict, recorded

FINDINGS = "findings.json"
LAYERS = "layers.json"  # in a trial's folder: how far its best weights moved
REPORTED = "reported.json"  # the history that MLflow's report is about


def written(studied: Studied, store: Store) -> str | None:
    """Write the report; what went wrong, if it did: a page that cannot be drawn is no reason for a study to fail."""
    if not studied.settings.study.report:
        return None
    try:
        return report(studied, store)
    except Exception as error:
        return f"the report could not be drawn ({type(error).__name__}: {first_line(error)})"


def report(studied: Studied, store: Store) -> str | None:
    """Write report and card onto the study's run, unless they are there and nothing has changed since.

    Before that, what is to be seen in the best trial's weights goes onto its run. A part that cannot be had is left
    out; what went wrong with it is returned.
    """
    best, verdict = studied.book.best(), recorded(studied.folder)
    problems: list[str] = []
    found = None
    with _noting(problems, "the best trial's weights could not be looked into"):
        if best is not None:
            _inspect_best(studied, best, store)
    with _noting(problems, "there is no card"):
        found = findings(studied, verdict, store) if verdict else None
    told = history(studied)
    file = studied.book.folder / REPORTED
    now = replace(told, made="").to_json() + (verdict.made if verdict else "") + str(found is None)
    if file.exists() and file.read_text() == now:
        return "; ".join(problems) or None
    seen = inspecting.validation(studied.book.training_folder(best.number), studied.corpus) if best else None
    run = mirror.study_run(studied.book)
    mirror.record_report(run, told, seen, found, verdict)
    if found:
        mirror.record_card(run, found)
    if run.deliver(store, patient=True):
        write_whole(file, now)
    return "; ".join(problems) or None


def attach(studied: Studied, verdict: Verdict, store: Store, uri: str) -> str | None:
    """Put the card beside the model behind `uri`, unless it is there; what went wrong, if it did.

    What is promoted is decided by records alone: a card that cannot be drawn is no reason to hold it up.
    """
    problems: list[str] = []
    with _noting(problems, "the version has no card with it"):
        with tempfile.TemporaryDirectory() as scratch:
            place = delivered.place_of(store, uri)
            file = delivered.attached(store, place, f"{mirror.CARD}/{mirror.FINDINGS}", Path(scratch))
            if file and Findings.from_json(file.read_text()).verdict.made == verdict.made:
                return None
        if found := findings(studied, verdict, store):
            mirror.attach_card(store, uri, found)
        else:
            problems.append("the version has no card with it: nobody looked into its weights while they were there")
    return "; ".join(problems) or None


@contextmanager
def _noting(problems: list[str], what: str) -> Iterator[None]:
    """Whatever goes wrong in the block becomes a note."""
    try:
        yield
    except Exception as error:
        problems.append(f"{what} ({type(error).__name__}: {first_line(error)})")


def _inspect_best(studied: Studied, best: TrialRecord, store: Store) -> None:
    """Look into the best trial's weights, once, and put what is seen onto its run."""
    file = studied.book.trial_folder(best.number) / LAYERS
    folder = studied.book.training_folder(best.number)
    if file.exists() or not (folder / BEST).is_dir():
        return
    run = mirror.trial_run(studied.book, best.number)
    yaml = run.read_text("config.yaml")
    settings = config.restored(yaml) if yaml else studied.settings
    seen = inspecting.inspect(settings, folder, studied.corpus, studied.paths)
    mirror.record_inspection(run, seen)
    write_whole(file, json.dumps([asdict(layer) for layer in seen.layers]))
    run.deliver(store, patient=True)


def findings(studied: Studied, verdict: Verdict, store: Store) -> Findings | None:
    """Everything about the judged search, kept in the comparison's folder: the weights go with their version.

    None where the weights to register are gone before anybody has looked into them.
    """
    file = studied.folder / FINDINGS
    if file.exists():
        kept = Findings.from_json(file.read_text())
        if kept.verdict.made == verdict.made:
            return kept
    made = _findings(studied, verdict, store)
    if made is not None:
        write_whole(file, made.to_json())
    return made


def _findings(studied: Studied, verdict: Verdict, store: Store) -> Findings | None:
    from src.runner import judging

    winner = verdict.contender(verdict.winner)
    assert winner.registered_seed is not None
    folder = contenders.repeat_folder(winner.key, winner.registered_seed, studied.folder) / contenders.TRAINING
    recipe = next((c for c in LineUp.read(studied.folder).contenders if c.key == winner.key), None)
    test = judging.analysed(studied.folder, verdict)
    if recipe is None or test is None or not (folder / BEST).is_dir():
        return None
    settings = recipe.settings(winner.registered_seed)
    seen = inspecting.inspect(settings, folder, studied.corpus, studied.paths)
    run = mirror.repeat_run(studied.book, studied.folder, winner.key, winner.name, winner.registered_seed)
    mirror.record_inspection(run, seen)
    run.deliver(store, patient=True)
    told = replace(history(studied), base=_base(settings, studied))  # the winner may start from another checkpoint
    return Findings(told, verdict, test, seen.analysis, seen.layers)


def history(studied: Studied) -> History:
    """The search as its folder tells it."""
    book, settings = studied.book, studied.settings
    study = settings.study
    trials, best = book.trials(), book.best()
    stretches = timesheet.read(book.folder)
    limits = {"budget_minutes": study.budget_minutes, "target": study.target, "patience": study.patience}
    run = mirror.study_run(book)
    return History(
        study=study.name,
        uid=studied.uid,
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        metric=study.metric,
        direction=book.direction,
        data=_source(studied),
        base=_base(settings, studied),
        space=book.space.describe(),
        default={k: v for k, v in {**settings.choices, **settings.recipe.flat()}.items() if k in book.space.describe()},
        sampler=_named(settings.sampler),
        pruner=_named(settings.pruner),
        rungs=tuple(study.rungs),
        n_trials=study.n_trials,
        limits={key: float(value) for key, value in limits.items() if value is not None},
        workers=len({s.worker for s in stretches}),
        seed=study.seed,
        trials=tuple(trials),
        curves=tuple(_curve(studied, t.number) for t in trials),
        baselines=book.baselines(),
        importances=importances(book),
        importances_by="PED-ANOVA",
        stretches=stretches,
        seconds=book.spent(),
        ending=book.enough() or "not over yet",
        best=best.number if best else None,
        changes=_layers(studied, best) if best else (),
        commands=_commands(settings, best),
        run_id=run.known_id,
        machine=environment.machine(),
        versions=environment.versions(),
        commit=environment.git_commit(),
    )


def _layers(studied: Studied, best: TrialRecord) -> tuple[Change, ...]:
    file = studied.book.trial_folder(best.number) / LAYERS
    return tuple(Change(**layer) for layer in json.loads(file.read_text())) if file.exists() else ()


def _source(studied: Studied) -> Source:
    data, corpus = studied.settings.data, studied.corpus
    place = data.path if data.path and data.path.startswith("pkg://") else data.path and Path(data.path).name
    return Source(
        name=data.name,
        place=place or str(data.hub_id),
        hub_id=None if data.path else data.hub_id,
        commit=corpus.commit,
        label_names=corpus.label_names,
        sizes=corpus.sizes,
        fingerprints=corpus.fingerprints,
        notes={what: n for what, n in corpus.notes.items() if n},
        made_from=corpus.made_from,
    )


def _base(settings: Settings, studied: Studied) -> Base:
    model = settings.recipe.model
    found = checkpoints.resolve(model, studied.paths.cache)
    name = found.folder.name if found.source == "folder" else found.id
    return Base(name, found.source, found.revision, found.fingerprint, found.megabytes, model.max_tokens)


def _named(node: dict[str, object]) -> str:
    """A sampler or pruner with its options."""
    options = ", ".join(f"{key}={value}" for key, value in node.items() if key != "_target_")
    return f"{str(node.get('_target_')).rsplit('.', 1)[-1]}({options})"


def _curve(studied: Studied, number: int) -> Curve:
    """Against training examples seen: the recorded ones at evaluations, in proportion to steps between them."""
    written = mirror.trial_run(studied.book, number).curves()
    metric = studied.settings.study.metric
    seen = written.get("train/examples", {})
    score = {**written.get(f"rung/{metric}", {}), **written.get(f"validation/{metric}", {})}
    last = max(seen, default=0)
    per_step = seen[last] / last if last else 0.0
    loss = written.get("train/loss", {})
    return Curve(
        number,
        tuple((seen[step], value) for step, value in sorted(score.items()) if step in seen),
        tuple((step * per_step, value) for step, value in sorted(loss.items())) if per_step else (),
    )


def _commands(settings: Settings, best: TrialRecord | None) -> dict[str, str]:
    name = settings.study.name
    found = {"Search, or go on searching": shlex.join(["python", "-m", "src.sweep", "-m", *settings.overrides])}
    if best is not None:
        found["Train the best settings once more"] = shlex.join(
            ["python", "-m", "src.train", *training_of(settings.overrides, best)]
        )
    found["Judge them on fresh seeds and the sealed test split"] = f"python -m src.compare study.name={name}"
    found["Register the winner"] = f"python -m src.promote study.name={name}"
    if best is not None and best.run_id and best.state == State.COMPLETE:
        found["Train the best trial again and compare every number"] = f"python -m src.reproduce run={best.run_id}"
    return {what: masked(command) for what, command in found.items()}


def training_of(overrides: tuple[str, ...], trial: TrialRecord) -> list[str]:
    """The overrides of a single training with a trial's settings, which go before those of the command line."""
    own = [o for o in of_training(overrides) if o.lstrip("+").partition("=")[0] not in trial.params]
    return [*own, *config.as_overrides(dict(trial.params))]


def of_training(overrides: tuple[str, ...]) -> list[str]:
    """The overrides that a single training reads too, without those of the search."""
    search = (
        "study.",
        "space",
        "~space",
        "+space",
        "sampler",
        "pruner",
        "storage",
        "workers",
        "launcher",
        "worker.cpus",
        "worker.gpus",
        "worker.home",
    )
    return [o for o in overrides if not o.startswith(search)]
