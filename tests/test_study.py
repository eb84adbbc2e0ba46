"""A study among processes: exact totals, no trial twice, dead workers' trials taken up, definitions kept."""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from src.errors import BookLost, Refusal
from src.learning import resume
from src.records import Evaluation, Outcome, State
from src.search import leases, life
from src.search.study import DEFAULT_RECIPE, LABELS, Book, definition
from tests.conftest import PROCESSES
from tests.test_proposals import finish, open_book


def feed(folder: str, *overrides: str) -> None:
    """A worker whose training is a short sleep."""
    book = open_book(Path(folder), *overrides)
    while (claim := life.claim(book)) is not None:
        time.sleep(0.01)
        life.tell(book, claim.number, Outcome(State.COMPLETE, score=claim.number / 100))


def claim_and_hang(folder: str, *overrides: str) -> None:
    life.claim(open_book(Path(folder), *overrides))
    (Path(folder) / "claimed").touch()
    time.sleep(600)


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.long)])
def test_four_workers_make_the_exact_total_and_no_point_twice(tmp_path: Path, storage: str) -> None:
    overrides = [f"storage={storage}", "study.n_trials=30", "sampler=random"]
    if storage == "sqlite":
        overrides.append(f"storage.url=sqlite:///{tmp_path}/optuna.db")
    make_thirty([tmp_path / "s"] * 4, *overrides)


