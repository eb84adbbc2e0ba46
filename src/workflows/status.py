"""Shows studies: all in a table, one with its trials, or the trials of one as a file."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src.comparison import saved_study
from src.comparison.launch_lock import is_being_compared
from src.comparison.saved_study import SavedStudy
from src.console.output import Column, Console
from src.core.errors import InvalidInput, first_line, with_full_stop
from src.core.formatting import duration, metric_text, plural, short_params
from src.core.paths import Paths
from src.core.records import State, TrialRecord
from src.data.files import formats
from src.search.stopping import best_trial, own_trials
from src.verdict.records import Verdict, load_verdict

EXPORTED = (
    "number", "state", "score", "reason", "rung", "rung_score", "share", "steps", "seconds", "run_id", "megabytes",
    "ms_per_1000_texts", "origin", "source_study", "source_trial", "violates",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One study in the table of all studies."""

    name: str
    state: str
    trials: str = ""
    metric: str = ""
    best: str = ""
    spent: str = ""
    disk: str = ""
    verdict: str = ""


def show_status(study: str | None, export: str | None, paths: Paths) -> None:
    """Print all studies or one, or export one. Raises InvalidInput if the study or the file's format is unknown."""
    console = Console()
    if export is not None:
        _export(saved_study.load_study(study, paths), Path(export), console)
    elif study is not None:
        _show_one(saved_study.load_study(study, paths), console)
    else:
        _show_all(paths, console)


def _show_all(paths: Paths, console: Console) -> None:
    rows = list(status_rows(paths))
    if not rows:
        raise InvalidInput(f"No study has been searched in {paths.root}. Search: python -m src.sweep -m")
    names = ("study", "state", "trials", "metric", "best", "searched for", "disk", "verdict")
    columns = [Column(name, wrap=name in ("state", "verdict")) for name in names]
    console.table(columns, [tuple(vars(row).values()) for row in rows], soft_wrap=False)


def status_rows(paths: Paths) -> Iterator[Row]:
    """A row for every study in this folder. If one cannot be read, its row has the reason."""
    for name in saved_study.study_names(paths):
        try:
            yield _row(saved_study.load_study(name, paths))
        except Exception as problem:  # a damaged study raises errors of any type, and hides no other study
            yield Row(name, f"cannot be read: {first_line(problem)}")


def _row(saved: SavedStudy) -> Row:
    study = saved.study
    trials = study.trials()
    ended = [t for t in trials if State(t.state).is_final]
    own = own_trials(ended)
    best, metric = best_trial(ended, study.direction), ", ".join(saved.settings.study.objectives)
    verdict = load_verdict(saved.comparison_dir)
    return Row(
        saved.name,
        state_of(saved),
        f"{len(own)} of {study.limits().n_trials}" + (f" + {n} inherited" if (n := len(ended) - len(own)) else ""),
        metric,
        "" if best is None else f"{best.score:.4f} (trial {best.number})",
        duration(study.seconds_spent()),
        f"{sum(f.stat().st_size for f in study.folder.rglob('*') if f.is_file()) / 1e9:.2f} GB",
        "" if verdict is None else f"{verdict.winner}: {_judged(verdict)}",
    )


def _judged(verdict: Verdict) -> str:
    against = verdict.result_against(verdict.best_baseline)
    score = verdict.contender(verdict.winner).test
    text = f"test {verdict.metric} {score[verdict.metric].value:.4f}" if verdict.metric in score else "judged"
    return f"{text}, {against.verdict} against {against.other}" if against else text


def state_of(saved: SavedStudy) -> str:
    """A study's state in words: being searched, over and why, or to be continued."""
    study = saved.study
    if held := study.trials_in_progress():
        return f"searched now ({'trial' if len(held) == 1 else 'trials'} {', '.join(map(str, held))})"
    if reason := study.end_reason():
        return f"over: {reason}{'; it is being compared now' * is_being_compared(saved.comparison_dir)}"
    return "no trial is running: the study is starting or was interrupted; the same command continues it"


