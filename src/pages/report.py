"""A study's report: what was searched, what came of it, how it was judged, what it cost, and how to do it again."""

from collections import defaultdict
from collections.abc import Mapping

from src.pages import document, figures
from src.pages.analysis import Analysis
from src.pages.card import budget, change_row, slice_row, tried
from src.pages.document import minutes, short
from src.pages.findings import Findings
from src.pages.history import History
from src.records import State, TrialRecord
from src.verdict import tables
from src.verdict.record import Verdict


def report(
    history: History, best: Analysis | None, found: Findings | None = None, verdict: Verdict | None = None
) -> Mapping[str, str]:
    """report.md, report.html and figures/*.svg. `best`: of the best trial, where nothing has been judged yet.

    `verdict`: where there is one without findings.
    """
    verdict = found.verdict if found else verdict
    analysis = found.test if found else best
    changes = found.changes if found else history.changes
    drawn = figures.of_search(history)
    drawn |= figures.of_analysis(analysis) if analysis else {}
    drawn |= {"contenders": figures.contenders(verdict)} if verdict else {}
    drawn |= {"changes": figures.changes(changes)} if changes else {}
    svg = {name: figures.as_svg(figure) for name, figure in drawn.items()}
    text = _text(history, analysis, (found, verdict), tuple(svg))
    page = document.as_html(text, f"Report on {history.study}", svg)
    return {"report.md": text, "report.html": page, **{f"{document.FIGURES}/{n}.svg": each for n, each in svg.items()}}


def _text(
    history: History,
    analysis: Analysis | None,
    judged_by: tuple[Findings | None, Verdict | None],
    drawn: tuple[str, ...],
) -> str:
    found, verdict = judged_by
    best = history.best_trial
    metrics = [m for t in history.trials for m in t.metrics]
    metrics = list(dict.fromkeys([history.metric, *metrics]))
    judged = (
        {
            "sentences": tables.sentences(verdict),
            "test": tables.test(verdict),
            "comparisons": tables.comparisons(verdict),
            "on_validation": tables.validation(verdict),
        }
        if verdict
        else {}
    )
    return document.render(
        "report.md.j2",
        history=history,
        base=history.base,
        verdict=verdict,
        **judged,
        best=best,
        newer=verdict is not None and best is not None and not _judged(verdict, best.number),
        tried=tried(history),
        search=list(_search(history).items()),
        settings=[
            (key, text, short(history.default.get(key, "")), short(best.params.get(key, "") if best else ""))
            for key, text in history.space.items()
        ],
        trials=[_trial_row(history, t) for t in history.trials],
        metrics=metrics,
        baselines=[
            (name, *(f"{o.metrics[m]:.4f}" if m in o.metrics else "" for m in metrics))
            for name, o in history.baselines.items()
        ],
        importances=[(key, f"{share:.2f}") for key, share in history.importances.items()],
        finished=len(history.of_state(State.COMPLETE)),
        figures=drawn,
        analysis=analysis,
        whose=f"{verdict.winner}, the weights to register" if verdict and found else f"Trial {history.best}",
        confusion=[(label, *row) for label, row in zip(analysis.labels, analysis.confusion, strict=True)]
        if analysis
        else [],
        slices=[slice_row(s) for s in analysis.slices] if analysis else [],
        changes=[change_row(c) for c in (found.changes if found else history.changes)],
        cost=_cost(history, verdict),
        made=list(_made(history).items()),
    )


def _judged(verdict: Verdict, trial: int) -> bool:
    """Whether this trial's settings stood in the comparison."""
    return any(f"trial {trial}" == c.about or f"trial-{trial}" == c.name for c in verdict.contenders)


def _search(history: History) -> dict[str, str]:
    data = history.data
    return {
        "data": f"{data.name} ({data.place}): " + ", ".join(f"{n} {split}" for split, n in data.sizes.items()),
        "model": f"{history.base.name}, {history.base.megabytes:.0f} MB, at most {history.base.max_tokens} tokens",
        "budget": budget(history),
        "sampler": history.sampler,
        "pruner": history.pruner,
        "judged at": ", ".join(f"{rung:.0%}" for rung in history.rungs) + " of each trial's schedule",
        "seed": str(history.seed),
    }


def _trial_row(history: History, trial: TrialRecord) -> tuple[object, ...]:
    name = f"{trial.number}" + (" (best)" if trial.number == history.best else "")
    name += "" if trial.origin == "sampler" else f" ({trial.origin})"
    settings = " ".join(f"{key.rsplit('.', 1)[-1]}={short(value)}" for key, value in trial.params.items())
    curve = next((c for c in history.curves if c.trial == trial.number), None)
    seen = max((x for x, _ in (*curve.score, *curve.loss)), default=None) if curve else None
    return (
        name,
        trial.state,
        "" if trial.score is None else f"{trial.score:.4f}",
        "" if trial.share is None else f"{trial.share:.0%}",
        "" if seen is None else round(seen),
        "" if trial.seconds is None else minutes(trial.seconds),
        settings + (f" ({trial.reason})" if trial.reason else ""),
    )


def _cost(history: History, verdict: Verdict | None) -> list[tuple[str, str, str]]:
    """Wall-clock time, and where the workers' time went."""
    spent: dict[str, float] = defaultdict(float)
    for stretch in history.stretches:
        kind = "baselines" if stretch.what.startswith("baseline") else f"trials that ended {stretch.state}"
        spent[kind] += stretch.ended - stretch.began
    whole = sum(spent.values())
    rows = [("searching, wall-clock", minutes(history.seconds), "")]
    rows += [(kind, minutes(seconds), f"{seconds / whole:.0%}") for kind, seconds in spent.items()]
    if verdict:
        seconds = sum(r.seconds for c in verdict.contenders for r in c.repeats)
        trainings = sum(len(c.repeats) for c in verdict.contenders)
        rows.append((f"comparing: {trainings} trainings on fresh seeds", minutes(seconds), ""))
    return rows


def _made(history: History) -> dict[str, str]:
    return {
        "run": history.run_id or "",
        "machine": history.machine,
        "code": history.commit or "",
        "versions": ", ".join(f"{name} {number}" for name, number in history.versions.items()),
        "written": history.made,
    }
