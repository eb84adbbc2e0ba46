"""The commands as people type them: real processes, a real store, a tiny random model."""

import os
import re
import signal
import subprocess
import sys
import time

import mlflow
import psutil
import pytest
from mlflow import MlflowClient

from src.config.groups import CONF_DIR, ROOT
from tests.support.commands import FAST, INLINE, TINY, Done, Place, clean_environment, runs_of, wait_until, workers_of


def test_a_study_runs_to_its_end_and_says_what_came_of_it(finished: tuple[Place, Done]) -> None:
    _, done = finished
    out = done.out
    assert "Study small: accuracy on the validation split, 4 trials, 2 workers" in out
    assert out.rstrip().endswith("Next: python -m src.compare study.name=small")
    assert "starter: 100 train, 100 validation; 100 test examples stay sealed" in out
    assert "search optimizer.learning_rate   0.0001 .. 0.0003, log" in out
    assert re.search(r"expected: about .* GB on disk, at \d+ training examples per second and worker \(cpu", out)
    assert len(re.findall(r"^\[\d/4\] trial \d", out, re.MULTILINE)) == 4
    assert "baseline tfidf_logreg" in out
    assert "Study small is over: all 4 trials are done." in out
    assert "Best: trial" in out
    assert not done.err.strip()


def test_mlflow_shows_a_parent_its_trials_and_baselines(finished: tuple[Place, Done]) -> None:
    place, _ = finished
    (parent,) = runs_of(place, "study")
    trials, baselines = runs_of(place, "trial"), runs_of(place, "baseline")
    assert [len(trials), len(baselines)] == [4, 3]
    assert {r.data.tags["mlflow.parentRunId"] for r in trials + baselines} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    assert float(parent.data.tags["best.score"]) == parent.data.metrics["best/score"]
    for run in trials:
        assert run.data.tags["study"] == "small"
        assert run.data.tags["trial.state"] in ("COMPLETE", "PRUNED")
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[run.data.tags["trial.state"]]
        assert {
            "optimizer.learning_rate",
            "trainer.num_train_epochs",
            "optimizer.weight_decay",
            "model.dropout",
        } <= set(run.data.params)
        assert len(run.data.params) < 30
        assert {"data.fingerprint", "command", "machine", "threads", "launched.by"} <= set(run.data.tags)
    assert {r.data.tags["baseline"] for r in baselines} == {"majority", "tfidf_logreg", "untuned"}
    assert {int(r.data.tags["trial.number"]) for r in trials} == {0, 1, 2, 3}


def test_curves_have_each_step_once_and_whole_names(finished: tuple[Place, Done]) -> None:
    place, _ = finished
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    run = next(r for r in runs_of(place, "trial") if r.data.tags["trial.number"] == "0")
    names = {f"validation/{m}" for m in ("loss", "accuracy", "f1", "precision", "recall")}
    assert names | {"train/loss", "train/learning_rate", "train/grad_norm"} <= set(run.data.metrics)
    for name, points in {"train/loss": 14, "validation/accuracy": 3}.items():
        steps = [m.step for m in client.get_metric_history(run.info.run_id, name)]
        assert len(steps) == len(set(steps)) == points, (name, steps)
    assert {"model/megabytes", "model/ms_per_1000_texts", "score"} <= set(run.data.metrics)
    artifacts = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "environment.json"} <= artifacts


def test_a_plain_mlflow_in_the_folder_sees_everything(finished: tuple[Place, Done]) -> None:
    place, _ = finished
    code = "import mlflow; print(len(mlflow.search_runs(experiment_names=['starter'])))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place.folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "9"  # the study, 4 trials, 3 baselines, the average


def test_the_studys_model_answers_as_a_pipeline_and_only_the_best_trials_weights_are_kept(
    finished: tuple[Place, Done],
) -> None:
    place, done = finished
    uri = re.search(r"models:/m-\w+", done.out)[0]
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/mlflow.db")
    (answer,) = mlflow.transformers.load_model(uri)("a warm, funny film")
    assert answer["label"] in ("negative", "positive")
    kept = [p.relative_to(place.study("small")).parts[0] for p in place.study("small").rglob("*.safetensors")]
    assert sorted(kept) == ["average", "trials"]
    assert len(list((place.folder / "mlruns" / "artifacts").rglob("*.safetensors"))) == 1