def make_thirty(folders: Sequence[Path], *overrides: str) -> None:
    """A worker in each of the folders; together they make 30 trials, and no point twice."""
    workers = [PROCESSES.Process(target=feed, args=(str(folder), *overrides)) for folder in folders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    trials = open_book(folders[0], *overrides).trials()
    assert [t.number for t in trials] == list(range(30))
    assert {t.state for t in trials} == {State.COMPLETE}
    assert len({json.dumps(dict(t.params), sort_keys=True) for t in trials}) == 30


def test_a_killed_workers_trial_is_taken_up_under_its_number(tmp_path: Path) -> None:
    worker = PROCESSES.Process(target=claim_and_hang, args=(str(tmp_path), "study.n_trials=2"))
    worker.start()
    wait_for(tmp_path / "claimed")
    book = open_book(tmp_path, "study.n_trials=2")
    (begun,) = book.trials()
    assert life.claim(book).number == 1  # trial 0 is in living hands
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    again = life.claim(book)
    assert (again.number, again.point, again.starts) == (0, begun.params, 2)
    assert life.claim(book) is None


def test_others_wait_for_the_default_recipe_where_it_is_to_be_alone_and_a_dead_worker_holds_nobody_up(
    tmp_path: Path,
) -> None:
    worker = PROCESSES.Process(target=claim_and_hang, args=(str(tmp_path), "study.n_trials=2"))
    worker.start()
    wait_for(tmp_path / "claimed")
    book = open_book(tmp_path, "study.n_trials=2")
    assert life.default_in_work(book)
    assert life.claim(book, default_alone=True) is None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not life.default_in_work(book)
    mine = life.claim(book, default_alone=True)
    assert (mine.number, mine.origin) == (0, DEFAULT_RECIPE)
    life.tell(book, mine.number, Outcome(State.FAIL))
    assert life.claim(book, default_alone=True).number == 1


def test_the_default_recipe_has_one_trial_whatever_the_config_says_later(tmp_path: Path) -> None:
    finish(open_book(tmp_path, "study.n_trials=2"))
    later = open_book(tmp_path, "study.n_trials=4", "optimizer.learning_rate=2e-4")
    finish(later)
    assert [t.number for t in later.trials() if t.origin == DEFAULT_RECIPE] == [0]


def test_a_study_keeps_its_labels_names(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    now = definition(book.settings, book.space, "data", "weights")
    book.study.set_user_attr("definition", now)
    assert book.existing(now)
    with pytest.raises(Refusal, match=r"data\.label_names was"):
        book.existing(now | {LABELS: ["positive", "negative"]})
    book.study.set_user_attr("definition", {k: v for k, v in now.items() if k != LABELS})  # as of old
    assert book.existing(now)


def test_a_proxy_that_fails_is_no_fault_of_a_trial() -> None:
    grpc = pytest.importorskip("grpc")
    with pytest.raises(BookLost), life.kept():
        raise grpc.RpcError("UNKNOWN")
    with pytest.raises(OSError, match="a disk"), life.kept(files_too=False):
        raise OSError("a disk")


def test_a_trial_that_kills_every_worker_ends_as_failed(tmp_path: Path) -> None:
    book = open_book(tmp_path, "study.n_trials=2")
    for _ in range(4):
        assert life.claim(book).number == 0
        book.leases.drop(book.lease(0))
    assert life.claim(book).number == 1
    assert book.trials()[0].state == State.FAIL
    assert book.trials()[0].reason == "its worker died 4 times at the same place"


def test_an_end_stored_before_the_kill_counts(tmp_path: Path) -> None:
    book = open_book(tmp_path, "study.n_trials=1")
    claim = life.claim(book)
    details = {"state": "COMPLETE", "score": 0.7}
    claim.trial.set_user_attr("outcome", details)
    book.leases.drop(book.lease(0))
    assert life.claim(book) is None
    assert (book.trials()[0].state, book.trials()[0].score) == (State.COMPLETE, 0.7)


def test_a_reused_process_id_does_not_hold_a_lease(tmp_path: Path) -> None:
    held = leases.InFolder(tmp_path)
    held.take("trials/1")
    assert held.alive("trials/1")
    file = tmp_path / "trials" / "1" / "lease.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"started": "another boot/1"}))
    assert not held.alive("trials/1")


def test_a_lease_of_another_host_lives_while_it_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = leases.InFolder(tmp_path)
    file = tmp_path / "a" / "lease.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0}))
    assert held.alive("a")
    old = time.time() - leases.SILENCE_SECONDS - 1
    os.utime(file, (old, old))
    assert not held.alive("a")
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    with held.kept("a"):
        wait_for(file)
        time.sleep(0.2)
    assert held.alive("a")


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
        claim = life.claim(book)
        assert life.report(book, claim, evaluation(0.25, 0.5, step=1000 * (claim.number + 1))) is None
        life.report(book, claim, evaluation(1.0, 0.9, step=9999))
        life.tell(book, claim.number, Outcome(State.COMPLETE, score=0.9))
    good, bad = life.claim(book), life.claim(book)
    assert life.report(book, good, evaluation(0.25, 0.55, step=7)) is None  # below 0.9, but above 0.5 at its own share
    reason = life.report(book, bad, evaluation(0.25, 0.4, step=7))
    assert (reason.state, reason.reason) == (State.PRUNED, "MedianPruner: accuracy 0.4000 after 25 % of its schedule")
    life.tell(book, bad.number, Outcome(State.PRUNED, score=0.4, reason=reason.reason))
    assert (book.trials()[5].state, book.trials()[5].reason) == (State.PRUNED, reason.reason)


@pytest.mark.parametrize("pruner", ["none", "median", "halving", "hyperband", "patient"])
def test_every_pruner_judges_a_study_to_its_end(tmp_path: Path, pruner: str) -> None:
    book = open_book(tmp_path, f"pruner={pruner}", "study.n_trials=14")
    while (claim := life.claim(book)) is not None:
        level = ((claim.number * 5) % 14) / 14
        reason = None
        for share in (0.25, 0.5, 1.0):
            reason = reason or life.report(
                book, claim, evaluation(share, level + share / 10 - (level < 0.3) * share, step=1)
            )
        state = State.PRUNED if reason else State.COMPLETE
        life.tell(book, claim.number, Outcome(state, score=level, reason=reason.reason if reason else None))
    states = [t.state for t in book.trials()]
    assert len(states) == 14
    assert states.count(State.PRUNED) == 0 if pruner == "none" else states.count(State.PRUNED) > 0


def test_the_time_spent_adds_up_over_resumes(tmp_path: Path) -> None:
    open_book(tmp_path).spend(100, 110)
    book = open_book(tmp_path, "study.budget_minutes=0.5")
    book.spend(200, 215)
    book.spend(211, 219)  # another launch, at the same time
    assert book.enough() is None
    book.spend(300, 301.5)
    assert book.enough() == "the budget of 0.5 minutes is spent"
    assert finish(book) == []


def evaluation(share: float, accuracy: float, step: int) -> Evaluation:
    return Evaluation(step, share, step * 16, {"accuracy": accuracy}, 0.1)


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


# --- asynchronous halving ---

LEVELS = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]  # how good trial 0, 1, ... is at every rung


def step(book: Book, mine: life.Claim, rung: int) -> bool:
    """Train trial `mine` to `rung` percent and report; False if it is to pause there, with its checkpoint."""
    folder = book.training_folder(mine.number) / f"checkpoint-{rung}"
    folder.mkdir(parents=True, exist_ok=True)
    stop = life.report(book, mine, evaluation(rung / 100, LEVELS[mine.number], step=rung))
    if rung == 100:
        life.tell(book, mine.number, Outcome(State.COMPLETE, score=LEVELS[mine.number]))
        return False
    resume.complete(folder, {"rung": rung / 100})
    if stop:
        assert stop.state == State.PAUSED
        life.pause(book, mine, Outcome(State.PAUSED, score=LEVELS[mine.number], share=rung / 100, reason=stop.reason))
    return stop is None


def at(book: Book, mine: life.Claim) -> int:
    return resume.rung_of(book.training_folder(mine.number)) or 0


NO_RECIPE = "space.optimizer.learning_rate.high=9e-5"  # the default recipe lies outside, so no trial is it


def halve(book: Book, most: int = 10**6) -> list[tuple[int, int]]:
    """One worker: (trial, rung) in the order they were trained."""
    trained = []
    while len(trained) < most and (mine := life.claim(book)) is not None:
        go_on = True
        while go_on and len(trained) < most:
            rung = next(r for r in (25, 50, 100) if r > at(book, mine))
            trained.append((mine.number, rung))
            go_on = step(book, mine, rung)
        book.leases.drop(book.lease(mine.number))
    return trained


def test_halving_pauses_trials_and_continues_the_best_third(tmp_path: Path) -> None:
    book = open_book(tmp_path, "pruner=asha", "study.n_trials=9")
    trained = halve(book)
    assert sorted(n for n, rung in trained if rung == 25) == list(range(9))
    continued = [n for n, rung in trained if rung == 50]
    assert {1, 5} <= set(continued)
    assert len(continued) <= 4  # a third of nine, and what was among the best when few had come
    assert (1, 100) in trained
    states = {t.number: t.state for t in book.trials()}
    assert states[1] == State.COMPLETE
    assert set(states.values()) == {State.COMPLETE, State.PRUNED}
    assert book.enough() == "all 9 trials are done"
    reasons = [t.reason for t in book.trials() if t.state == State.PRUNED]
    assert set(reasons) <= {f"paused at {r} % of its schedule, and not among the best of its rung" for r in (25, 50)}
    assert not list(tmp_path.glob("trials/*/training/checkpoint-*"))
    scores = [(t.value, t.intermediate_values[t.last_step]) for t in book.study.trials]
    assert all(value == last for value, last in scores), "as Optuna has it: a pruned trial's value is its last one"
    assert [t.number for t in book.ended()] == [
        t.number for t in sorted(book.study.trials, key=lambda t: (t.datetime_complete, t.number))
    ]


def test_how_far_a_trial_that_waits_is_of_what_is_to_be_expected(tmp_path: Path) -> None:
    halving = open_book(tmp_path / "halving", "pruner=asha", "study.rungs=[0.25,0.5,1.0]")
    assert halving.reached(25) == pytest.approx(0.25 / (0.25 + 0.25 / 3 + 0.5 / 9))
    assert halving.reached(50) == pytest.approx(0.5 / (0.5 + 0.5 / 3))
    assert halving.reached(0) == 0
    assert open_book(tmp_path / "other", "pruner=median").reached(25) == 0.25


@pytest.mark.parametrize("sampler", ["gp", "random", "cmaes", "qmc"])
def test_halving_works_with_any_sampler(tmp_path: Path, sampler: str) -> None:
    whole = open_book(tmp_path / "whole", "pruner=asha", "study.n_trials=9", f"sampler={sampler}")
    trained = halve(whole)
    assert len({n for n, _ in trained}) == 9
    assert {t.state for t in whole.trials()} == {State.COMPLETE, State.PRUNED}
    cut = tmp_path / "cut"
    overrides = ["pruner=asha", "study.n_trials=9", f"sampler={sampler}"]
    assert halve(open_book(cut, *overrides), 7) + halve(open_book(cut, *overrides)) == trained
    assert [t.params for t in open_book(cut, *overrides).trials()] == [t.params for t in whole.trials()]


def test_halving_cut_anywhere_trains_what_it_would_have(tmp_path: Path) -> None:
    overrides = ["pruner=asha", "study.n_trials=9"]
    whole = halve(open_book(tmp_path / "whole", *overrides))
    for cut in range(1, len(whole)):
        folder = tmp_path / str(cut)
        pieces = halve(open_book(folder, *overrides), cut) + halve(open_book(folder, *overrides))
        assert pieces == whole, cut


def test_the_default_recipe_goes_past_its_rungs_whatever_they_say(tmp_path: Path) -> None:
    book = open_book(tmp_path, "pruner=asha", "study.n_trials=9")
    mine, other = life.claim(book), life.claim(book)
    assert mine.origin == DEFAULT_RECIPE
    assert not step(book, other, 25)
    assert step(book, mine, 25)
    book.leases.drop(book.lease(0))
    again = life.claim(book)  # its worker was killed: it is taken up, not left to wait
    assert again.number == 0
    assert step(book, again, 50)
    step(book, again, 100)
    assert book.trials()[0].state == State.COMPLETE


def test_a_small_study_still_brings_one_trial_to_its_end(tmp_path: Path) -> None:
    book = open_book(tmp_path, "pruner=asha", "study.n_trials=2", NO_RECIPE)
    halve(book)
    assert [t.state for t in book.trials()] == [State.PRUNED, State.COMPLETE]


def test_a_kill_between_report_and_checkpoint_repeats_the_rung_and_between_checkpoint_and_pause_waits(
    tmp_path: Path,
) -> None:
    book = open_book(tmp_path, "pruner=asha", "study.n_trials=9", NO_RECIPE)
    first = life.claim(book)
    assert life.report(book, first, evaluation(0.25, 0.5, step=1)) is not None
    book.leases.drop(book.lease(0))
    again = life.claim(book)  # no checkpoint: it is taken up at once, and judged again
    assert again.number == 0
    assert life.report(book, again, evaluation(0.25, 0.5, step=1)).state == State.PAUSED
    folder = book.training_folder(0) / "checkpoint-1"
    folder.mkdir(parents=True)
    resume.complete(folder, {"rung": 0.25})
    book.leases.drop(book.lease(0))
    assert life.waits(book, book.frozen(0))
    assert life.claim(book).number == 1


def test_the_disk_budget_ends_the_worst_paused_trial_first(tmp_path: Path) -> None:
    book = open_book(tmp_path, "pruner=asha", "study.n_trials=9", "study.disk_budget_gb=0.0000025", NO_RECIPE)
    for _ in range(3):
        mine = life.claim(book)
        folder = book.training_folder(mine.number) / "checkpoint-25"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 1000)
        assert (step(book, mine, 25)) == (mine.number == 99)
    states = {t.number: (t.state, t.reason) for t in book.trials()}
    assert states[2] == (State.PRUNED, "its checkpoint went for study.disk_budget_gb=2.5e-06")
    assert [states[n][0] for n in (0, 1)] == [State.RUNNING, State.RUNNING]


def test_a_worker_waits_while_another_may_let_a_trial_go_on(tmp_path: Path) -> None:
    book = open_book(tmp_path, "pruner=asha", "study.n_trials=2", NO_RECIPE)
    mine, other = life.claim(book), life.claim(book)
    assert (mine.number, other.number) == (0, 1)
    assert not step(book, mine, 25)
    assert life.claim(book) is None
    assert life.more_may_come(book)
    assert step(book, other, 25)  # the last, and the best: it goes on by itself
    step(book, other, 50)
    step(book, other, 100)
    assert life.claim(book) is None
    assert not life.more_may_come(book)
    assert [t.state for t in book.trials()] == [State.PRUNED, State.COMPLETE]
