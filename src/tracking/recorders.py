"""Writes the MLflow runs of studies, trials and comparisons: params, metrics, tags and artifacts."""

import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.config.settings import NEWER_ARGUMENTS, Settings
from src.core import own_code
from src.core.errors import mask_secrets
from src.core.formatting import plural, short_params
from src.core.metric import MAXIMIZE
from src.core.records import AverageRecord, ScreeningResult, State, TrainingResult, TrialRecord, WeightChange
from src.core.task import Task, Threshold
from src.data.dataset import PreparedDataset
from src.reports.error_analysis import ErrorAnalysis
from src.reports.search_record import JudgedSearch, SearchRecord, WeightInspection
from src.search.study import Study
from src.tracking import environment, logged_model, run_reader, ui_views
from src.tracking.run_log import RunLog, Table, read_run_id
from src.tracking.run_tree import known_experiment
from src.tracking.store import TrackingStore
from src.training import adapters, classifiers
from src.training.pretrained import BEST_DIR, PretrainedModel
from src.verdict import tables
from src.verdict.records import SINGLE, ContenderRecord, Verdict

# artifacts of a study with a verdict: on its run, and with the registered model
CARD_DIR, FINDINGS_FILE = ("card", "findings.json")


def common_tags(dataset: PreparedDataset, study: str) -> dict[str, str]:
    """Tags that every run carries."""
    prints = {f"data.fingerprint.{split}": value for split, value in dataset.fingerprints.items()}
    commit = environment.git_commit()
    return {
        "study": study,
        "data": dataset.name,
        "data.fingerprint": dataset.fingerprint,
        **prints,
        **({"data.commit": dataset.commit} if dataset.commit else {}),
        "machine": environment.machine(),
        "launched.by": environment.command_line(),
        "mlflow.source.name": "trialbook",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


def record_inheritance(run: RunLog, study: Study) -> None:
    """Record on the study's run which trials it has taken over: as tags, and as a table with the runs of the trials."""
    inherited: list[TrialRecord] = [t for t in study.trials() if t.is_inherited]
    names = sorted({source.study for source in study.sources.values()})
    runs = [read_run_id(study.folder.parent / name / "run") or "" for name in names]
    run.set_tags({"inherited.from": ", ".join(names), "inherited.run": ", ".join(runs)})
    links = [
        f"[{name}](#/experiments/{known_experiment(study.folder.parent / name)}/runs/{run_id})" if run_id else name
        for name, run_id in zip(names, runs, strict=True)
    ]
    note = f"{plural(len(inherited), 'trial')} of {' and '.join(links)} taken over: see inherited.json."
    run.set_tags({"inherited.trials": len(inherited), "mlflow.note.content": note})
    columns = ("trial", "study", "trial there", "run", "state", "score", "settings")
    rows = [
        (t.number, t.source_study, t.source_trial, t.run_id, t.state, t.score, short_params(t.params))
        for t in inherited
    ]
    run.log_tables({"inherited.json": (columns, rows)})


def save_trials_view(store: TrackingStore, study: Study) -> None:
    """Save a view for MLflow's UI: the study's trials, best first, with the searched settings."""
    searched = [f"params.`{p.key}`" for p in study.space.parameters]
    columns = [*searched, "metrics.`score`", "tags.`trial.state`", "tags.`trial.origin`"]
    runs = f"tags.study = '{study.name}' and tags.kind = 'trial'"
    name, order = (
        f"{study.name}: trials",
        ui_views.SortOrder("metrics.`score`", descending=study.direction == MAXIMIZE),
    )
    ui_views.save_view(store, trials_view_key(study), name, runs, order, columns)
    if study.study_settings.has_several_objectives:
        values = [f"metrics.`{_metric_in_mlflow(objective)}`" for objective in study.study_settings.objectives]
        front = f"{runs} and tags.trial.front = 'true'"
        ui_views.save_view(
            store, f"{trials_view_key(study)}-front", f"{study.name}: front", front, order, [*values, *searched]
        )


def _metric_in_mlflow(objective: str) -> str:
    """The name under which a trial's run has its final value of an objective."""
    names = {
        "ms_per_1000_texts": "model/ms_per_1000_texts", "megabytes": "model/megabytes", "seconds": "training_seconds",
    }  # fmt: skip
    return names.get(objective, f"validation/{objective}")


def trials_view_key(study: Study) -> str:
    """The key of that view."""
    return f"trialbook-{study.name}"


def weights_tags(checkpoint: PretrainedModel) -> dict[str, str | None]:
    """Tags that say which weights a model started from."""
    return {
        "model.source": checkpoint.source,
        "model.commit": checkpoint.revision,
        "model.weights": checkpoint.fingerprint,
    }


def record_config(run: RunLog, settings: Settings) -> None:
    """Record the composed config, the library versions and the user's own code as artifacts."""
    run.log_text("config.yaml", settings.yaml)
    if settings.code:
        run.set_tags({f"{run_reader.CODE_TAG}{path}": sha256 for path, sha256 in own_code.hashes().items()})
        for path, source in own_code.sources().items():
            run.log_text(f"code/{path}", source.decode("utf-8", "replace"))
    run.log_text("environment.json", json.dumps(environment.versions(), indent=1))


def record_training_config(run: RunLog, settings: Settings, first: Sequence[str], overrides: Sequence[str]) -> None:
    """Record params, config, library versions, and the command that repeats the training.

    Args:
        run: of the training.
        settings: of the training.
        first: params to log before the others.
        overrides: of the command that repeats it.
    """
    off = NEWER_ARGUMENTS.items()  # in nearly all trainings, so a run does not list them
    flat = {k: v for k, v in settings.recipe.flatten().items() if v is not None and (k, v) not in off}
    choices = {key: settings.choices[key] for key in first if key in settings.choices}
    record_config(run, settings)
    run.set_tags({"command": mask_secrets(shlex.join(["python", "-m", "src.train", *overrides]))})
    run.log_params({**choices, **{k: flat[k] for k in first if k in flat}, **flat, "data.name": settings.data.name})


def final_metrics(result: TrainingResult) -> dict[str, float | None]:
    """The metrics that are recorded at the end of a training."""
    return {
        "score": result.score,
        "share_of_schedule": result.share,
        "seconds": result.seconds,
        "model/megabytes": result.megabytes,
        "model/ms_per_1000_texts": result.ms_per_1000_texts,
        "training_seconds": result.training_seconds,
    }


def record_result(run: RunLog, result: TrainingResult) -> None:
    """Record how a training ended or paused: metrics, tags, status."""
    state = State(result.state)
    if state.is_final:
        run.log_metrics(result.steps or 0, {k: v for k, v in final_metrics(result).items() if v is not None})
    run.set_tags({"trial.state": state, "trial.steps": result.steps, "trial.reason": result.reason or ""})
    run.set_status(state)


def record_average(
    run: RunLog, tags: Mapping[str, str], average: AverageRecord, runs: Sequence[str | None], sha256: str
) -> None:
    """Record the average of some trials' weights. The number of members is the step.

    Args:
        run: of the average.
        tags: the common ones.
        average: its members and scores.
        runs: of its members.
        sha256: of its weights.
    """
    members = ", ".join(map(str, average.members))
    run.set_tags({**tags, "kind": "average", "members": members, **_average_tags(runs, sha256)})
    metrics = {f"validation/{name}": value for name, value in average.metrics.items()}
    run.log_metrics(len(average.members), {**metrics, "score": average.score, "members/score": average.members_mean})
    run.set_status(State.COMPLETE)


def record_screening(run: RunLog, screened: ScreeningResult) -> None:
    """Record a model's short trial before a search, beside its training's own end: the interval, and the probe."""
    numbers = {"score.low": screened.low, "score.high": screened.high, "probe/score": screened.probe}
    run.log_metrics(screened.result.steps or 0, {name: value for name, value in numbers.items() if value is not None})


def _average_tags(members: Sequence[str | None], sha256: str | None) -> dict[str, str | None]:
    """Tags from which an average of weights is reproduced: its members' runs, and the hash of the weights' file."""
    return {"members.runs": ",".join(map(str, members)), "weights.sha256": sha256}


def record_contender(run: RunLog, row: ContenderRecord, verdict: Verdict) -> None:
    """Record a contender's means with their intervals. A verdict's number is the step."""
    numbers = {"search/score": row.search_score, "validation/score": row.validation, "validation/spread": row.spread,
               "optimism": row.optimism, "model/megabytes": row.megabytes,
               "model/ms_per_1000_texts": row.ms_per_1000_texts}  # fmt: skip
    for name, interval in row.test.items():
        numbers |= {
            f"test/{name}": interval.value,
            f"test/{name}.low": interval.low,
            f"test/{name}.high": interval.high,
        }
    run.log_metrics(verdict.number, {name: value for name, value in numbers.items() if value is not None})
    opened = {"test.openings": verdict.openings} if row.test else {}
    run.set_tags({"registered.seed": row.registered_seed, "problem": row.problem, **opened, "verdict": verdict.winner})
    if row.form != SINGLE:
        members = row.repeats or verdict.recipe_of(row.name).repeats
        run.set_tags(_average_tags([member.run_id for member in members], row.sha256))


def record_verdict(run: RunLog, verdict: Verdict) -> None:
    """Record the verdict on the study's run: three artifacts, and tags to search by."""
    from src.reports import rendering

    run.log_text("comparison/verdict.md", tables.to_markdown(verdict))
    page = rendering.to_html(tables.to_markdown(verdict), f"Verdict on {verdict.study}", {})
    run.log_text("comparison/verdict.html", page)
    run.log_text("comparison/verdict.json", verdict.to_json())
    verdict_tags = {f"verdict.against.{a.other}": a.verdict for a in verdict.against}
    run.set_tags({**verdict_tags, "verdict.winner": verdict.winner, "test.openings": verdict.openings})


def record_report(
    run: RunLog, history: SearchRecord, best: ErrorAnalysis | None, judged: JudgedSearch | None, verdict: Verdict | None
) -> None:
    """Record the study's report on its run: Markdown, HTML, figures, and the record that they show.

    Args:
        run: of the study.
        history: record of the search.
        best: error analysis of the best trial on validation, if there is no verdict yet.
        judged: the search with its verdict, if there is one.
        verdict: one whose weights have not been analysed, if there is one.
    """
    from src.reports import report

    for file, content in report.render_report(history, best, judged, verdict).items():
        run.log_text(f"report/{file}", content)
    run.log_text("report/history.json", history.to_json())


def record_card(run: RunLog, judged: JudgedSearch) -> None:
    """Record the model card on the study's run."""
    from src.reports import figures, model_card, rendering

    run.log_text(f"{CARD_DIR}/README.md", model_card.render_card(judged, challenger_uri(judged.verdict), "svg"))
    run.log_text(f"{CARD_DIR}/{FINDINGS_FILE}", judged.to_json())
    for name, figure in model_card.card_figures(judged).items():
        run.log_text(f"{CARD_DIR}/{rendering.FIGURES}/{name}.svg", figures.to_svg(figure))


def record_inspection(run: RunLog, inspection: WeightInspection) -> None:
    """Record how far training moved each layer, the model's summary, and its errors on validation."""
    from src.reports import figures

    run.log_text("inspection/model.txt", inspection.summary)
    run.log_text("inspection/changes.svg", figures.to_svg(figures.weight_changes(inspection.layers)))
    columns = ("part", "parameters", "norm before", "norm of the change", "relative change")
    tables_by_file: dict[str, Table] = {
        "inspection/layers.json": (columns, [_change_row(c) for c in inspection.layers]),
        "inspection/tensors.json": (columns, [_change_row(c) for c in inspection.tensors]),
    }
    if (analysis := inspection.analysis) is not None:
        tables_by_file |= _error_tables(analysis)
        for name, figure in figures.error_figures(analysis).items():
            run.log_text(f"errors/{name}.svg", figures.to_svg(figure))
        if analysis.numbers is None:
            run.log_metrics(1, {run_reader.CALIBRATION: analysis.calibration_error})
    run.log_tables(tables_by_file)


def _error_tables(analysis: ErrorAnalysis) -> dict[str, Table]:
    """The errors that people look at, and the slices."""
    sliced = ("column", "value", "examples")
    if (numbers := analysis.numbers) is not None:
        largest = [(e.row, e.text, e.true, e.predicted) for e in numbers.largest]
        slices = [(s.column, s.value, s.examples, s.mae, s.low, s.high) for s in numbers.slices]
        return {
            "errors/errors.json": (("row", "text", "true", "predicted"), largest),
            "errors/slices.json": ((*sliced, "mae", "low", "high"), slices),
        }
    wrong = [(w.row, w.text, w.label, w.predicted, w.chance) for w in analysis.wrong]
    slices = [(s.column, s.value, s.examples, s.accuracy, s.low, s.high) for s in analysis.slices]
    return {
        "errors/errors.json": (("row", "text", "label", "predicted", "chance"), wrong),
        "errors/slices.json": ((*sliced, "accuracy", "low", "high"), slices),
    }


def _change_row(row: WeightChange) -> tuple[object, ...]:
    return row.part, row.parameters, row.before, row.moved, row.relative


def log_best_model(
    store: TrackingStore,
    run: RunLog,
    training: Path,
    outdated: str = "",
    threshold: Threshold | None = None,
    merge: bool = True,
) -> str:
    """Log the weights in `training`/best as a model of the run, once. Returns the model's URI.

    Args:
        store: of MLflow.
        run: of the weights.
        training: the folder of their training.
        outdated: the URI of a model of the run that has other weights.
        threshold: the decision threshold that the logged model has in it; None: 0.5, as the weights are.
        merge: whether an adapter is merged into its base, so that the model is one of transformers.
    """
    merge = merge or not adapters.is_adapter(training / BEST_DIR)
    try:
        run_id = run.ensure_run_id(store)
        uri = logged_model.find_logged_model(store, run_id, outdated, threshold, merge)
        with tempfile.TemporaryDirectory() as scratch:
            folder, changed = training / BEST_DIR, Path(scratch) / BEST_DIR
            if uri is None and not merge:
                classifiers.write_adapter(folder, changed, threshold)
                uri = logged_model.log_adapter(store, run_id, changed, threshold)
            elif uri is None and (threshold is not None or adapters.is_adapter(folder)):
                classifiers.write_plain(folder, changed, threshold)
                folder = changed
            uri = uri or logged_model.log_model(store, run_id, folder, threshold)
        run.set_tags({"model.uri": uri})
    finally:
        run.repeat_status()
        run.send_to(store)
    return uri


def attach_card(store: TrackingStore, uri: str, judged: JudgedSearch) -> None:
    """Add card, figures and record to the files of a logged model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_card(folder, judged, uri)
        (folder / FINDINGS_FILE).write_text(judged.to_json(), encoding="utf-8")
        logged_model.attach_files(store, uri, folder, CARD_DIR)


def write_card(folder: Path, judged: JudgedSearch, model: str, **metadata: Any) -> None:
    """Write README.md and its figures into `folder`; `model`: the address that the card says to load."""
    from src.reports import figures, model_card, rendering

    (folder / "README.md").write_text(model_card.render_card(judged, model, **metadata), encoding="utf-8")
    (folder / rendering.FIGURES).mkdir()
    for name, figure in model_card.card_figures(judged).items():
        (folder / rendering.FIGURES / f"{name}.png").write_bytes(figures.to_png(figure))


def challenger_uri(verdict: Verdict) -> str:
    """The address of the winner's model once it is registered; it may not become champion."""
    return f"models:/{verdict.registry}@challenger"


def load_snippet(uri: str, task: Task, merge: bool = True) -> str:
    """Python code that loads the model at `uri` and classifies a text, or a pair. `merge`: it is no adapter."""
    if not merge:
        pairs = 'pandas.DataFrame({"text": ["a man sleeps"], "text_pair": ["he rests"]})'
        given = pairs if task.has_pairs else '["a warm, funny film"]'
        return f"mlflow.pyfunc.load_model({uri!r}).predict({given})"
    given = '{"text": "a man sleeps", "text_pair": "he rests"}' if task.has_pairs else '"a warm, funny film"'
    return f"mlflow.transformers.load_model({uri!r})({given}{', top_k=None' if task.has_several_labels else ''})"


def predict_snippet(task: Task) -> str:
    """The command that classifies a text, or a pair."""
    given = '--pair "a man sleeps" "he rests"' if task.has_pairs else '"a warm, funny film"'
    return f"python -m src.predict {given}"
