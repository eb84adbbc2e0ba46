"""Renders the model card of a search in the Hub's format."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from matplotlib.figure import Figure

from src.core.formatting import duration, plural, short
from src.core.records import State, WeightChange
from src.core.task import MULTI_LABEL, Threshold
from src.reports import figures, rendering
from src.reports.error_analysis import ErrorAnalysis, Slice
from src.reports.number_errors import NumberSlice
from src.reports.search_record import DataSource, JudgedSearch, SearchRecord
from src.verdict import tables
from src.verdict.records import SINGLE, ContenderRecord

TASK = "text-classification"
MIN_WEAKEST_EXAMPLES = 20  # fewest examples of a slice that is reported as the weakest


def render_card(judged: JudgedSearch, model: str, ending: str = "png", **metadata: Any) -> str:
    """The card as Markdown.

    Args:
        judged: the search with its verdict.
        model: the address that the card says to load.
        ending: of the figures' file names, such as svg.
        metadata: more fields for the Hub.
    """
    document = f"---\n{_metadata(judged, metadata).to_yaml()}\n---\n\n{_text(judged, model, ending)}"
    return str(ModelCard(document).content)


def card_figures(judged: JudgedSearch) -> dict[str, Figure]:
    """The figures that the card shows."""
    all_figures = {
        "contenders": figures.contender_intervals(judged.verdict),
        **{name: figure for name, figure in figures.error_figures(judged.test).items() if name != "confusion"},
    }
    return all_figures | ({"changes": figures.weight_changes(judged.changes)} if judged.changes else {})


def _metadata(judged: JudgedSearch, more: dict[str, Any]) -> ModelCardData:
    record, verdict = judged.history, judged.verdict
    winner = verdict.contender(verdict.winner)
    data = record.data
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=data.hub_id or data.name,
            dataset_name=data.name,
            dataset_split=_split(data) if data.hub_id else "test",
            dataset_revision=data.commit,
            dataset_args={
                "made_from": data.made_from["test"],
                "examples": verdict.test_examples,
                "fingerprint": verdict.fingerprints["test"],
            },
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for metric, value in winner.registered_test.items()
    ]
    return ModelCardData(
        model_name=_title(record),
        library_name="transformers" if verdict.merge else "peft",
        pipeline_tag=TASK,
        tags=["trialbook", TASK],
        base_model=record.base.name if record.base.source in ("Hub", "package") else None,
        datasets=[data.hub_id] if data.hub_id else None,
        metrics=[name for name in winner.registered_test if name != "loss"],
        eval_results=results,
        **more,
    )


def _split(data: DataSource) -> str:
    """The source's split that the test split was made from."""
    return data.made_from["test"].split(",")[0].rsplit(" of ", 1)[-1]


def _title(record: SearchRecord) -> str:
    return f"{record.base.name.rsplit('/', 1)[-1]} on {record.data.name}"


def _text(judged: JudgedSearch, model: str, ending: str) -> str:
    record, verdict, test = judged.history, judged.verdict, judged.test
    winner = verdict.contender(verdict.winner)
    baseline = verdict.contender(verdict.best_baseline) if verdict.best_baseline else None
    data = record.data
    return rendering.render_template(
        "model_card.md.j2",
        title=_title(record),
        history=record,
        base=record.base,
        data=data,
        verdict=verdict,
        winner=winner,
        test=test,
        model=model,
        ending=ending,
        labels=_joined(data.label_names),
        several=verdict.task == MULTI_LABEL,
        numbers=test.numbers,
        thresholds=_thresholds(winner.threshold, data.label_names),
        tried=len(record.trials),
        sentences=tables.sentences(verdict),
        baseline_name=baseline.name if baseline else "",
        results=_results(winner, baseline),
        weights=tables.describe_weights(verdict),
        attribution=tables.attribution_tables(verdict),
        comparisons=tables.comparison_table(verdict),
        on_validation=tables.validation_table(verdict),
        settings=[
            (
                key,
                text,
                short(record.default.get(key, "")),
                short(winner.params.get(key, record.default.get(key, ""))),
            )
            for key, text in record.space.items()
        ],
        protocol=list(_protocol(judged).items()),
        importances=[(key, f"{share:.2f}") for key, share in record.importances.items()],
        splits=[
            (name, data.made_from[name], data.sizes[name], data.fingerprints[name])
            for name in ("train", "validation", "test")
        ],
        noticed=", ".join(f"{n} {what.replace('_', ' ')}" for what, n in data.notes.items() if "_carved_" not in what),
        confusion=confusion_rows(test),
        per_label=tables.per_label_table(test.per_label),
        slices=slice_rows(test),
        changes=[change_row(c) for c in judged.changes],
        weakest=_weakest_slice(test),
        made=list(_provenance(judged).items()),
    )


def _thresholds(threshold: Threshold | None, label_names: Sequence[str]) -> str:
    if isinstance(threshold, (list, tuple)):
        return ", ".join(f"{name} {value:.4f}" for name, value in zip(label_names, threshold, strict=True))
    return "" if threshold is None else f"{threshold:.4f} for all"