def _show_one(saved: SavedStudy, console: Console) -> None:
    study, metric = saved.study, saved.settings.study.metric
    trials = study.trials()
    held = study.trials_in_progress()
    states = {t.number: _state(t, held) for t in trials}
    front = _front(saved)
    counts = ", ".join(f"{n} {state}" for state, n in Counter(states.values()).items())
    measured = saved.settings.study.measured[1:]
    console.print(f"Study {saved.name}, {', '.join(saved.settings.study.objectives)}: {state_of(saved)}")
    if bounds := saved.settings.study.constraint_texts:
        console.print(f"Constraints: {', '.join(bounds)}")
    console.print(f"Trials: {counts or 'none'}; {duration(study.seconds_spent())} of searching.\n")
    best = best_trial(trials, study.direction)
    columns = [Column(name, right=name != "state") for name in ("trial", "state", metric, *measured, "at", "took")]
    rows = []
    for trial in trials:
        score = trial.score if trial.score is not None else trial.rung_score
        rows.append(
            (
                f"{trial.number}{' *' if best is not None and trial.number == best.number else ''}",
                states[trial.number],
                "" if score is None else f"{score:.4f}",
                *(
                    metric_text(name, trial.result.value_of(name)) if trial.state == State.COMPLETE else ""
                    for name in measured
                ),
                _trial_position(trial),
                f"{trial.result.seconds:.0f} s" if State(trial.state).is_final else "",
                short_params(trial.params),
                "; ".join(
                    filter(
                        None,
                        [
                            trial.result.reason or trial.note,
                            *trial.violates,
                            "on the front" if trial.number in front else "",
                        ],
                    )
                ),
            )
        )
    console.table([*columns, Column("settings", wrap=True), Column("", wrap=True)], rows, soft_wrap=False)
    for name, result in study.baseline_results().items():
        shown = result.reason or "" if result.score is None else f"{result.score:.4f}"
        console.print(f"baseline {name}  {shown}")


def _front(saved: SavedStudy) -> set[int]:
    """The trials on the front; none, if the study has one objective."""
    return {t.number for t in saved.study.front()} if saved.settings.study.has_several_objectives else set()


def _state(trial: TrialRecord, held: Collection[int]) -> str:
    """A trial's state in words. A running trial that no worker holds waits until the study is continued."""
    return "WAITING" if trial.state == State.RUNNING and trial.number not in held else str(trial.state)


def _trial_position(trial: TrialRecord) -> str:
    """How far the training has got, in percent of its schedule."""
    if trial.result.share is not None:
        return f"{trial.result.share:.0%}"
    return "" if trial.rung is None else f"{trial.rung}%"


def trials_frame(saved: SavedStudy) -> pd.DataFrame:
    """A row per trial: the columns of EXPORTED, params.<key>, metrics.<name>; with several objectives, on_front."""
    rows = []
    several, front = saved.settings.study.has_several_objectives, _front(saved)
    for trial in saved.study.trials():
        values = trial.to_dict() | {"violates": "; ".join(trial.violates)}
        params = {f"params.{key}": value for key, value in trial.params.items()}
        metrics = {f"metrics.{name}": value for name, value in trial.result.metrics.items()}
        row = {**{name: values[name] for name in EXPORTED}, "state": str(trial.state), **params, **metrics}
        rows.append(row | ({"on_front": trial.number in front} if several else {}))
    return pd.DataFrame(rows)


def _export(saved: SavedStudy, out: Path, console: Console) -> None:
    if out.suffix.lower() not in formats.TABLE_FORMATS:
        raise InvalidInput(
            f"--export is {out}; a table goes to a file that ends with {', '.join(formats.TABLE_FORMATS)}."
        )
    frame = trials_frame(saved)
    if frame.empty:
        raise InvalidInput(f"The study {saved.name} has no trial yet: there is nothing to export.")
    try:
        formats.write_frame(frame, out)
    except OSError as error:
        raise InvalidInput(
            f"--export is {out}, and nothing can be written there: {with_full_stop(first_line(error))}"
        ) from error
    console.print(f"{plural(len(frame), 'trial')} of {saved.name}: {out}")
