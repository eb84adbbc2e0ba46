"""The verdict: from the answers on the test split to records, MLflow and the terminal."""

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from rich.table import Table

from src import mirror
from src.evidence.store import Store
from src.pages.analysis import Analysis, analyse
from src.paths import write_whole
from src.records import Outcome, State
from src.runner import contenders
from src.runner.choice import Choice, finished, scores
from src.runner.contenders import DEFAULT, TRAINING, TUNED, Contender, Repeat
from src.runner.studies import Studied
from src.search.account import Account
from src.text import seal
from src.verdict import judgement, tables
from src.verdict import scores as metrics
from src.verdict.record import VERDICT, ContenderRecord, RepeatRecord, Verdict, recorded

ANALYSIS = "analysis.json"
GONE = "gone"  # a training's folder on its way out
RECORDED = "recorded"  # when the verdict was made that MLflow has


def on_record(folder: Path, verdict: Verdict) -> bool:
    """Whether MLflow has all of this verdict."""
    file = folder / RECORDED
    return file.exists() and file.read_text() == verdict.made


def registered_name(verdict: Verdict) -> str:
    """Names the training that a verdict registers: the study, the winner's recipe, the seed."""
    winner = verdict.contender(verdict.winner)
    return f"{verdict.uid}/{winner.key}/{winner.registered_seed}"


def answered(choice: Choice) -> bool:
    """Whether everybody for whom the test split was opened has answered it, and there are weights to register."""
    files = [r.answers for r in choice.tested] + [contenders.fixed_answers(c, choice.folder) for c in choice.fixed]
    return all(f.exists() for f in files) and choice.registered.weights.is_dir()


def judge(studied: Studied, choice: Choice, margin: float, registry: str) -> Verdict:
    """Work out the verdict, and keep it; reads answers and labels of the opened test split."""
    line_up, rules = choice.line_up, studied.settings.study
    ledger = studied.paths.openings(studied.corpus.fingerprints["test"])
    frame = seal.read(studied.corpus, ledger, seal.Opening(choice.opening, choice.key))
    labels = frame["label"].to_numpy()
    answers = {name: np.stack(each) for name, each in _answers(choice).items()}
    draws = judgement.draws(labels, answers)
    rows = [_contender(studied, choice, c, labels, answers.get(c.name)) for c in line_up.contenders]
    n_labels = len(studied.corpus.label_names)
    rows = [
        replace(row, test=judgement.intervals(draws, row.name, n_labels)) if row.name in answers else row
        for row in rows
    ]
    others = tuple(name for name in answers if name != choice.winner)
    question = judgement.Question(choice.winner, others, rules.metric, margin, len(line_up.candidates))
    registered = {row.name: answers[row.name][_registered(row)] for row in rows if row.name in answers}
    before = recorded(choice.folder)
    verdict = Verdict(
        number=before.number + 1 if before else 1,
        study=studied.name,
        uid=studied.uid,
        key=line_up.base,
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        data=studied.corpus.name,
        fingerprints=dict(studied.corpus.fingerprints),
        registry=registry,
        metric=rules.metric,
        direction=studied.book.direction,
        margin=margin,
        seeds=line_up.seeds,
        test_examples=len(labels),
        chosen_among=len(line_up.candidates),
        contenders=tuple(rows),
        winner=choice.winner,
        best_baseline=choice.best_baseline,
        against=judgement.against(draws, question, labels, registered),
        opening=choice.opening,
        openings=len(seal.openings(ledger)),
        champion=line_up.champion.version if line_up.champion else None,
        champion_key=line_up.champion.key if line_up.champion else "",
        notes=line_up.notes,
    )
    baseline = answers[choice.best_baseline][0] if choice.best_baseline else None
    with suppress(Exception):  # data of a kind not thought of: a verdict without an analysis is better than none
        found = analyse("test", frame, registered[choice.winner], studied.corpus.label_names, baseline)
        write_whole(choice.folder / ANALYSIS, json.dumps({"made": verdict.made, "analysis": asdict(found)}))
    write_whole(choice.folder / VERDICT, verdict.to_json())
    return verdict


def analysed(folder: Path, verdict: Verdict) -> Analysis | None:
    """Where the weights to register err on the test split, in numbers, as it was found with this verdict."""
    file = folder / ANALYSIS
    found = json.loads(file.read_text()) if file.exists() else {}
    return TypeAdapter(Analysis).validate_python(found["analysis"]) if found.get("made") == verdict.made else None


def record(studied: Studied, verdict: Verdict, store: Store, account: Account) -> None:
    """Everything onto the MLflow runs; then the weights that nobody will ask for go."""
    problems: list[str | None] = []
    for row in verdict.contenders:
        run = mirror.contender_run(studied.book, studied.folder, row.key, row.name)
        run.params(row.params)
        mirror.record_contender(run, row, verdict)
        seeds = verdict.seeds if row.kind in (DEFAULT, TUNED) else ()
        problems += [_record_repeat(studied, row, seed, store) for seed in seeds]
        run.status(State.FAIL if row.problem else State.COMPLETE)
        run.deliver(store, patient=True)
        problems.append(run.problem)
    study = mirror.study_run(studied.book)
    mirror.record_verdict(study, verdict)
    study.deliver(store, patient=True)
    keep_registered(studied, verdict)
    if waiting := next((p for p in [*problems, study.problem] if p), None):
        account.say(f"  note: records wait in {studied.folder} ({waiting}); the same command delivers them.")
    else:
        write_whole(studied.folder / RECORDED, verdict.made)


