"""A study among processes: exact totals, no trial twice, dead workers' trials taken up, definitions kept."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from src.core.errors import InvalidInput, StorageUnavailable
from src.core.records import Evaluation, State, TrainingResult
from src.search import trial_lifecycle
from src.search.storages import leases
from src.search.study import DEFAULT_RECIPE, LABELS_KEY, Study, study_definition
from src.training import checkpoints
from tests.support.processes import PROCESSES
from tests.support.studies import claim_and_hang, finish, make_thirty, open_book, wait_for


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.long)])
def test_four_workers_make_the_exact_total_and_no_point_twice(tmp_path: Path, storage: str) -> None:
    overrides = [f"storage={storage}", "study.n_trials=30", "sampler=random"]
    if storage == "sqlite":
        overrides.append(f"storage.url=sqlite:///{tmp_path}/optuna.db")
    make_thirty([tmp_path / "s"] * 4, *overrides)


def test_a_killed_workers_trial_is_taken_up_under_its_number(tmp_path: Path) -> None:
    worker = PROCESSES.Process(target=claim_and_hang, args=(str(tmp_path), "study.n_trials=2"))
    worker.start()
    wait_for(tmp_path / "claimed")
    study = open_book(tmp_path, "study.n_trials=2")
    (begun,) = study.trials()
    assert trial_lifecycle.claim_trial(study).number == 1  # trial 0 is in living hands
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    again = trial_lifecycle.claim_trial(study)
    assert (again.number, again.params, again.starts) == (0, begun.params, 2)
    assert trial_lifecycle.claim_trial(study) is None


def test_others_wait_for_the_default_recipe_where_it_is_to_be_alone_and_a_dead_worker_holds_nobody_up(
    tmp_path: Path,
) -> None:
    worker = PROCESSES.Process(target=claim_and_hang, args=(str(tmp_path), "study.n_trials=2"))
    worker.start()
    wait_for(tmp_path / "claimed")
    study = open_book(tmp_path, "study.n_trials=2")
    assert trial_lifecycle.default_in_progress(study)
    assert trial_lifecycle.claim_trial(study, default_alone=True) is None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not trial_lifecycle.default_in_progress(study)
    claimed = trial_lifecycle.claim_trial(study, default_alone=True)
    assert (claimed.number, claimed.origin) == (0, DEFAULT_RECIPE)
    trial_lifecycle.end_trial(study, claimed.number, TrainingResult(State.FAIL))
    assert trial_lifecycle.claim_trial(study, default_alone=True).number == 1


def test_the_default_recipe_has_one_trial_whatever_the_config_says_later(tmp_path: Path) -> None:
    finish(open_book(tmp_path, "space=wide", "study.n_trials=2"))
    later = open_book(tmp_path, "space=wide", "study.n_trials=4", "optimizer.learning_rate=2e-4")
    finish(later)
    assert [t.number for t in later.trials() if t.origin == DEFAULT_RECIPE] == [0]


def test_a_study_keeps_its_labels_names(tmp_path: Path) -> None:
    study = open_book(tmp_path)
    now = study_definition(study.settings, study.space, "data", ["negative", "positive"], "weights")
    study.optuna_study.set_user_attr("definition", now)
    assert study.check_definition(now)
    with pytest.raises(InvalidInput, match=r"data\.label_names was"):
        study.check_definition(now | {LABELS_KEY: ["positive", "negative"]})
    study.optuna_study.set_user_attr("definition", {k: v for k, v in now.items() if k != LABELS_KEY})  # as of old
    assert study.check_definition(now)


def test_a_proxy_that_fails_is_no_fault_of_a_trial() -> None:
    grpc = pytest.importorskip("grpc")
    with pytest.raises(StorageUnavailable), trial_lifecycle.storage_errors():
        raise grpc.RpcError("UNKNOWN")
    with pytest.raises(OSError, match="a disk"), trial_lifecycle.storage_errors(files_too=False):
        raise OSError("a disk")


def test_a_trial_that_kills_every_worker_ends_as_failed(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.n_trials=2")
    for _ in range(4):
        assert trial_lifecycle.claim_trial(study).number == 0
        study.leases.release(study.lease_name(0))
    assert trial_lifecycle.claim_trial(study).number == 1
    assert study.trials()[0].state == State.FAIL
    assert study.trials()[0].result.reason == "its worker died 4 times at the same place"


def test_an_end_stored_before_the_kill_counts(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.n_trials=1")
    claim = trial_lifecycle.claim_trial(study)
    details = {"state": "COMPLETE", "score": 0.7}
    claim.trial.set_user_attr("outcome", details)
    study.leases.release(study.lease_name(0))
    assert trial_lifecycle.claim_trial(study) is None
    assert (study.trials()[0].state, study.trials()[0].score) == (State.COMPLETE, 0.7)


def test_a_reused_process_id_does_not_hold_a_lease(tmp_path: Path) -> None:
    held = leases.FileLeases(tmp_path)
    held.acquire("trials/1")
    assert held.is_held("trials/1")
    file = tmp_path / "trials" / "1" / "lease.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"started": "another boot/1"}))
    assert not held.is_held("trials/1")


def test_a_lease_of_another_host_lives_while_it_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = leases.FileLeases(tmp_path)
    held.acquire("trials/0000")
    file = tmp_path / "trials/0000/lease.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "host": "elsewhere"}))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for when in (time.time() - 1e6, time.time() + 1e6, time.time() - 1e6 - 1):  # clocks that differ; it is renewed
        os.utime(file, (when, when))
        assert held.is_held("trials/0000")
        now += 16
    now += 60
    assert not held.is_held("trials/0000")  # silent for a minute, and not in step with this host
    os.utime(file)
    assert held.is_held("trials/0000")
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    os.utime(file, (1, 1))
    with held.keep_alive("trials/0000"):
        time.sleep(0.2)
    assert abs(time.time() - file.stat().st_mtime) < 60


@pytest.mark.parametrize(("what", "value"), [("space", {"a": "b"}), ("metric", "f1"), ("data", "other")])
def test_a_changed_definition_is_refused_with_the_two_ways_out(tmp_path: Path, what: str, value: object) -> None:
    study = open_book(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        study.check_definition({"space": study.space.describe(), what: value})
    assert f"The study s exists with another definition: {what} was" in str(caught.value)
    assert str(caught.value).endswith("Either undo the change and continue it, or start another one: study.name=s-2.")


def test_pruning_compares_scores_at_the_same_share_of_the_schedule(tmp_path: Path) -> None:
    study = open_book(tmp_path, "study.n_trials=9")
    for _ in range(4):
        claim = trial_lifecycle.claim_trial(study)
        assert trial_lifecycle.report_score(study, claim, evaluation(0.25, 0.5, step=1000 * (claim.number + 1))) is None
        trial_lifecycle.report_score(study, claim, evaluation(1.0, 0.9, step=9999))
        trial_lifecycle.end_trial(study, claim.number, TrainingResult(State.COMPLETE, score=0.9))
    good, bad = trial_lifecycle.claim_trial(study), trial_lifecycle.claim_trial(study)
    assert (
        trial_lifecycle.report_score(study, good, evaluation(0.25, 0.55, step=7)) is None
    )  # below 0.9, but above 0.5 at its own share
    reason = trial_lifecycle.report_score(study, bad, evaluation(0.25, 0.4, step=7))
    assert (reason.state, reason.reason) == (State.PRUNED, "MedianPruner: accuracy 0.4000 after 25 % of its schedule")
    trial_lifecycle.end_trial(study, bad.number, TrainingResult(State.PRUNED, score=0.4, reason=reason.reason))
    assert (study.trials()[5].state, study.trials()[5].result.reason) == (State.PRUNED, reason.reason)


@pytest.mark.parametrize("pruner", ["none", "median", "halving", "hyperband", "patient"])
def test_every_pruner_judges_a_study_to_its_end(tmp_path: Path, pruner: str) -> None:
    study = open_book(tmp_path, f"pruner={pruner}", "study.n_trials=14")
    while (claim := trial_lifecycle.claim_trial(study)) is not None:
        level = ((claim.number * 5) % 14) / 14
        reason = None
        for share in (0.25, 0.5, 1.0):
            reason = reason or trial_lifecycle.report_score(
                study, claim, evaluation(share, level + share / 10 - (level < 0.3) * share, step=1)
            )
        state = State.PRUNED if reason else State.COMPLETE
        trial_lifecycle.end_trial(
            study, claim.number, TrainingResult(state, score=level, reason=reason.reason if reason else None)
        )
    states = [t.state for t in study.trials()]
    assert len(states) == 14
    assert states.count(State.PRUNED) == 0 if pruner == "none" else states.count(State.PRUNED) > 0


def test_the_time_spent_adds_up_over_resumes(tmp_path: Path) -> None:
    open_book(tmp_path).add_time(10, until=110)
    study = open_book(tmp_path, "study.budget_minutes=0.5")
    study.add_time(15, until=215)
    study.add_time(8, until=219)  # another launch, at the same time
    assert study.end_reason() is None
    study.add_time(1.5, until=301.5)
    assert study.end_reason() == "the budget of 0.5 minutes is spent"
    assert finish(study) == []


@pytest.mark.parametrize("set_to", [1e9, -1e9], ids=["forward", "back"])
def test_a_clock_that_is_set_neither_spends_the_budget_nor_stops_it(tmp_path: Path, set_to: float) -> None:
    study = open_book(tmp_path)
    study.add_time(10, until=2e9)
    for second in range(1, 11):
        study.add_time(1, until=2e9 + set_to + second)
    assert study.seconds_spent() == pytest.approx(20)
    study.add_time(1, until=2e9 + 11)  # and back
    assert study.seconds_spent() == pytest.approx(21)


def evaluation(share: float, accuracy: float, step: int) -> Evaluation:
    return Evaluation(step, share, step * 16, {"accuracy": accuracy}, 0.1)


# --- asynchronous halving ---

LEVELS = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]  # how good trial 0, 1, ... is at every rung


def step(study: Study, claimed: trial_lifecycle.ClaimedTrial, rung: int) -> bool:
    """Train trial `mine` to `rung` percent and report; False if it is to pause there, with its checkpoint."""
    folder = study.training_folder(claimed.number) / f"checkpoint-{rung}"
    folder.mkdir(parents=True, exist_ok=True)
    stop = trial_lifecycle.report_score(study, claimed, evaluation(rung / 100, LEVELS[claimed.number], step=rung))
    if rung == 100:
        trial_lifecycle.end_trial(study, claimed.number, TrainingResult(State.COMPLETE, score=LEVELS[claimed.number]))
        return False
    checkpoints.mark_complete(folder, {"rung": rung / 100})
    if stop:
        assert stop.state == State.PAUSED
        trial_lifecycle.pause_trial(
            study,
            claimed,
            TrainingResult(State.PAUSED, score=LEVELS[claimed.number], share=rung / 100, reason=stop.reason),
        )
    return stop is None


def at(study: Study, claimed: trial_lifecycle.ClaimedTrial) -> int:
    return checkpoints.last_rung(study.training_folder(claimed.number)) or 0


NO_RECIPE = "space.optimizer.learning_rate.high=9e-5"  # the default recipe lies outside, so no trial is it


def halve(study: Study, most: int = 10**6) -> list[tuple[int, int]]:
    """One worker: (trial, rung) in the order they were trained."""
    trained = []
    while len(trained) < most and (claimed := trial_lifecycle.claim_trial(study)) is not None:
        go_on = True
        while go_on and len(trained) < most:
            rung = next(r for r in (25, 50, 100) if r > at(study, claimed))
            trained.append((claimed.number, rung))
            go_on = step(study, claimed, rung)
        study.leases.release(study.lease_name(claimed.number))
    return trained


def test_halving_pauses_trials_and_continues_the_best_third(tmp_path: Path) -> None:
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=9")
    trained = halve(study)
    assert sorted(n for n, rung in trained if rung == 25) == list(range(9))
    continued = [n for n, rung in trained if rung == 50]
    assert {1, 5} <= set(continued)
    assert len(continued) <= 4  # a third of nine, and what was among the best when few had come
    assert (1, 100) in trained
    states = {t.number: t.state for t in study.trials()}
    assert states[1] == State.COMPLETE
    assert set(states.values()) == {State.COMPLETE, State.PRUNED}
    assert study.end_reason() == "all 9 trials are done"
    reasons = [t.result.reason for t in study.trials() if t.state == State.PRUNED]
    assert set(reasons) <= {f"paused at {r} % of its schedule, and not among the best of its rung" for r in (25, 50)}
    assert not list(tmp_path.glob("trials/*/training/checkpoint-*"))
    scores = [(t.value, t.intermediate_values[t.last_step]) for t in study.optuna_study.trials]
    assert all(value == last for value, last in scores), "as Optuna has it: a pruned trial's value is its last one"
    assert [t.number for t in study.ended_trials()] == [
        t.number for t in sorted(study.optuna_study.trials, key=lambda t: (t.datetime_complete, t.number))
    ]


def test_how_far_a_trial_that_waits_is_of_what_is_to_be_expected(tmp_path: Path) -> None:
    halving = open_book(tmp_path / "halving", "pruner=asha", "study.rungs=[0.25,0.5,1.0]")
    assert halving.expected_progress(25) == pytest.approx(0.25 / (0.25 + 0.25 / 3 + 0.5 / 9))
    assert halving.expected_progress(50) == pytest.approx(0.5 / (0.5 + 0.5 / 3))
    assert halving.expected_progress(0) == 0
    assert open_book(tmp_path / "other", "pruner=median").expected_progress(25) == 0.25


@pytest.mark.parametrize("sampler", ["gp", "random", "cmaes", "qmc"])
def test_halving_works_with_any_sampler(tmp_path: Path, sampler: str) -> None:
    uninterrupted = open_book(tmp_path / "whole", "pruner=asha", "study.n_trials=9", f"sampler={sampler}")
    trained = halve(uninterrupted)
    assert len({n for n, _ in trained}) == 9
    assert {t.state for t in uninterrupted.trials()} == {State.COMPLETE, State.PRUNED}
    cut = tmp_path / "cut"
    overrides = ["pruner=asha", "study.n_trials=9", f"sampler={sampler}"]
    assert halve(open_book(cut, *overrides), 7) + halve(open_book(cut, *overrides)) == trained
    assert [t.params for t in open_book(cut, *overrides).trials()] == [t.params for t in uninterrupted.trials()]


def test_halving_cut_anywhere_trains_what_it_would_have(tmp_path: Path) -> None:
    overrides = ["pruner=asha", "study.n_trials=9"]
    uninterrupted = halve(open_book(tmp_path / "whole", *overrides))
    for cut in range(1, len(uninterrupted)):
        folder = tmp_path / str(cut)
        pieces = halve(open_book(folder, *overrides), cut) + halve(open_book(folder, *overrides))
        assert pieces == uninterrupted, cut


def test_the_default_recipe_goes_past_its_rungs_whatever_they_say(tmp_path: Path) -> None:
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=9")
    claimed, other = trial_lifecycle.claim_trial(study), trial_lifecycle.claim_trial(study)
    assert claimed.origin == DEFAULT_RECIPE
    assert not step(study, other, 25)
    assert step(study, claimed, 25)
    study.leases.release(study.lease_name(0))
    again = trial_lifecycle.claim_trial(study)  # its worker was killed: it is taken up, not left to wait
    assert again.number == 0
    assert step(study, again, 50)
    step(study, again, 100)
    assert study.trials()[0].state == State.COMPLETE


def test_a_small_study_still_brings_one_trial_to_its_end(tmp_path: Path) -> None:
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=2", NO_RECIPE)
    halve(study)
    assert [t.state for t in study.trials()] == [State.PRUNED, State.COMPLETE]


def test_a_kill_between_report_and_checkpoint_repeats_the_rung_and_between_checkpoint_and_pause_waits(
    tmp_path: Path,
) -> None:
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=9", NO_RECIPE)
    first = trial_lifecycle.claim_trial(study)
    assert trial_lifecycle.report_score(study, first, evaluation(0.25, 0.5, step=1)) is not None
    study.leases.release(study.lease_name(0))
    again = trial_lifecycle.claim_trial(study)  # no checkpoint: it is taken up at once, and judged again
    assert again.number == 0
    assert trial_lifecycle.report_score(study, again, evaluation(0.25, 0.5, step=1)).state == State.PAUSED
    folder = study.training_folder(0) / "checkpoint-1"
    folder.mkdir(parents=True)
    checkpoints.mark_complete(folder, {"rung": 0.25})
    study.leases.release(study.lease_name(0))
    assert trial_lifecycle.is_paused(study, study.frozen_trial(0))
    assert trial_lifecycle.claim_trial(study).number == 1


def test_the_disk_budget_ends_the_worst_paused_trial_first(tmp_path: Path) -> None:
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=9", "study.disk_budget_gb=0.0000025", NO_RECIPE)
    for _ in range(3):
        claimed = trial_lifecycle.claim_trial(study)
        folder = study.training_folder(claimed.number) / "checkpoint-25"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 1000)
        assert (step(study, claimed, 25)) == (claimed.number == 99)
    states = {t.number: (t.state, t.result.reason) for t in study.trials()}
    assert states[2] == (State.PRUNED, "its checkpoint was deleted for study.disk_budget_gb=2.5e-06")
    assert [states[n][0] for n in (0, 1)] == [State.RUNNING, State.RUNNING]


def test_a_worker_waits_while_another_may_let_a_trial_go_on(tmp_path: Path) -> None:
    study = open_book(tmp_path, "pruner=asha", "study.n_trials=2", NO_RECIPE)
    claimed, other = trial_lifecycle.claim_trial(study), trial_lifecycle.claim_trial(study)
    assert (claimed.number, other.number) == (0, 1)
    assert not step(study, claimed, 25)
    assert trial_lifecycle.claim_trial(study) is None
    assert trial_lifecycle.others_are_working(study)
    assert step(study, other, 25)  # the last, and the best: it goes on by itself
    step(study, other, 50)
    step(study, other, 100)
    assert trial_lifecycle.claim_trial(study) is None
    assert not trial_lifecycle.others_are_working(study)
    assert [t.state for t in study.trials()] == [State.PRUNED, State.COMPLETE]
