"""One training over two processes (gloo): the same model as one process makes, one callback, one end for all."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from src.config.settings import Recipe
from src.core.paths import Paths
from src.core.records import Calibration, Evaluation, State, StopDecision
from src.training import classifiers, distributed, failures
from src.training.callbacks import Objective, TrainingFailed
from src.training.checkpoints import last_checkpoint
from src.training.classifier_trainer import TokenizedData
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE
from src.workers.context import WorkerContext
from tests.support.commands import Place, trials_of, workers_of
from tests.support.data import settings_of, write_letters
from tests.support.processes import PROCESSES

GOAL = Objective("accuracy", "maximize", [0.5, 1.0])
# 96 texts in batches of 16: no last batch that would have to be filled up
SAME = ["data=files", "data.path=letters.csv", "data.label_names=[low,high]", "model=tiny", "trainer.logging_steps=1",
        "data.max_examples={train: 96, validation: 60, test: 40}",
        "trainer.per_device_train_batch_size=16", "model.dropout=0", "trainer=cpu",
        "trainer.bf16=false", "trainer.num_train_epochs=6", "optimizer.learning_rate=3e-3"]  # fmt: skip


@dataclass
class RecordedCalls:
    """Records the calls of a callback; may stop the training after so many steps."""

    stop_at: int | None = None
    order: StopDecision | None = None
    kill: bool = False
    losses: dict[int, float] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    speeds: list[Calibration] = field(default_factory=list)
    saves: int = 0
    built: dict[str, str] = field(default_factory=dict)

    def on_training_begins(self, built: Mapping[str, str]) -> None:
        self.built = dict(built)

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        self.losses[step] = values["train/loss"]

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        self.evaluations.append(evaluation)
        return None

    def on_speed_measured(self, found: Calibration) -> None:
        self.speeds.append(found)

    def on_checkpoint(self) -> None:
        self.saves += 1

    def should_stop(self, step: int, /) -> StopDecision | None:
        if step == self.stop_at and self.kill:
            own = [p for p in psutil.Process().children(recursive=True) if len(p.children()) == 0]
            os.kill(max(own, key=lambda p: p.create_time()).pid, signal.SIGKILL)  # the rank that started last
            return None
        return self.order if step == self.stop_at else None


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any, TokenizedData]:
    folder = tmp_path_factory.mktemp("ranks")
    settings = settings_of(*SAME, f"data.path={write_letters(folder / 'letters.csv')}")
    context = WorkerContext(settings, Paths(folder))
    return settings.recipe, *context.tokenized_data(settings.recipe.model)


def trained(
    work: tuple[Recipe, Any, TokenizedData], devices: int, folder: Path, calls: RecordedCalls, **trainer: object
) -> Any:
    recipe, checkpoint, data = work
    recipe = replace(recipe, trainer={**recipe.trainer, **trainer})
    return distributed.fine_tune(devices, recipe, checkpoint, data, GOAL, calls, folder)


def test_two_processes_train_the_model_that_one_does(work: tuple[Recipe, Any, TokenizedData], tmp_path: Path) -> None:
    alone, together = RecordedCalls(), RecordedCalls()
    one = trained(work, 1, tmp_path / "one", alone)
    two = trained(work, 2, tmp_path / "two", together)
    assert one.score > 0.9  # it has learned something
    assert one.metrics["loss"] < 0.6  # a guess has 0.69
    assert (two.state, two.step, two.steps) == (State.COMPLETE, one.step, one.steps)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-5)
    assert together.losses == pytest.approx(alone.losses, abs=1e-5)
    assert [e.examples for e in together.evaluations] == [e.examples for e in alone.evaluations]
    assert [len(calls.speeds) for calls in (alone, together)] == [1, 1]
    probabilities = [np.load(tmp_path / name / BEST_DIR / PROBABILITIES_FILE) for name in ("one", "two")]
    assert np.abs(probabilities[0] - probabilities[1]).max() < 1e-3
    weights = [
        classifiers.build_classifier(
            replace(work[1], folder=tmp_path / name / BEST_DIR), work[0].model, work[2].task, 0
        ).state_dict()
        for name in ("one", "two")
    ]
    assert all(torch.allclose(value, weights[1][key], atol=1e-3) for key, value in weights[0].items())


@pytest.mark.long
def test_accumulated_steps_are_shared_alike(work: tuple[Recipe, Any, TokenizedData], tmp_path: Path) -> None:
    smaller = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    one = trained(work, 1, tmp_path / "one", RecordedCalls(), **smaller)
    two = trained(work, 2, tmp_path / "two", RecordedCalls(), **smaller)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-5)


def test_an_order_ends_all_and_they_continue_from_there(
    work: tuple[Recipe, Any, TokenizedData], tmp_path: Path
) -> None:
    straight, first, second = (
        RecordedCalls(),
        RecordedCalls(stop_at=5, order=StopDecision(State.PAUSED, "later")),
        RecordedCalls(),
    )
    trained(work, 2, tmp_path / "straight", straight)
    paused = trained(work, 2, tmp_path / "cut", first)
    assert (paused.state, paused.steps, paused.reason, first.saves) == (State.PAUSED, 5, "later", 1)
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-5"
    rest = trained(work, 2, tmp_path / "cut", second)
    assert rest.state == State.COMPLETE
    assert first.losses | second.losses == straight.losses
    assert [e.metrics for e in second.evaluations] == [e.metrics for e in straight.evaluations]


def test_a_pruned_one_ends_at_the_step_it_was_told(work: tuple[Recipe, Any, TokenizedData], tmp_path: Path) -> None:
    result = trained(work, 2, tmp_path, RecordedCalls(stop_at=4, order=StopDecision(State.PRUNED, "enough")))
    assert (result.state, result.steps, result.reason) == (State.PRUNED, 4, "enough")


def test_a_failure_has_its_reason_and_leaves_no_process(
    work: tuple[Recipe, Any, TokenizedData], tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailed, match=r"^ValueError: .*round multiple") as caught:
        trained(work, 2, tmp_path, RecordedCalls(), per_device_train_batch_size=15)
    assert "accelerate" in str(caught.value.__cause__)  # the traceback of the process that failed
    assert not workers_of(os.getpid())


def _killed(work: tuple[Recipe, Any, TokenizedData], folder: Path) -> None:
    trained(work, 2, folder, RecordedCalls(stop_at=20, kill=True))


@pytest.mark.long
def test_a_killed_process_takes_its_worker_with_it(work: tuple[Recipe, Any, TokenizedData], tmp_path: Path) -> None:
    """So that whoever replaces killed workers replaces this one, which goes on from the last checkpoint."""
    worker = PROCESSES.Process(target=_killed, args=(work, tmp_path))
    worker.start()
    worker.join(120)
    assert worker.exitcode == -signal.SIGKILL
    assert last_checkpoint(tmp_path).name == "checkpoint-18"
    assert trained(work, 2, tmp_path, RecordedCalls()).state == State.COMPLETE


@pytest.mark.long
def test_speed_is_measured_over_all_of_them(work: tuple[Recipe, Any, TokenizedData], tmp_path: Path) -> None:
    recipe, checkpoint, data = work
    result = distributed.measure_speed(2, recipe, checkpoint, data, tmp_path / "scratch")
    assert result.seconds_per_example > 0
    assert not (tmp_path / "scratch").exists()


def test_failure_of_memory_is_known_as_such() -> None:
    assert failures.failure_reason(TrainingFailed(f"{failures.OUT_OF_MEMORY}: no")).startswith(failures.OUT_OF_MEMORY)


@pytest.mark.long
def test_a_study_whose_trials_take_two_processes(place: Place) -> None:
    """One run per trial, pruned ones among them, and each can be reproduced."""
    arguments = [*SAME, "study.name=two", "study.n_trials=4", "study.baselines=[majority]", "study.report=false",
             "worker.devices_per_trial=2", "workers=1", "pruner.n_startup_trials=1", "study.rungs=[0.25,0.5,1.0]",
             "space.optimizer.learning_rate.low=1e-4", "space.optimizer.learning_rate.high=3e-2"]  # fmt: skip
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*arguments)
    assert done.code == 0, done.err + done.out
    assert "on 2 processes" in done.out
    states = [trial.state.name for trial in trials_of(place, "two")]
    assert len(states) == 4
    assert set(states) <= {"COMPLETE", "PRUNED"}
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name != 'Default'")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert len(runs) == 4
    assert {run.data.tags["devices"] for run in runs} == {"2"}
    again = place.run("src.reproduce", f"run={runs[0].info.run_id}")
    assert again.code == 0, again.err + again.out
