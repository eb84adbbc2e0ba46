"""A study among processes: exact totals, no trial twice, dead workers' trials taken up, definitions kept."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from src.errors import Refusal
from src.records import Evaluation, Outcome, State
from src.search import leases
from tests.test_proposals import finish, open_book

SPAWN = multiprocessing.get_context("spawn")


def feed(folder: str, *overrides: str) -> None:
    """A worker whose training is a short sleep."""
    book = open_book(Path(folder), *overrides)
    while (claim := book.claim()) is not None:
        time.sleep(0.01)
        book.tell(claim.number, Outcome(State.COMPLETE, score=claim.number / 100))


def claim_and_hang(folder: str, *overrides: str) -> None:
    open_book(Path(folder), *overrides).claim()
    (Path(folder) / "claimed").touch()
    time.sleep(600)


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_four_workers_make_the_exact_total_and_no_point_twice(tmp_path: Path, storage: str) -> None:
    overrides = [f"storage={storage}", "study.n_trials=30", "sampler=random"]
    if storage == "sqlite":
        overrides.append(f"storage.url=sqlite:///{tmp_path}/optuna.db")
    workers = [SPAWN.Process(target=feed, args=(str(tmp_path / "s"), *overrides)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    trials = open_book(tmp_path / "s", *overrides).trials()
    assert [t.number for t in trials] == list(range(30))
    assert {t.state for t in trials} == {State.COMPLETE}
    assert len({json.dumps(dict(t.params), sort_keys=True) for t in trials}) == 30


def test_a_killed_workers_trial_is_taken_up_under_its_number(tmp_path: Path) -> None:
    worker = SPAWN.Process(target=claim_and_hang, args=(str(tmp_path), "study.n_trials=2"))
    worker.start()
    wait_for(tmp_path / "claimed")
    book = open_book(tmp_path, "study.n_trials=2")
    (begun,) = book.trials()
    assert book.claim().number == 1  # trial 0 is in living hands
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    again = book.claim()
    assert (again.number, again.point, again.starts) == (0, begun.params, 2)
    assert book.claim() is None


def test_a_trial_that_kills_every_worker_ends_as_failed(tmp_path: Path) -> None:
    book = open_book(tmp_path, "study.n_trials=2")
    for _ in range(3):
        assert book.claim().number == 0
        leases.drop(tmp_path / "trials" / "0000" / "lease.json")
    assert book.claim().number == 1
    assert book.trials()[0].state == State.FAIL
    assert book.trials()[0].reason == "its worker died 3 times"


def test_an_end_stored_before_the_kill_counts(tmp_path: Path) -> None:
    book = open_book(tmp_path, "study.n_trials=1")
    claim = book.claim()
    details = {"state": "COMPLETE", "score": 0.7, "reason": None}
    claim.trial.set_user_attr("outcome", details)
    leases.drop(claim.folder / "lease.json")
    assert book.claim() is None
    assert (book.trials()[0].state, book.trials()[0].score) == (State.COMPLETE, 0.7)


def test_a_reused_process_id_does_not_hold_a_lease(tmp_path: Path) -> None:
    lease = tmp_path / "lease.json"
    leases.take(lease)
    assert leases.alive(lease)
    content = json.loads(lease.read_text())
    lease.write_text(json.dumps(content | {"started": content["started"] - 60}))
    assert not leases.alive(lease)


@pytest.mark.parametrize(("what", "value"), [("space", {"a": "b"}), ("metric", "f1"), ("data", "other")])
def test_a_changed_definition_is_refused_with_the_two_ways_out(tmp_path: Path, what: str, value: object) -> None:
    book = open_book(tmp_path)
    with pytest.raises(Refusal) as caught:
        book.existing({"space": book.space.describe(), what: value})
    assert f"The study s exists, defined otherwise: {what} was" in str(caught.value)
    assert str(caught.value).endswith("Either undo the change and continue it, or start another one: study.name=s-2.")


def test_pruning_compares_scores_at_the_same_share_of_the_schedule(tmp_path: Path) -> None:
    book = open_book(tmp_path, "study.n_trials=9")
    for _ in range(4):
        claim = book.claim()
        assert book.report(claim, evaluation(0.25, 0.5, step=1000 * (claim.number + 1))) is None
        book.report(claim, evaluation(1.0, 0.9, step=9999))
        book.tell(claim.number, Outcome(State.COMPLETE, score=0.9))
    good, bad = book.claim(), book.claim()
    assert book.report(good, evaluation(0.25, 0.55, step=7)) is None  # below 0.9, but above 0.5 at its own share
    reason = book.report(bad, evaluation(0.25, 0.4, step=7))
    assert reason == "MedianPruner: accuracy 0.4000 after 25 % of its schedule"
    book.tell(bad.number, Outcome(State.PRUNED, score=0.4, reason=reason))
    assert (book.trials()[5].state, book.trials()[5].reason) == (State.PRUNED, reason)


@pytest.mark.parametrize("pruner", ["none", "median", "halving", "hyperband", "patient"])
def test_every_pruner_judges_a_study_to_its_end(tmp_path: Path, pruner: str) -> None:
    book = open_book(tmp_path, f"pruner={pruner}", "study.n_trials=14")
    while (claim := book.claim()) is not None:
        level = ((claim.number * 5) % 14) / 14
        reason = None
        for share in (0.25, 0.5, 1.0):
            reason = reason or book.report(claim, evaluation(share, level + share / 10 - (level < 0.3) * share, step=1))
        state = State.PRUNED if reason else State.COMPLETE
        book.tell(claim.number, Outcome(state, score=level, reason=reason))
    states = [t.state for t in book.trials()]
    assert len(states) == 14
    assert states.count(State.PRUNED) == 0 if pruner == "none" else states.count(State.PRUNED) > 0


def test_the_time_spent_adds_up_over_resumes(tmp_path: Path) -> None:
    open_book(tmp_path).spend(10)
    book = open_book(tmp_path, "study.budget_minutes=0.5")
    book.spend(19)
    assert book.enough() is None
    book.spend(1.5)
    assert book.enough() == "the budget of 0.5 minutes is spent"
    assert finish(book) == []


def evaluation(share: float, accuracy: float, step: int) -> Evaluation:
    return Evaluation(step, share, step * 16, {"accuracy": accuracy}, 0.1)


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)