def test_the_same_command_again_adds_nothing_and_more_trials_continue(
    finished: tuple[Place, Done],
) -> None:
    place, _ = finished
    same = [*TINY, "study.name=small", "workers=2", "space.optimizer.learning_rate.low=1e-4"]
    again = place.sweep(*same, "study.n_trials=4")
    assert again.code == 0, again.err
    assert "4 trials (4 done, 0 to go)" in again.out
    assert "[5/" not in again.out
    assert len(runs_of(place, "trial")) == 4
    assert len(runs_of(place, "study")) == 1
    refused = place.sweep(*same, "study.n_trials=4", "data.max_examples=120")
    assert refused.code == 2
    assert "The study small exists with another definition: data was" in refused.err
    assert "study.name=small-2" in refused.err
    assert "Traceback" not in refused.err + refused.out


@pytest.mark.long
def test_a_grid_of_six_points_ends_at_six(place: Place) -> None:
    done = place.sweep(
        *FAST[:-1], "study.name=grid", "space=empty", "sampler=grid", "study.n_trials=10", "study.rungs=[1.0]",
        "+space.trainer.num_train_epochs={low: 1, high: 3}", "+space.model.dropout={choices: [0.1, 0.2]}", *INLINE,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Study grid is over: all 6 points of the space have been tried. Trials: 6" in done.out
    assert len(runs_of(place, "trial")) == 6


@pytest.mark.long
def test_models_in_a_folder_of_ones_own_are_searched(place: Place) -> None:
    (place.folder / "own" / "model").mkdir(parents=True, exist_ok=True)
    tiny = (CONF_DIR / "model" / "tiny.yaml").read_text()
    (place.folder / "own" / "model" / "small.yaml").write_text(tiny.replace("name: tiny", "name: small"))
    done = place.sweep(
        f"hydra.searchpath=[file://{place.folder / 'own'}]", *FAST[:-1], "study.name=own", "space=empty",
        "sampler=grid", "study.rungs=[1.0]", "+space.model.choices=[tiny,small]", "workers=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    runs = [run for run in runs_of(place, "trial") if run.data.tags["study"] == "own"]
    assert {run.data.params["model.name"] for run in runs} == {"tiny", "small"}


@pytest.mark.long
def test_one_study_per_model_in_one_command(place: Place) -> None:
    arguments = [*FAST, "study.n_trials=1", "pruner=none,median", "launcher=inline"]
    refused = place.sweep(*arguments, "study.name=twins")
    assert refused.code == 2
    assert "2 of the studies on the command line are called twins" in refused.err
    done = place.sweep(*arguments, "study.name='p-${hydra:runtime.choices.pruner}'")
    assert done.code == 0, done.err
    assert "Study p-none is over" in done.out
    assert "Study p-median is over" in done.out


def test_the_plan_costs_nothing(place: Place) -> None:
    done = place.sweep(*FAST, "study.name=plan", "study.plan_only=true", "workers=1", "model.max_tokens=12")
    assert done.code == 0, done.err
    assert "of the training texts are cut at model.max_tokens=12 tokens" in done.out
    assert f"no study is here yet; this one goes to {place.folder / 'mlruns'}, its runs to" in done.out
    assert "expected: about" in done.out
    assert "study.plan_only=true: nothing was trained." in done.out
    assert not (place.folder / "mlflow.db").exists()
    assert not place.study("plan").exists()


@pytest.mark.long
def test_failing_trials_end_the_study_with_their_reason(place: Place) -> None:
    done = place.sweep(
        *FAST, "study.name=bad", "optimizer=sgd", "schedule=constant", "~space.optimizer.weight_decay",
        "space.optimizer.learning_rate.low=1e29", "space.optimizer.learning_rate.high=1e30", "study.max_failures=2",
        "study.n_trials=6", *INLINE,
    )  # fmt: skip
    assert done.code == 1
    assert "2 trials in a row failed (study.max_failures)" in done.err
    assert "the training loss became nan" in done.err
    failed = runs_of(place, "trial")
    assert [r.info.status for r in failed] == ["FAILED", "FAILED"]
    artifacts = MlflowClient(f"sqlite:///{place.folder}/mlflow.db").list_artifacts(failed[0].info.run_id)
    assert "error.txt" in {f.path for f in artifacts}


@pytest.mark.long
def test_a_budget_ends_running_trials_too(place: Place) -> None:
    arguments = [*TINY, "study.name=b", "study.n_trials=500", "study.budget_minutes=0.1", "study.baselines=[majority]"]
    done = place.sweep(*arguments, "workers=2")
    assert done.code == 0, done.err
    assert "Study b is over: the budget of 0.1 minutes is spent." in done.out
    assert "RUNNING" not in done.out
    again = place.sweep(*arguments, "workers=2")
    assert "the budget of 0.1 minutes is spent" in again.out


@pytest.mark.long
def test_a_killed_worker_is_replaced_and_a_killed_command_continued_by_the_same_one(place: Place) -> None:
    arguments = [*FAST, "data.max_examples=400", "study.name=k", "study.n_trials=3", "workers=2",
                 "trainer.per_device_train_batch_size=2"]  # fmt: skip
    process = place.start_python("src.sweep", "-m", *arguments)  # its output is read while it runs
    wait_until(lambda: list(place.study("k").glob("trials/*/run/outbox.jsonl")))
    time.sleep(1)
    os.kill(workers_of(process.pid)[-1].pid, signal.SIGKILL)
    assert process.stdout is not None
    assert any("was killed by signal 9; another takes its place" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = place.sweep(*arguments)
    assert done.code == 0, done.err
    assert "all 3 trials are done" in done.out
    assert len(runs_of(place, "study")) == 1
    result = runs_of(place, "trial")
    assert sorted(int(r.data.tags["trial.number"]) for r in result) == [0, 1, 2]
    assert {r.info.status for r in result} <= {"FINISHED", "KILLED"}
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    for run in result:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert len(steps) == len(set(steps))


@pytest.mark.long
def test_ctrl_c_and_sigterm_save_ctrl_c_twice_is_at_once_and_the_same_command_continues(place: Place) -> None:
    arguments = [*FAST, "data.max_examples=600", "study.name=c", "study.n_trials=3", "workers=2", "pruner=none",
                 "trainer.per_device_train_batch_size=2"]  # fmt: skip
    hung_up = [(signal.SIGHUP, 1)] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)  # nohup lets nobody hear it
    for sent, times in [(signal.SIGINT, 1), (signal.SIGTERM, 1), *hung_up, (signal.SIGINT, 2)]:
        process = place.start("src.sweep", "-m", *arguments)
        wait_until(lambda: len(list(place.study("c").glob("trials/*/lease.json"))) == 2)
        time.sleep(2)
        own = psutil.Process(process.pid).children(recursive=True) if sent == signal.SIGHUP else []
        for hearing in (process, *own) * times:  # a terminal that is closed is heard by all
            hearing.send_signal(sent)
            time.sleep(0.01)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Stopping: workers" in out
        assert "the same command continues it" in err
        assert "Traceback" not in err
        if times == 1:
            assert "resource_tracker" not in err  # Python's own helper, that a closed terminal would kill
            assert "finish their step and save where they are." in out
            left = [r for r in runs_of(place, "trial") if r.info.status != "FINISHED"]
            assert {r.info.status for r in left} == {"SCHEDULED"}
            saved = [f.parent.name for f in place.study("c").glob("trials/*/training/checkpoint-*/progress.json")]
            assert len(saved) == len(left) == 2
    done = place.sweep(*arguments)
    assert done.code == 0, done.err
    assert sorted(int(r.data.tags["trial.number"]) for r in runs_of(place, "trial")) == [0, 1, 2]
    assert {r.info.status for r in runs_of(place, "trial")} == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    for run in runs_of(place, "trial"):
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == list(range(2, 2 * len(steps) + 1, 2))


def test_train_makes_one_tracked_run_with_its_model(place: Place) -> None:
    done = place.run("src.train", *TINY, "trainer.num_train_epochs=1", "optimizer.learning_rate=1e-3")
    assert done.code == 0, done.err
    (run,) = runs_of(place, "train")
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    assert run.data.tags["command"].startswith("python -m src.train model=tiny")
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/mlflow.db")
    assert mlflow.transformers.load_model(run.data.tags["model.uri"])("dull")[0]["label"] in ("negative", "positive")
    assert place.run("src.train", "optimizer.colour=red").code == 2
    assert place.run("src.train", "+optimizer.colour=red").code == 2


@pytest.mark.long
def test_a_launcher_of_hydras_own_runs_the_same_workers(place: Place) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = place.sweep(*FAST, "study.name=j", "study.n_trials=2", "hydra/launcher=joblib", "workers=2")
    assert done.code == 0, done.err
    assert "all 2 trials are done" in done.out


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no"),
        ("1 / 0", 1, "ZeroDivision"),
    ],
)
def test_a_command_that_ends_at_once_ends_as_it_would(end: str, code: int, said: str) -> None:
    """Its code, what it printed, and what was registered for the end: only taking things apart is left out."""
    script = f"""
import atexit
from src.cli.entry import run_and_exit

class Held:
    def __del__(self):
        print("taken apart")

held = Held()

def command():
    atexit.register(print, "registered")
    print("printed", end=" ")
    {end}

run_and_exit(command)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    expected = "printed registered\n" + ("taken apart\n" if "1 / 0" in end else "")
    assert done.stdout == expected
