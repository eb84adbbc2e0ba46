"""Renders a study's report: search space, results, verdict, cost, and the commands that repeat it."""

from collections import defaultdict
from collections.abc import Mapping

from src.core.formatting import duration, metric_text, short, short_params
from src.core.metric import gain
from src.core.records import DEFAULT_RECIPE, LEARNED, ScreeningResult, State, TrialRecord
from src.reports import figures, rendering
from src.reports.error_analysis import ErrorAnalysis
from src.reports.model_card import change_row, confusion_rows, describe_budget, describe_trials, slice_rows
from src.reports.search_record import JudgedSearch, SearchRecord
from src.verdict import tables
from src.verdict.records import Verdict

COMPARE = "python -m src.compare study.name="


def render_report(
    record: SearchRecord,
    best_errors: ErrorAnalysis | None,
    judged: JudgedSearch | None = None,
    verdict: Verdict | None = None,
) -> Mapping[str, str]:
    """The report's files: report.md, report.html and figures/*.svg, as file name -> content.

    Args:
        record: of the search.
        best_errors: of the best trial on validation, if there is no verdict yet.
        judged: the search with its verdict, if there is one.
        verdict: a verdict whose weights have not been analysed, if there is one.
    """
    verdict = judged.verdict if judged else verdict
    analysis = judged.test if judged else best_errors
    changes = judged.changes if judged else record.changes
    all_figures = figures.search_figures(record)
    all_figures |= figures.error_figures(analysis) if analysis else {}
    all_figures |= {"contenders": figures.contender_intervals(verdict)} if verdict else {}
    all_figures |= {"changes": figures.weight_changes(changes)} if changes else {}
    svg = {name: figures.to_svg(figure) for name, figure in all_figures.items()}
    text = _text(record, analysis, (judged, verdict), tuple(svg))
    page = rendering.to_html(text, f"Report on {record.study}", svg)
    return {"report.md": text, "report.html": page, **{f"{rendering.FIGURES}/{n}.svg": each for n, each in svg.items()}}


def _text(
    record: SearchRecord,
    analysis: ErrorAnalysis | None,
    judged_by: tuple[JudgedSearch | None, Verdict | None],
    figure_names: tuple[str, ...],
) -> str:
    judged_record, verdict = judged_by
    best_trial = record.best_trial
    metrics = [m for t in record.trials for m in t.result.metrics]
    metrics = list(dict.fromkeys([record.metric, *metrics]))
    verdict_tables = (
        {
            "sentences": tables.sentences(verdict),
            "test": tables.test_table(verdict),
            "attribution": tables.attribution_tables(verdict),
            "comparisons": tables.comparison_table(verdict),
            "on_validation": tables.validation_table(verdict),
        }
        if verdict
        else {}
    )
    return rendering.render_template(
        "report.md.j2",
        history=record,
        base=record.base,
        verdict=verdict,
        **verdict_tables,
        best=best_trial,
        newer=verdict is not None and best_trial is not None and not _was_compared(verdict, best_trial.number),
        tried=describe_trials(record),
        screening=[_screening_row(screened) for screened in record.screening],
        search=list(_search_facts(record).items()),
        settings=[
            (
                key,
                text,
                short(record.default.get(key, "")),
                short(best_trial.params.get(key, "") if best_trial else ""),
            )
            for key, text in record.space.items()
        ],
        trials=[_trial_row(record, t) for t in record.trials],
        metrics=metrics,
        front=[
            (
                t.number,
                *(metric_text(name, t.result.value_of(name)) for name in record.objectives),
                short_params(t.params),
            )
            for t in record.trials
            if t.number in record.front
        ],
        learned=_learned_rows(record),
        compare=next((c for c in record.commands.values() if c.startswith(COMPARE)), f"{COMPARE}{record.study}"),
        baselines=[
            (name, *(f"{o.metrics[m]:.4f}" if m in o.metrics else "" for m in metrics))
            for name, o in record.baselines.items()
        ],
        importances=[(key, f"{share:.2f}") for key, share in record.importances.items()],
        finished=len(record.trials_in_state(State.COMPLETE)),
        figures=figure_names,
        analysis=analysis,
        whose=f"{verdict.winner}, the weights to register" if verdict and judged_record else f"Trial {record.best}",
        confusion=confusion_rows(analysis) if analysis else [],
        per_label=tables.per_label_table(analysis.per_label if analysis else ()),
        slices=slice_rows(analysis) if analysis else [],
        changes=[change_row(c) for c in (judged_record.changes if judged_record else record.changes)],
        cost=_cost(record, verdict),
        made=list(_provenance(record).items()),
    )