def confusion_rows(analysis: ErrorAnalysis) -> list[tuple[object, ...]]:
    """The rows of the table of true and predicted labels; none where texts can have several labels."""
    if not analysis.confusion:
        return []
    return [(label, *row) for label, row in zip(analysis.labels, analysis.confusion, strict=True)]


def slice_rows(analysis: ErrorAnalysis) -> list[tuple[object, ...]]:
    """The rows of the table of slices: accuracy, or the mean absolute error of numbers."""
    if analysis.numbers:
        return [_slice_row(s, s.mae) for s in analysis.numbers.slices]
    return [_slice_row(s, s.accuracy) for s in analysis.slices]


def _slice_row(row: Slice | NumberSlice, value: float) -> tuple[object, ...]:
    baseline = "" if row.baseline is None else f"{row.baseline:.4f}"
    return f"{row.column}: {row.value}", row.examples, f"{value:.4f}", f"[{row.low:.4f}, {row.high:.4f}]", baseline


def _joined(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def change_row(row: WeightChange) -> tuple[object, ...]:
    """A weight change as a row of a table."""
    return row.part, row.parameters, "" if row.relative is None else f"{row.relative:.4f}"


def describe_budget(record: SearchRecord) -> str:
    """The limits of the search, in words."""
    limits = "".join(f", {key} {value:g}" for key, value in record.limits.items())
    workers = f", {plural(record.workers, 'worker')}" if record.workers else ""
    return f"{record.n_trials} trials{limits}{workers}"


def describe_trials(record: SearchRecord) -> str:
    """How the trials ended, in words."""
    counts = Counter(State(t.state).value for t in record.trials if not t.is_inherited)
    inherited = Counter(t.source_study for t in record.trials if t.is_inherited)
    taken = "".join(f"; {n} more inherited from {study}" for study, n in inherited.items())
    ended = ", ".join(f"{n} {state}" for state, n in counts.items())
    return f"{ended}{taken}; {duration(record.seconds)}; {record.ending}"


def _results(winner: ContenderRecord, baseline: ContenderRecord | None) -> list[tuple[str, ...]]:
    rows = []
    for metric, value in winner.registered_test.items():
        mean = winner.test[metric]
        registered = [f"{value:.4f}"] if winner.form == SINGLE else []  # of an average, it is the value of the interval
        interval = f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]"
        rows.append((metric, *registered, interval, f"{baseline.test[metric].value:.4f}" if baseline else ""))
    return rows


def _protocol(judged: JudgedSearch) -> dict[str, Any]:
    record, verdict = judged.history, judged.verdict
    winner = verdict.recipe_of(verdict.winner)
    return {
        "budget": describe_budget(record),
        **({"objectives": ", ".join(record.objectives)} if record.objectives else {}),
        **({"constraints": ", ".join(record.constraints)} if record.constraints else {}),
        "trials": describe_trials(record),
        "sampler": record.sampler,
        "pruner": record.pruner,
        "judged at": ", ".join(f"{rung:.0%}" for rung in record.rungs) + " of each trial's schedule",
        "score": f"{record.metric} on validation, {record.direction}d; the weights of the best evaluation are kept",
        "seed of the search": record.seed,
        "fresh seeds": ", ".join(map(str, verdict.seeds)),
        "selection": (
            f"{verdict.pick}: {winner.name}"
            if verdict.pick
            else f"best mean {verdict.metric} on validation over the fresh seeds, among {verdict.chosen_among} "
            f"candidates (the search's best settings and the default recipe): {winner.name}"
        )
        + (f", {winner.about}" if winner.about else ""),
        "form": verdict.form_reason,
        "optimism of the search": "" if winner.optimism is None else f"{winner.optimism:+z.4f}",
        "baselines": ", ".join(c.name for c in verdict.contenders if c.kind == "baseline"),
    }


def _provenance(judged: JudgedSearch) -> dict[str, Any]:
    record, verdict = judged.history, judged.verdict
    winner = verdict.contender(verdict.winner)
    base, run = record.base, winner.registered_run_id
    return {
        "base model": base.name + (f", commit {base.commit}" if base.commit else "") + f", weights {base.fingerprint}",
        "study": f"{record.study} (run {record.run_id})",
        "training": f"run {run}; again, with every number compared: python -m src.reproduce run={run}{record.code}"
        if run
        else "",
        "verdict": verdict.made,
        "machine": record.machine,
        "code": record.commit or "",
        "versions": ", ".join(f"{name} {number}" for name, number in record.versions.items()),
    }


def _weakest_slice(test: ErrorAnalysis) -> Slice | None:
    """The slice with the lowest accuracy, if that is below the overall accuracy."""
    below = [s for s in test.slices if s.examples >= MIN_WEAKEST_EXAMPLES and s.accuracy < test.accuracy]
    return min(below, key=lambda s: s.accuracy, default=None)
