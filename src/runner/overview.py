"""How studies stand: all of them in a table, one with its trials, and its trials as a file."""

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from src.errors import Refusal, first_line, sentence
from src.paths import Paths
from src.records import State, TrialRecord
from src.runner import studies
from src.runner.contenders import launched
from src.runner.studies import Studied
from src.search.account import in_short, minutes
from src.search.stopping import best_of
from src.text import sources
from src.verdict.record import Verdict, recorded


@dataclass(frozen=True)
class Row:
    """One study in the table of all."""

    name: str
    state: str
    trials: str = ""
    metric: str = ""
    best: str = ""
    spent: str = ""
    disk: str = ""
    verdict: str = ""


def show(study: str | None, export: str | None, paths: Paths) -> None:
    """Raises Refusal for a study that is not there, or a file of another kind."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    if export is not None:
        _export(studies.load(study, paths), Path(export))
    elif study is not None:
        _one(studies.load(study, paths), console)
    else:
        _all(paths, console)


def _all(paths: Paths, console: Console) -> None:
    rows = list(overview(paths))
    if not rows:
        raise Refusal(f"No study has been searched in {paths.root}. Search: python -m src.sweep -m")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("study", "state", "trials", "metric", "best", "searched for", "disk", "verdict"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("state", "verdict"))
    for row in rows:
        table.add_row(*vars(row).values())
    console.print(table)


def overview(paths: Paths) -> Iterator[Row]:
    """A row for every study whose folder is here. One that cannot be read says why."""
    for name in studies.known(paths):
        try:
            yield _row(studies.load(name, paths))
        except (Refusal, OSError) as problem:
            yield Row(name, f"cannot be read: {first_line(problem)}")


def _row(studied: Studied) -> Row:
    book = studied.book
    trials = book.trials()
    ended = [t for t in trials if State(t.state).final]
    best, metric = best_of(ended, book.direction), studied.settings.study.metric
    found = recorded(studied.folder)
    return Row(
        studied.name,
        state_of(studied),
        f"{len(ended)} of {book.rules.n_trials}",
        metric,
        "" if best is None else f"{best.score:.4f} (trial {best.number})",
        minutes(book.spent()),
        f"{sum(f.stat().st_size for f in book.folder.rglob('*') if f.is_file()) / 1e9:.2f} GB",
        "" if found is None else f"{found.winner}: {_judged(found)}",
    )


def _judged(verdict: Verdict) -> str:
    against = verdict.versus(verdict.best_baseline)
    score = verdict.contender(verdict.winner).test
    shown = f"test {verdict.metric} {score[verdict.metric].value:.4f}" if verdict.metric in score else "judged"
    return f"{shown}, {against.verdict} against {against.other}" if against else shown


def state_of(studied: Studied) -> str:
    """In words: searched now, over and why, or to be continued."""
    book = studied.book
    if held := book.in_work():
        return f"searched now (trial{'s' * (len(held) > 1)} {', '.join(map(str, held))})"
    if reason := book.enough():
        return f"over: {reason}{'; it is being compared now' * launched(studied.folder)}"
    return "no trial is in work: it starts, or has stopped on the way; the same command continues it"


def _one(studied: Studied, console: Console) -> None:
    book, metric = studied.book, studied.settings.study.metric
    trials = book.trials()
    held = book.in_work()
    states = {t.number: _state(t, held) for t in trials}
    counts = ", ".join(f"{n} {state}" for state, n in Counter(states.values()).items())
    console.print(f"Study {studied.name}, {metric}: {state_of(studied)}", markup=False, soft_wrap=True)
    console.print(f"Trials: {counts or 'none'}; {minutes(book.spent())} of searching.\n", markup=False, soft_wrap=True)
    best = best_of(trials, book.direction)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "state", metric, "at", "took"):
        table.add_column(name, no_wrap=True, justify="left" if name == "state" else "right")
    table.add_column("settings", overflow="fold")
    table.add_column("", overflow="fold")
    for trial in trials:
        score = trial.score if trial.score is not None else trial.rung_score
        table.add_row(
            f"{trial.number}{' *' if best is not None and trial.number == best.number else ''}",
            states[trial.number],
            "" if score is None else f"{score:.4f}",
            _at(trial),
            "" if trial.seconds is None else f"{trial.seconds:.0f} s",
            in_short(trial.params),
            trial.reason or ("" if trial.origin == "sampler" else trial.origin),
        )
    console.print(table, soft_wrap=False)
    for name, outcome in book.baselines().items():
        shown = outcome.reason or "" if outcome.score is None else f"{outcome.score:.4f}"
        console.print(f"baseline {name}  {shown}", markup=False, soft_wrap=True)


def _state(trial: TrialRecord, held: Collection[int]) -> str:
    """A trial that nobody works on waits for whoever continues the study."""
    return "WAITING" if trial.state == State.RUNNING and trial.number not in held else str(trial.state)


def _at(trial: TrialRecord) -> str:
    """How far its training got, in percent of its schedule."""
    if trial.share is not None:
        return f"{trial.share:.0%}"
    return "" if trial.rung is None else f"{trial.rung}%"


def frame_of(studied: Studied) -> pd.DataFrame:
    """A row per trial: the study's own columns, params.<key>, metrics.<name>."""
    rows = []
    for trial in studied.book.trials():
        own = {k: v for k, v in vars(trial).items() if k not in ("params", "metrics")}
        params = {f"params.{key}": value for key, value in trial.params.items()}
        metrics = {f"metrics.{name}": value for name, value in trial.metrics.items()}
        rows.append({**own, "state": str(trial.state), **params, **metrics})
    return pd.DataFrame(rows)


def _export(studied: Studied, out: Path) -> None:
    if out.suffix.lower() not in sources.FORMATS:
        raise Refusal(f"--export is {out}; a table goes to a file that ends with {', '.join(sources.FORMATS)}.")
    frame = frame_of(studied)
    if frame.empty:
        raise Refusal(f"The study {studied.name} has no trial yet: there is nothing to export.")
    try:
        sources.write_file(frame, out)
    except OSError as error:
        raise Refusal(f"--export is {out}, and nothing can be written there: {sentence(first_line(error))}") from error
    print(f"{len(frame)} trial{'s' * (len(frame) > 1)} of {studied.name}: {out}")