def _screening_row(screened: ScreeningResult) -> tuple[str, ...]:
    result = screened.result
    numbers = [result.score, screened.low, screened.high, screened.probe]
    score, low, high, probe = ("" if number is None else f"{number:.4f}" for number in numbers)
    size = "" if result.megabytes is None else f"{result.megabytes:.1f}"
    speed = "" if result.ms_per_1000_texts is None else f"{result.ms_per_1000_texts:.0f}"
    return (
        screened.model,
        score,
        f"[{low}, {high}]" if low else "",
        probe,
        size,
        speed,
        "yes" if screened.kept else "no",
    )


def _learned_rows(record: SearchRecord) -> list[tuple[str, str, str]]:
    """What learned settings gave: the best of them, the default recipe, and the best of all other trials."""
    learned = record.learned_trials
    if not learned:
        return []
    default = [t for t in record.trials if t.origin == DEFAULT_RECIPE]
    others = [t for t in record.trials if t.origin not in (LEARNED, DEFAULT_RECIPE)]
    names = ("best of the learned settings", "default recipe", "best of the other trials")
    rows = []
    for name, trials in zip(names, (learned, default, others), strict=True):
        finished = [t for t in trials if t.state == State.COMPLETE and t.score is not None and t.is_feasible]
        best = max(finished, key=lambda t: gain(t.score or 0.0, record.direction), default=None)
        which = "" if best is None else f"trial {best.number}" + (f" ({best.note})" if best.note else "")
        rows.append((name, which, "none finished" if best is None else f"{best.score:.4f}"))
    return rows


def _was_compared(verdict: Verdict, trial: int) -> bool:
    """Whether this trial's settings were compared."""
    return any(f"trial {trial}" == c.about or f"trial-{trial}" == c.name for c in verdict.contenders)


def _search_facts(record: SearchRecord) -> dict[str, str]:
    data = record.data
    return {
        "data": f"{data.name} ({data.place}): " + ", ".join(f"{n} {split}" for split, n in data.sizes.items()),
        "model": f"{record.base.name}, {record.base.megabytes:.0f} MB, at most {record.base.max_tokens} tokens",
        "budget": describe_budget(record),
        "sampler": record.sampler,
        "pruner": record.pruner,
        "judged at": ", ".join(f"{rung:.0%}" for rung in record.rungs) + " of each trial's schedule",
        **({"objectives": ", ".join(record.objectives)} if record.objectives else {}),
        **({"constraints": ", ".join(record.constraints)} if record.constraints else {}),
        "seed": str(record.seed),
    }


def _trial_row(record: SearchRecord, trial: TrialRecord) -> tuple[object, ...]:
    name = f"{trial.number}" + (" (best)" if trial.number == record.best else "")
    name += f" ({trial.note})" if trial.note else ""
    settings = short_params(trial.params)
    curve = next((c for c in record.curves if c.trial == trial.number), None)
    seen = max((x for x, _ in (*curve.score, *curve.loss)), default=None) if curve else None
    return (
        name,
        trial.state,
        "" if trial.score is None else f"{trial.score:.4f}",
        "" if trial.result.share is None else f"{trial.result.share:.0%}",
        "" if seen is None else round(seen),
        duration(trial.result.seconds) if State(trial.state).is_final else "",
        settings
        + (f" ({notes})" if (notes := "; ".join([trial.result.reason or "", *trial.violates]).strip("; ")) else ""),
    )


def _cost(record: SearchRecord, verdict: Verdict | None) -> list[tuple[str, str, str]]:
    """Wall-clock time, and where the workers' time went."""
    spent: dict[str, float] = defaultdict(float)
    for entry in record.stretches:
        kind = "baselines" if entry.what.startswith("baseline") else f"trials that ended {entry.state}"
        spent[kind] += entry.ended - entry.began
    total = sum(spent.values())
    rows = [("searching, wall-clock", duration(record.seconds), "")]
    rows += [(kind, duration(seconds), f"{seconds / total:.0%}") for kind, seconds in spent.items()]
    if verdict:
        seconds = sum(r.seconds for c in verdict.contenders for r in c.repeats)
        trainings = sum(len(c.repeats) for c in verdict.contenders)
        rows.append((f"comparing: {trainings} trainings on fresh seeds", duration(seconds), ""))
    return rows


def _provenance(record: SearchRecord) -> dict[str, str]:
    return {
        "run": record.run_id or "",
        "machine": record.machine,
        "code": record.commit or "",
        "versions": ", ".join(f"{name} {number}" for name, number in record.versions.items()),
        "written": record.made,
    }
