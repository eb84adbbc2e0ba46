"""What of a study and its trainings goes into MLflow's runs, and under which names."""

import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.errors import masked
from src.evidence import delivered, environment, recorded, views
from src.evidence.runs import Run, Table
from src.evidence.store import Store
from src.learning.checkpoints import BEST, Checkpoint
from src.pages.analysis import Analysis
from src.pages.findings import Findings, Inspected
from src.pages.history import History
from src.records import Change, Outcome, State, TrialRecord
from src.search.study import Book
from src.settings import Settings
from src.text.corpus import Corpus
from src.verdict import tables
from src.verdict.record import ContenderRecord, Verdict

CARD, FINDINGS = "card", "findings.json"  # of a judged study: on its run, and beside its version's model


def study_run(book: Book) -> Run:
    """The parent of all runs of the study."""
    return Run(book.folder / "run", f"{_uid(book)}/study", book.name)


def trial_run(book: Book, number: int) -> Run:
    """The run that mirrors trial `number`, a child of the study's run."""
    return Run(book.trial_folder(number) / "run", f"{_uid(book)}/trial/{number}", f"trial-{number:04d}", _parent(book))


def baseline_run(book: Book, name: str) -> Run:
    return Run(book.folder / "baselines" / name, f"{_uid(book)}/baseline/{name}", f"baseline-{name}", _parent(book))


def contender_run(book: Book, comparison: Path, key: str, name: str) -> Run:
    """The run of one contender of a comparison; its trainings on fresh seeds are children of it."""
    folder = comparison / "contenders" / key / "run"
    return Run(folder, f"{_uid(book)}/contender/{key}", f"contender-{name}", _parent(book))


def repeat_run(book: Book, comparison: Path, key: str, name: str, seed: int) -> Run:
    """The run of one training of a contender, from one fresh seed. The contender's own run is delivered before."""
    folder = comparison / "repeats" / key / str(seed) / "run"
    parent = contender_run(book, comparison, key, name).known_id
    return Run(folder, f"{_uid(book)}/repeat/{key}/{seed}", f"{name}-seed-{seed}", parent)


def experiment_file(study_folder: Path) -> Path:
    """Holds the id of the MLflow experiment that the study's runs belong to."""
    return study_folder / "run" / "experiment_id"