def keep_registered(studied: Studied, verdict: Verdict) -> None:
    """Delete the weights of all trainings but the one to register: their answers and records stay."""
    winner = verdict.contender(verdict.winner)
    kept = contenders.repeat_folder(winner.key, winner.registered_seed or 0, studied.folder)
    for row in verdict.contenders:
        for seed in verdict.seeds:
            folder = contenders.repeat_folder(row.key, seed, studied.folder)
            if folder != kept and (folder / TRAINING).exists():
                (folder / TRAINING).rename(folder / GONE)
            shutil.rmtree(folder / GONE, ignore_errors=True)


def say(verdict: Verdict, account: Account) -> None:
    """The tables and the verdict on the terminal, and what to type next."""
    for head, rows in tables.all_of(verdict):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, name in enumerate(head):
            last = name == "settings"
            table.add_column(name, justify="left" if i == 0 or last else "right", overflow="fold", no_wrap=not last)
        for row in rows:
            table.add_row(*row)
        account.say()
        account.console.print(table, soft_wrap=True)
    account.say()
    for sentence in tables.sentences(verdict):
        account.say(sentence)
    account.say(f"\nNext: python -m src.promote study.name={verdict.study}")


def _answers(choice: Choice) -> Mapping[str, list[np.ndarray]]:
    """Chances by contender, a list entry per repeat, in the order of the contenders."""
    found: dict[str, list[np.ndarray]] = {}
    tested = {(r.contender.name, r.seed): r for r in choice.tested}
    for contender in choice.line_up.contenders:
        if not contender.trained:
            found[contender.name] = [np.load(contenders.fixed_answers(contender, choice.folder))]
            continue
        mine = [tested[contender.name, s] for s in choice.line_up.seeds if (contender.name, s) in tested]
        if mine:
            found[contender.name] = [np.load(repeat.answers) for repeat in mine]
    return found


def _contender(
    studied: Studied, choice: Choice, contender: Contender, labels: np.ndarray, answers: np.ndarray | None
) -> ContenderRecord:
    line_up, keys = choice.line_up, [p.key for p in studied.book.space.parameters]
    if not contender.trained:
        outcome = studied.book.baselines().get(contender.name, Outcome(State.COMPLETE))
        return ContenderRecord(
            contender.name, contender.kind, contender.key, contender.about, params={}, search_score=None,
            validation=outcome.score, spread=None, optimism=None, registered_seed=None, repeats=(), test={},
            megabytes=outcome.megabytes, ms_per_1000_texts=outcome.ms_per_1000_texts,
        )  # fmt: skip
    done = [contenders.repeat(contender, seed, choice.folder) for seed in line_up.seeds]
    done = [r for r in done if finished(r.outcome())]
    found = scores(contender, line_up, choice.folder)
    points = None if answers is None else metrics.points(labels, answers)
    repeats = tuple(_repeat(studied, repeat, None if points is None else {m: float(v[i]) for m, v in points.items()})
                    for i, repeat in enumerate(done))  # fmt: skip
    failed = len(line_up.seeds) - len(done)
    sign = -1.0 if studied.book.direction == "minimize" else 1.0
    mean = float(np.mean(found)) if found else None
    searched = contender.search_score
    median = judgement.median_of(found) if done else 0
    own = done[median].outcome() if done else None
    return ContenderRecord(
        name=contender.name,
        kind=contender.kind,
        key=contender.key,
        about=contender.about,
        params=contenders.params_of(contender, keys),
        search_score=searched,
        validation=mean,
        spread=float(np.std(found, ddof=1)) if len(found) > 1 else None,
        optimism=sign * (searched - mean) if searched is not None and mean is not None else None,
        registered_seed=done[median].seed if done else None,
        repeats=repeats,
        test={},
        megabytes=own.megabytes if own else None,
        ms_per_1000_texts=own.ms_per_1000_texts if own else None,
        problem=f"{failed} of {len(line_up.seeds)} seeds failed" if failed else None,
    )


def _registered(row: ContenderRecord) -> int:
    """Which of its repeats would be registered; the only one there is of a contender without seeds."""
    return next((i for i, r in enumerate(row.repeats) if r.seed == row.registered_seed), 0)


def _repeat(studied: Studied, repeat: Repeat, test: dict[str, float] | None) -> RepeatRecord:
    outcome = repeat.outcome()
    assert outcome is not None
    run = mirror.repeat_run(studied.book, studied.folder, repeat.contender.key, repeat.contender.name, repeat.seed)
    return RepeatRecord(repeat.seed, run.known_id, dict(outcome.metrics), test or {}, outcome.seconds)


def _record_repeat(studied: Studied, row: ContenderRecord, seed: int, store: Store) -> str | None:
    """The test figures of one training; and its end, where a killed worker could not write it."""
    folder = contenders.repeat_folder(row.key, seed, studied.folder)
    run = mirror.repeat_run(studied.book, studied.folder, row.key, row.name, seed)
    outcome = Outcome.from_json((folder / "outcome.json").read_text())
    if not run.ended:
        mirror.record_outcome(run, outcome)
    test = next((r.test for r in row.repeats if r.seed == seed), {})
    run.metrics(outcome.steps or 0, {f"test/{name}": value for name, value in test.items()})
    run.deliver(store, patient=True)
    return run.problem
