"""The model card of a search, in the Hub's format: what was tried, how it was judged, and what came of it."""

from collections import Counter
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from matplotlib.figure import Figure

from src.pages import document, figures
from src.pages.analysis import Analysis, Slice
from src.pages.document import minutes, short
from src.pages.findings import Findings
from src.pages.history import History, Source
from src.records import Change, State
from src.verdict import tables
from src.verdict.record import ContenderRecord

TASK = "text-classification"
FEWEST = 20  # examples of a slice that is called the weakest


def card(found: Findings, model: str, ending: str = "png", **metadata: Any) -> str:
    """The card; `model`: where it is loaded from, `ending`: of its figures' files, `metadata`: more for the Hub."""
    whole = f"---\n{_metadata(found, metadata).to_yaml()}\n---\n\n{_text(found, model, ending)}"
    return str(ModelCard(whole).content)


def figures_of(found: Findings) -> dict[str, Figure]:
    """The figures that the card shows."""
    drawn = {
        "contenders": figures.contenders(found.verdict),
        "slices": figures.slices(found.test),
        "calibration": figures.calibration(found.test),
    }
    return drawn | ({"changes": figures.changes(found.changes)} if found.changes else {})


def _metadata(found: Findings, more: dict[str, Any]) -> ModelCardData:
    history, verdict = found.history, found.verdict
    winner = verdict.contender(verdict.winner)
    data = history.data
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
        for metric, value in winner.registered.test.items()
    ]
    return ModelCardData(
        model_name=_title(history),
        library_name="transformers",
        pipeline_tag=TASK,
        tags=["trialbook", TASK],
        base_model=history.base.name if history.base.source in ("Hub", "package") else None,
        datasets=[data.hub_id] if data.hub_id else None,
        metrics=[name for name in winner.registered.test if name != "loss"],
        eval_results=results,
        **more,
    )


def _split(data: Source) -> str:
    """The source's split that the test split was made from."""
    return data.made_from["test"].split(",")[0].rsplit(" of ", 1)[-1]


def _title(history: History) -> str:
    return f"{history.base.name.rsplit('/', 1)[-1]} on {history.data.name}"


def _text(found: Findings, model: str, ending: str) -> str:
    history, verdict, test = found.history, found.verdict, found.test
    winner = verdict.contender(verdict.winner)
    baseline = verdict.contender(verdict.best_baseline) if verdict.best_baseline else None
    data = history.data
    return document.render(
        "card.md.j2",
        title=_title(history),
        history=history,
        base=history.base,
        data=data,
        verdict=verdict,
        winner=winner,
        test=test,
        model=model,
        ending=ending,
        labels=" and ".join((", ".join(data.label_names[:-1]), data.label_names[-1])),
        tried=len(history.trials),
        sentences=tables.sentences(verdict),
        baseline_name=baseline.name if baseline else "",
        results=_results(winner, baseline),
        comparisons=tables.comparisons(verdict),
        on_validation=tables.validation(verdict),
        settings=[
            (
                key,
                text,
                short(history.default.get(key, "")),
                short(winner.params.get(key, history.default.get(key, ""))),
            )
            for key, text in history.space.items()
        ],
        protocol=list(_protocol(found).items()),
        importances=[(key, f"{share:.2f}") for key, share in history.importances.items()],
        splits=[
            (name, data.made_from[name], data.sizes[name], data.fingerprints[name])
            for name in ("train", "validation", "test")
        ],
        noticed=", ".join(f"{n} {what.replace('_', ' ')}" for what, n in data.notes.items() if "_carved_" not in what),
        confusion=[(label, *row) for label, row in zip(test.labels, test.confusion, strict=True)],
        slices=[slice_row(s) for s in test.slices],
        changes=[change_row(c) for c in found.changes],
        weakest=_weakest(test),
        made=list(_made(found).items()),
    )


def slice_row(row: Slice) -> tuple[object, ...]:
    baseline = "" if row.baseline is None else f"{row.baseline:.4f}"
    return (
        f"{row.column}: {row.value}",
        row.examples,
        f"{row.accuracy:.4f}",
        f"[{row.low:.4f}, {row.high:.4f}]",
        baseline,
    )


def change_row(row: Change) -> tuple[object, ...]:
    return row.part, row.parameters, "" if row.relative is None else f"{row.relative:.4f}"


def budget(history: History) -> str:
    """What the search was given."""
    limits = "".join(f", {key} {value:g}" for key, value in history.limits.items())
    workers = f", {history.workers} worker{'s' * (history.workers != 1)}" if history.workers else ""
    return f"{history.n_trials} trials{limits}{workers}"


def tried(history: History) -> str:
    """What became of it."""
    counts = Counter(State(t.state).value for t in history.trials)
    return f"{', '.join(f'{n} {state}' for state, n in counts.items())}; {minutes(history.seconds)}; {history.ending}"


def _results(winner: ContenderRecord, baseline: ContenderRecord | None) -> list[tuple[str, ...]]:
    return [
        (
            metric,
            f"{value:.4f}",
            f"{winner.test[metric].value:.4f} [{winner.test[metric].low:.4f}, {winner.test[metric].high:.4f}]",
            f"{baseline.test[metric].value:.4f}" if baseline else "",
        )
        for metric, value in winner.registered.test.items()
    ]


def _protocol(found: Findings) -> dict[str, Any]:
    history, verdict = found.history, found.verdict
    winner = verdict.contender(verdict.winner)
    return {
        "budget": budget(history),
        "trials": tried(history),
        "sampler": history.sampler,
        "pruner": history.pruner,
        "judged at": ", ".join(f"{rung:.0%}" for rung in history.rungs) + " of each trial's schedule",
        "score": f"{history.metric} on validation, {history.direction}d; the weights of the best evaluation are kept",
        "seed of the search": history.seed,
        "fresh seeds": ", ".join(map(str, verdict.seeds)),
        "selection": f"best mean {verdict.metric} on validation over the fresh seeds, among {verdict.chosen_among} "
        f"candidates (the search's best settings and the default recipe): {verdict.winner}"
        + (f", {winner.about}" if winner.about else ""),
        "optimism of the search": "" if winner.optimism is None else f"{winner.optimism:+.4f}",
        "baselines": ", ".join(c.name for c in verdict.contenders if c.kind == "baseline"),
    }


def _made(found: Findings) -> dict[str, Any]:
    history, verdict = found.history, found.verdict
    winner = verdict.contender(verdict.winner)
    base, run = history.base, winner.registered.run_id
    return {
        "base model": base.name + (f", commit {base.commit}" if base.commit else "") + f", weights {base.fingerprint}",
        "study": f"{history.study} (run {history.run_id})",
        "training": f"run {run}; again, with every number compared: python -m src.reproduce run={run}" if run else "",
        "verdict": verdict.made,
        "machine": history.machine,
        "code": history.commit or "",
        "versions": ", ".join(f"{name} {number}" for name, number in history.versions.items()),
    }


def _weakest(test: Analysis) -> Slice | None:
    """The slice with the lowest accuracy, if it is below that of the whole."""
    below = [s for s in test.slices if s.examples >= FEWEST and s.accuracy < test.accuracy]
    return min(below, key=lambda s: s.accuracy, default=None)