def facts(corpus: Corpus, study: str) -> dict[str, str]:
    """Tags that every run carries."""
    prints = {f"data.fingerprint.{split}": value for split, value in corpus.fingerprints.items()}
    commit = environment.git_commit()
    return {
        "study": study,
        "data": corpus.name,
        "data.fingerprint": corpus.fingerprint,
        **prints,
        **({"data.commit": corpus.commit} if corpus.commit else {}),
        "machine": environment.machine(),
        "launched.by": environment.command_line(),
        "mlflow.source.name": "trialbook",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


def save_view(store: Store, book: Book) -> None:
    """The study's trials as MLflow's UI should show them: the best first, with what was searched and how it went."""
    searched = [f"params.`{p.key}`" for p in book.space.parameters]
    columns = [*searched, "metrics.`score`", "tags.`trial.state`", "tags.`trial.origin`"]
    runs = f"tags.study = '{book.name}' and tags.kind = 'trial'"
    name, order = f"{book.name}: trials", views.Order("metrics.`score`", descending=book.direction == "maximize")
    views.save(store, view_of(book), name, runs, order, columns)


def view_of(book: Book) -> str:
    """The key of that view."""
    return f"trialbook-{book.name}"


def origin(checkpoint: Checkpoint) -> dict[str, str | None]:
    """Tags: which weights a model started from, wherever they came from."""
    return {
        "model.source": checkpoint.source,
        "model.commit": checkpoint.revision,
        "model.weights": checkpoint.fingerprint,
    }


def describe(run: Run, settings: Settings) -> None:
    """The whole composed config and the library versions, as artifacts."""
    run.text("config.yaml", settings.yaml)
    run.text("environment.json", json.dumps(environment.versions(), indent=1))


def describe_training(run: Run, settings: Settings, first: Sequence[str], overrides: Sequence[str]) -> None:
    """Params (the keys in `first` first), config, versions, and the command that repeats the training."""
    flat = {k: v for k, v in settings.recipe.flat().items() if v is not None}
    choices = {key: settings.choices[key] for key in first if key in settings.choices}
    describe(run, settings)
    run.tags({"command": masked(shlex.join(["python", "-m", "src.train", *overrides]))})
    run.params({**choices, **{k: flat[k] for k in first if k in flat}, **flat, "data.name": settings.data.name})


def end_numbers(outcome: Outcome | TrialRecord) -> dict[str, float | None]:
    """What is recorded at the end of a training."""
    return {
        "score": outcome.score,
        "share_of_schedule": outcome.share,
        "seconds": outcome.seconds,
        "model/megabytes": outcome.megabytes,
        "model/ms_per_1000_texts": outcome.ms_per_1000_texts,
    }


def record_outcome(run: Run, outcome: Outcome | TrialRecord) -> None:
    """How a run ended or paused: its numbers, its state, step and reason, its MLflow status."""
    state = State(outcome.state)
    if state.final:
        run.metrics(outcome.steps or 0, {k: v for k, v in end_numbers(outcome).items() if v is not None})
    run.tags({"trial.state": state, "trial.steps": outcome.steps, "trial.reason": outcome.reason or ""})
    run.status(state)


def record_contender(run: Run, row: ContenderRecord, verdict: Verdict) -> None:
    """A contender's means, with their intervals as metrics of their own; a step for every verdict."""
    numbers = {"search/score": row.search_score, "validation/score": row.validation, "validation/spread": row.spread,
               "optimism": row.optimism, "model/megabytes": row.megabytes,
               "model/ms_per_1000_texts": row.ms_per_1000_texts}  # fmt: skip
    for name, found in row.test.items():
        numbers |= {f"test/{name}": found.value, f"test/{name}.low": found.low, f"test/{name}.high": found.high}
    run.metrics(verdict.number, {name: value for name, value in numbers.items() if value is not None})
    opened = {"test.openings": verdict.openings} if row.test else {}
    run.tags({"registered.seed": row.registered_seed, "problem": row.problem, **opened, "verdict": verdict.winner})


def record_verdict(run: Run, verdict: Verdict) -> None:
    """The verdict on the study's run: three artifacts, and tags to search by."""
    from src.pages import document

    run.text("comparison/verdict.md", tables.as_markdown(verdict))
    page = document.as_html(tables.as_markdown(verdict), f"Verdict on {verdict.study}", {})
    run.text("comparison/verdict.html", page)
    run.text("comparison/verdict.json", verdict.to_json())
    said = {f"verdict.against.{a.other}": a.verdict for a in verdict.against}
    run.tags({**said, "verdict.winner": verdict.winner, "test.openings": verdict.openings})


def record_report(
    run: Run, history: History, best: Analysis | None, found: Findings | None, verdict: Verdict | None
) -> None:
    """The study's report on its run: Markdown, one HTML page, figures, and the record they are drawn from."""
    from src.pages import report

    for file, content in report.report(history, best, found, verdict).items():
        run.text(f"report/{file}", content)
    run.text("report/history.json", history.to_json())


def record_card(run: Run, found: Findings) -> None:
    """The model card on the study's run."""
    from src.pages import card, document, figures

    run.text(f"{CARD}/README.md", card.card(found, how_it_is_called(found.verdict), "svg"))
    run.text(f"{CARD}/{FINDINGS}", found.to_json())
    for name, figure in card.figures_of(found).items():
        run.text(f"{CARD}/{document.FIGURES}/{name}.svg", figures.as_svg(figure))


def record_inspection(run: Run, seen: Inspected) -> None:
    """What training changed, by layer and tensor; the model's parts; where it errs on validation."""
    from src.pages import figures

    run.text("inspection/model.txt", seen.summary)
    run.text("inspection/changes.svg", figures.as_svg(figures.changes(seen.layers)))
    columns = ("part", "parameters", "norm before", "norm of the change", "relative change")
    shown: dict[str, Table] = {
        "inspection/layers.json": (columns, [_change(c) for c in seen.layers]),
        "inspection/tensors.json": (columns, [_change(c) for c in seen.tensors]),
    }
    if (analysis := seen.analysis) is not None:
        wrong = [(w.row, w.text, w.label, w.predicted, w.chance) for w in analysis.wrong]
        slices = [(s.column, s.value, s.examples, s.accuracy, s.low, s.high) for s in analysis.slices]
        shown |= {
            "errors/errors.json": (("row", "text", "label", "predicted", "chance"), wrong),
            "errors/slices.json": (("column", "value", "examples", "accuracy", "low", "high"), slices),
        }
        for name, figure in figures.of_analysis(analysis).items():
            run.text(f"errors/{name}.svg", figures.as_svg(figure))
        run.metrics(1, {recorded.CALIBRATION: analysis.calibration_error})
    run.tables(shown)


def _change(row: Change) -> tuple[object, ...]:
    return row.part, row.parameters, row.before, row.moved, row.relative


def deliver_model(store: Store, run: Run, training: Path) -> str:
    """Log the weights in `training`/best on the run, once; returns the model's URI."""
    try:
        run_id = run.run_id(store)
        uri = delivered.logged_model(store, run_id) or delivered.log_model(store, run_id, training / BEST)
        run.tags({"model.uri": uri})
    finally:
        run.repeat_status()
        run.deliver(store)
    return uri


def attach_card(store: Store, uri: str, found: Findings) -> None:
    """Card, figures and findings beside the files of the model that is to be a version."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_card(folder, found, uri)
        (folder / FINDINGS).write_text(found.to_json())
        delivered.attach(store, uri, folder, CARD)


def write_card(folder: Path, found: Findings, model: str, **metadata: Any) -> None:
    """README.md and its figures in `folder`; `model`: where it says that the model is loaded from."""
    from src.pages import card, document, figures

    (folder / "README.md").write_text(card.card(found, model, **metadata))
    (folder / document.FIGURES).mkdir()
    for name, figure in card.figures_of(found).items():
        (folder / document.FIGURES / f"{name}.png").write_bytes(figures.as_png(figure))


def how_it_is_called(verdict: Verdict) -> str:
    """The winner's model, once it is promoted: `champion` it may not become."""
    return f"models:/{verdict.registry}@challenger"


def how_to_load(uri: str) -> str:
    return f'mlflow.transformers.load_model({uri!r})("a warm, funny film")'


def _parent(book: Book) -> str:
    return (book.folder / "run" / "run_id").read_text()


def _uid(book: Book) -> str:
    return str(book.study.user_attrs["uid"])
