"""Checkpoints, metrics, fine-tuning, baselines: real models, small data."""

import dataclasses
import itertools
import math
import platform
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, TrainerControl, TrainingArguments

from src.config.settings import LossSettings
from src.core.errors import InvalidInput
from src.core.metric import metric_names
from src.core.records import State, TrainingResult
from src.core.task import Task
from src.data import dataset
from src.training import arguments, baselines, classifiers, devices, pretrained
from src.training.callbacks import Objective, TrainingFailed, refit_objective
from src.training.checkpoints import last_checkpoint
from src.training.classifier_trainer import EpochSampler, build_trainer
from src.training.failures import failure_reason
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE
from src.training.throughput import MEASURED_STEPS, WARM_UP_STEPS, StepTimer, tokens_per_step
from src.training.trainer import evaluate_untrained, fine_tune, measure_speed, stratified_subset
from src.training.trainer_arguments import build_training_arguments, resolve_precision
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES, RecordingCallback, tiny_training, train_in_pieces

GOAL = Objective("accuracy", "maximize", (0.5, 1.0))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


# --- checkpoints ---


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_dropout_reaches_every_dropout_module(tmp_path: Path, kind: str) -> None:
    base = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind]))
    base.save_pretrained(tmp_path)
    settings = settings_of("model=checkpoint", f"model.checkpoint={tmp_path}", "model.dropout=0.37").recipe.model
    built = classifiers.build_classifier(pretrained.find(settings, tmp_path), settings, Task(("a", "b", "c")), 1)
    result = [m.p for m in built.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(result) >= 4
    assert set(result) == {0.37}
    kept = [v for m in built.modules() for k, v in vars(m).items() if "dropout" in k and isinstance(v, float)]
    assert set(kept) <= {0.37}  # for dropout that is a function's argument
    assert built.config.id2label == {0: "a", 1: "b", 2: "c"}
    answers = built(input_ids=torch.tensor([[1, 5, 6, 2]]), attention_mask=torch.ones(1, 4, dtype=torch.long))
    assert answers.logits.shape == (1, 3)


def test_another_architecture_trains_with_the_dropout_it_comes_with(cache: Path, tmp_path: Path) -> None:
    """From a folder with the shipped stand-in's tokenizer, to weights that load."""
    tiny = pretrained.resolve(settings_of("model=tiny").recipe.model, cache)
    tokenizer = pretrained.load_tokenizer(tiny)
    config = AutoConfig.for_model(
        "ernie", vocab_size=len(tokenizer), max_position_embeddings=128, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, hidden_dropout_prob=0.17, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    overrides = ("model=checkpoint", f"model.checkpoint={tmp_path / 'other'}", "model.max_tokens=64")
    with pytest.raises(
        InvalidInput, match=r"a model of type ernie; model\.dropout can be set for albert, .* model\.dropout=null"
    ):
        tiny_training(cache, *overrides)
    settings, checkpoint, data = tiny_training(cache, *overrides, "model.dropout=null", "trainer.num_train_epochs=1")
    arguments.check_arguments(settings.recipe)
    result = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / "training")
    assert result.state == State.COMPLETE, result.reason
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "training" / BEST_DIR)
    assert kept.config.hidden_dropout_prob == 0.17
    assert kept.config.id2label == {0: "negative", 1: "positive"}


def test_a_listed_architecture_keeps_its_dropout_too(tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model("bert", **ARCHITECTURES["bert"], hidden_dropout_prob=0.23)
    )
    base.save_pretrained(tmp_path)
    overrides = ("model=checkpoint", f"model.checkpoint={tmp_path}", "model.dropout=null")
    settings = settings_of(*overrides).recipe.model
    built = classifiers.build_classifier(pretrained.find(settings, tmp_path), settings, Task(("a", "b")), 1)
    assert built.config.hidden_dropout_prob == 0.23


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"bf16": "auto", "use_cpu": True}, None),
        ({"bf16": True}, "bf16"),
        ({"bf16": False}, "fp32"),
        ({"bf16": "auto", "fp16": True}, "fp16"),
        ({"fp16": True}, "fp16"),
        ({}, "fp32"),
    ],
)
def test_auto_takes_the_precision_that_the_machine_is_fast_in_and_anything_else_is_taken_at_its_word(
    cache: Path, asked: dict[str, Any], wanted: str | None
) -> None:
    recipe = tiny_training(cache)[0].recipe
    plain = {k: v for k, v in recipe.trainer.items() if k != "bf16"}
    recipe = dataclasses.replace(recipe, trainer={**plain, **asked})
    has = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else None
    units = None if has is None else "amx_bf16" in has or "avx512_bf16" in has
    if wanted is None and units is None:
        pytest.skip("only Linux says in a file what its processor has")
    wanted = wanted or ("bf16" if units else "fp32")
    assert resolve_precision(recipe) == wanted
    if asked.get("bf16") == "auto":
        training_arguments = build_training_arguments(recipe, cache)
        assert (training_arguments.bf16, training_arguments.fp16) == (wanted == "bf16", wanted == "fp16")


@pytest.mark.parametrize(("units", "wanted"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_units_for_bf16_gets_fp16(monkeypatch: pytest.MonkeyPatch, units: bool, wanted: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: units)
    assert devices.fast_precision(use_cpu=False) == wanted
    assert devices.fast_precision(use_cpu=True) in ("bf16", "fp32")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_a_training_keeps_the_memory_that_its_tensors_free() -> None:
    count = textwrap.dedent("""
        import resource, sys, torch
        from src.training import devices

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                torch.ones(25_000_000)  # 100 MB: 24,414 pages of 4 KiB
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        freed = faults()
        devices.keep_freed_memory()
        kept = [faults(), faults()][1]
        print(freed, kept)
    """)
    counts = subprocess.run([sys.executable, "-c", count], check=True, capture_output=True, text=True).stdout
    freed, kept = map(int, counts.split())
    assert kept < 100 < freed


@pytest.mark.parametrize(
    ("machine", "workers", "n_trials", "alone"),
    [
        (devices.Machine(2, 20.0, 0), 2, 8, True),
        (devices.Machine(2, 20.0, 0), 2, 7, False),  # too few trials to make up for the wait
        (devices.Machine(2, 20.0, 0), 1, 8, False),  # it has the machine anyway
        (devices.Machine(16, 20.0, 1), 2, 8, False),  # one GPU, which it would not fill
        (devices.Machine(2, 20.0, 0), 4, 40, False),  # workers of other machines wait for nothing
    ],
)
def test_the_default_recipe_has_the_cores_to_itself_where_that_costs_little(
    machine: devices.Machine, workers: int, n_trials: int, alone: bool
) -> None:
    assert devices.default_recipe_runs_alone(machine, workers, n_trials) is alone


def test_the_head_depends_on_the_seed_alone(cache: Path) -> None:
    settings, checkpoint, _ = tiny_training(cache)
    heads = [
        classifiers.build_classifier(checkpoint, settings.recipe.model, Task(("a", "b", "c")), seed).classifier.weight
        for seed in (1, 2, 1)
    ]
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], heads[1])


def test_minilm_comes_from_its_package_with_verified_weights(cache: Path) -> None:
    result = pretrained.resolve(settings_of().recipe.model, cache)
    assert result.source == "package"
    assert result.megabytes == pytest.approx(90.87, abs=0.01)
    assert result.fingerprint == "53aa51172d142c89"


def test_pins_hold_for_the_checkpoint_they_name_only(tmp_path: Path) -> None:
    source = pretrained.resolve(settings_of("model=tiny").recipe.model, tmp_path / "cache").folder
    folder = shutil.copytree(source, tmp_path / "model")
    result = pretrained.resolve(settings_of("model=minilm", f"model.checkpoint={folder}").recipe.model, tmp_path)
    assert (result.source, result.revision) == ("folder", None)


# --- fine-tuning ---


def test_a_training_is_judged_at_its_rungs_and_keeps_the_best_weights(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=4", "optimizer.learning_rate=3e-3")
    callback = RecordingCallback()
    objective = Objective("loss", "minimize", (0.25, 0.5, 1.0))
    result = fine_tune(settings.recipe, checkpoint, data, objective, callback, tmp_path)
    assert [(e.step, e.share, e.examples) for e in callback.evaluations] == [
        (5, 0.25, 80),
        (10, 0.5, 160),
        (20, 1.0, 320),
    ]
    assert result.state == State.COMPLETE
    assert result.score == min(e.metrics["loss"] for e in callback.evaluations)
    assert [step for step, _ in callback.curves] == list(range(2, 21, 2))
    assert set(callback.curves[0][1]) == {"train/loss", "train/learning_rate", "train/grad_norm", "train/epoch"}
    assert result.megabytes == (tmp_path / BEST_DIR / "model.safetensors").stat().st_size / 1e6
    kept = dataclasses.replace(checkpoint, folder=tmp_path / BEST_DIR)
    again = evaluate_untrained(settings.recipe, kept, data, tmp_path / "again")
    assert again.metrics["loss"] == pytest.approx(result.score, abs=1e-6)


def test_the_score_belongs_to_the_kept_weights_also_when_the_last_are_worse(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "schedule.warmup_steps=0.9", "optimizer.learning_rate=0.3")
    callback = RecordingCallback()
    result = fine_tune(
        settings.recipe, checkpoint, data, Objective("loss", "minimize", (0.1, 0.5, 1.0)), callback, tmp_path
    )
    losses = [e.metrics["loss"] for e in callback.evaluations]
    assert losses[-1] > min(losses) == result.score
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / BEST_DIR).config.id2label[1] == "positive"


def test_the_same_seed_gives_the_same_numbers(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=1")
    outcomes = [
        fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / str(i)) for i in (1, 2)
    ]
    assert outcomes[0].metrics == outcomes[1].metrics


def test_a_told_end_prunes(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=2")
    pruned = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(stop_at=0.5), tmp_path / "a")
    assert (pruned.state, pruned.reason, pruned.share) == (State.PRUNED, "bad", 0.5)
    stopped = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(stop_after_steps=3), tmp_path / "b")
    assert (stopped.state, stopped.reason, stopped.share, stopped.score) == (State.PRUNED, "late", 0.3, None)


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
@pytest.mark.parametrize("cuts", [[3], [5, 9], [5, 1, 1, 7], [14]])
def test_a_training_cut_anywhere_and_continued_equals_an_uninterrupted_one(
    cache: Path, tmp_path: Path, strategy: str, cuts: list[int]
) -> None:
    settings, checkpoint, data = tiny_training(
        cache, "trainer.num_train_epochs=4", f"trainer.train_sampling_strategy={strategy}", "model.dropout=0.2",
        "optimizer.learning_rate=3e-3", "trainer.logging_steps=3",
    )  # fmt: skip
    objective = Objective("loss", "minimize", (0.25, 0.5, 1.0))
    straight, pieces = RecordingCallback(), RecordingCallback()
    uninterrupted = fine_tune(settings.recipe, checkpoint, data, objective, straight, tmp_path / "a")
    for cut in cuts:
        callback = RecordingCallback(stop_after_steps=cut, state=State.PAUSED)
        result = fine_tune(settings.recipe, checkpoint, data, objective, callback, tmp_path / "b")
        assert (result.state, result.reason) == (State.PAUSED, "late")
        assert last_checkpoint(tmp_path / "b").name == f"checkpoint-{result.steps}"
        pieces.curves += callback.curves
        pieces.evaluations += callback.evaluations
    callback = RecordingCallback()
    result = fine_tune(settings.recipe, checkpoint, data, objective, callback, tmp_path / "b")
    pieces.curves += callback.curves
    pieces.evaluations += callback.evaluations
    assert pieces.curves == straight.curves
    assert [(e.step, e.metrics) for e in pieces.evaluations] == [(e.step, e.metrics) for e in straight.evaluations]
    assert (result.score, result.step, result.state) == (uninterrupted.score, uninterrupted.step, State.COMPLETE)
    weights = [load_file(tmp_path / side / BEST_DIR / "model.safetensors") for side in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("cuts", [[], [5, 9]])
def test_a_refit_trains_on_validation_too_and_ends_where_it_is_told(
    cache: Path, tmp_path: Path, cuts: list[int]
) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=4", "model.dropout=0.2")
    judged = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / "judged")
    half = refit_objective(replace(GOAL, rungs=(0.25, 0.5, 1.0)), replace(judged, step=judged.steps // 2))
    assert half.refit_share == 0.5
    straight = RecordingCallback()
    whole = fine_tune(settings.recipe, checkpoint, data, half, straight, tmp_path / "a")
    for cut in cuts:
        paused = RecordingCallback(stop_after_steps=cut, state=State.PAUSED)
        assert fine_tune(settings.recipe, checkpoint, data, half, paused, tmp_path / "b").state == State.PAUSED
    result = fine_tune(settings.recipe, checkpoint, data, half, RecordingCallback(), tmp_path / "b")
    assert (result.state, result.score, result.reason, result.steps) == (State.COMPLETE, None, None, whole.steps)
    assert result.share == pytest.approx(0.5, abs=0.05)
    texts = len(data.train) + len(data.validation)
    steps_per_epoch = math.ceil(texts / settings.recipe.trainer["per_device_train_batch_size"])
    assert whole.steps == math.ceil(0.5 * 4 * steps_per_epoch)
    assert straight.evaluations == []
    assert not (tmp_path / "b" / BEST_DIR / PROBABILITIES_FILE).exists()
    weights = [load_file(tmp_path / side / BEST_DIR / "model.safetensors") for side in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_refit_is_kept_where_its_seed_run_was() -> None:
    objective = Objective("accuracy", "maximize", (0.25, 0.5, 1.0))
    kept = TrainingResult(State.COMPLETE, step=13, steps=50, share=1.0)  # a rung's step is rounded up
    assert refit_objective(objective, kept).refit_share == 0.25
    assert refit_objective(objective, replace(kept, step=50)).refit_share == 1.0
    assert refit_objective(objective, TrainingResult(State.COMPLETE)).refit_share == 1.0


@pytest.mark.long
def test_minilm_cut_and_continued_equals_itself(cache: Path, tmp_path: Path) -> None:
    training = tiny_training(cache, "model=minilm", "trainer.num_train_epochs=3")
    uninterrupted, (whole_run,) = train_in_pieces(training, GOAL, tmp_path / "a")
    pieces, callbacks = train_in_pieces(training, GOAL, tmp_path / "b", 4, 7)
    assert [c for callback in callbacks for c in callback.curves] == whole_run.curves
    assert [e.metrics for callback in callbacks for e in callback.evaluations] == [
        e.metrics for e in whole_run.evaluations
    ]
    assert (pieces.score, pieces.metrics) == (uninterrupted.score, uninterrupted.metrics)


def test_a_pause_at_a_rung_continues_past_it(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=2")
    first = RecordingCallback(stop_at=0.5, state=State.PAUSED)
    paused = fine_tune(settings.recipe, checkpoint, data, GOAL, first, tmp_path)
    assert (paused.state, paused.share, paused.reason) == (State.PAUSED, 0.5, "bad")
    second = RecordingCallback()
    assert fine_tune(settings.recipe, checkpoint, data, GOAL, second, tmp_path).state == State.COMPLETE
    assert [e.share for e in first.evaluations + second.evaluations] == [0.5, 1.0]


def test_a_half_written_checkpoint_is_not_continued_from(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=2")
    fine_tune(
        settings.recipe, checkpoint, data, GOAL, RecordingCallback(stop_after_steps=3, state=State.PAUSED), tmp_path
    )
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-9" / "model.safetensors").write_bytes(b"torn")
    assert last_checkpoint(tmp_path).name == "checkpoint-3"


def test_rungs_can_be_judged_on_a_part_and_the_score_never_is(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=2")
    callback = RecordingCallback()
    objective = dataclasses.replace(GOAL, rung_examples=20)
    result = fine_tune(settings.recipe, checkpoint, data, objective, callback, tmp_path)
    assert [(e.share, e.whole) for e in callback.evaluations] == [(0.5, False), (1.0, True)]
    assert (result.step, result.score) == (callback.evaluations[1].step, callback.evaluations[1].metrics["accuracy"])


def test_a_loss_that_is_no_number_fails_fast(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(
        cache, "schedule=constant", "optimizer=sgd", "optimizer.learning_rate=1e30"
    )
    with pytest.raises(TrainingFailed, match=r"the training loss became nan by step \d"):
        fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path)


def test_orders_depend_on_seed_and_epoch_and_group_lengths() -> None:
    lengths = list(np.random.default_rng(0).integers(5, 90, size=400))
    sampler, other = (EpochSampler(lengths, 16, seed, group=True) for seed in (1, 2))
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert first == list(sampler) != second != list(other)
    assert sorted(first) == list(range(400))

    def padded(order: list[int]) -> int:
        return sum(16 * max(lengths[i] for i in order[k : k + 16]) for k in range(0, 400, 16))

    assert padded(first) < 0.75 * padded(list(EpochSampler(lengths, 16, 1, group=False)))


def test_the_trainer_takes_the_groups_verbatim(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "schedule=cosine", "trainer.label_smoothing_factor=0.1")
    args = build_trainer(settings.recipe, checkpoint, data, tmp_path).args
    assert (args.optim, args.lr_scheduler_type, args.warmup_steps) == ("adamw_torch_fused", "cosine", 0.1)
    assert (args.label_smoothing_factor, args.learning_rate, args.seed) == (0.1, 3e-4, 42)
    assert args.report_to == []


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_every_optimizer_and_schedule_trains(cache: Path, tmp_path: Path, optimizer: str, schedule: str) -> None:
    settings, checkpoint, data = tiny_training(
        cache, f"optimizer={optimizer}", f"schedule={schedule}", "trainer.num_train_epochs=1", "trainer=cpu"
    )
    arguments.check_arguments(settings.recipe)
    callback = RecordingCallback()
    assert fine_tune(settings.recipe, checkpoint, data, GOAL, callback, tmp_path).state == State.COMPLETE
    rates = [values["train/learning_rate"] for _, values in callback.curves]
    assert (len(set(rates)) == 1) == (schedule == "constant")


def test_speed_is_that_of_one_thread(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=1", "trainer=cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    callback = RecordingCallback()
    result = fine_tune(settings.recipe, checkpoint, data, GOAL, callback, tmp_path)
    each = [e.seconds / len(data.validation) * 1e6 for e in callback.evaluations]
    assert result.ms_per_1000_texts == pytest.approx(7 * min(each))


def test_calibration_measures_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache)
    result = measure_speed(settings.recipe, checkpoint, data, tmp_path / "scratch")
    assert 0 < result.seconds_per_example < 1
    assert 0 < result.seconds_per_evaluated < 1
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(("seconds", "steps"), [(0.1, 12), (0.6, 9), (2.0, 6), (30.0, 6)])
def test_slow_steps_are_measured_for_some_seconds_only(
    monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    ticks = itertools.chain.from_iterable((n, n + seconds) for n in itertools.count(step=100))
    monkeypatch.setattr("src.training.throughput.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    calls: list[StepTimer] = []
    for meter in (StepTimer(), StepTimer(calls.append)):
        control = driven(meter, world_size=1)
        assert len(meter.seconds) == steps
        assert meter.seconds_per_step() == pytest.approx(seconds)
        assert control.should_training_stop is (meter.on_measured is None)
    assert calls == [meter]
    together = StepTimer()
    driven(together, world_size=2)
    assert len(together.seconds) == MEASURED_STEPS  # ranks that disagreed would wait for ever


def driven(meter: StepTimer, world_size: int) -> TrainerControl:
    """A training of many steps, or as many as it is left to take."""
    control = TrainerControl()
    for _ in range(3 * MEASURED_STEPS):
        if not control.should_training_stop:
            meter.on_step_begin()
            meter.on_step_end(SimpleNamespace(world_size=world_size), None, control)
    meter.on_train_end()
    return control


def test_an_epoch_is_reckoned_from_its_first_steps_though_they_are_the_longest() -> None:
    rng, batch = np.random.default_rng(5), 16
    lengths = rng.lognormal(4, 0.6, 6000).astype(int)
    order = list(EpochSampler(lengths, batch, 1, group=True))
    tokens = tokens_per_step(lengths, order, batch)
    assert len(tokens) == 375
    assert tokens[0] == batch * lengths[order[:batch]].max()
    each = 1e-3 + 1e-5 * tokens  # seconds: an optimizer takes as long whatever the texts
    meter = StepTimer()
    meter.seconds = list(each[:MEASURED_STEPS])
    assert each[:MEASURED_STEPS].mean() * len(each) > 1.3 * each.sum()
    assert meter.seconds_per_epoch(tokens) == pytest.approx(each.sum(), rel=0.1)
    few = StepTimer()
    few.seconds = list(np.resize(each[:10], MEASURED_STEPS))  # an epoch shorter than what is measured
    assert few.seconds_per_epoch(tokens[:10]) == pytest.approx(each[:10].sum(), rel=0.1)
    accumulated = tokens_per_step(lengths, order, 4, 4)
    assert len(accumulated) == 375
    assert accumulated.sum() < tokens.sum()  # the fewer share a batch, the less is padded


def test_a_training_tells_its_speed_once_and_one_that_continues_does_not(cache: Path, tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=4")
    first, second = RecordingCallback(stop_after_steps=14, state=State.PAUSED), RecordingCallback()
    for callback in (first, second):
        fine_tune(settings.recipe, checkpoint, data, GOAL, callback, tmp_path)
    (speed,) = first.speeds
    assert second.speeds == []
    assert 0 < speed.seconds_per_evaluated < speed.seconds_per_example < 1
    assert (speed.device, speed.threads, speed.megabytes) == ("cpu", torch.get_num_threads(), checkpoint.megabytes)


def test_calibration_measures_texts_of_every_length() -> None:
    rng, batch = np.random.default_rng(5), 16
    lengths = rng.lognormal(4, 0.6, 6000).astype(int)
    epoch = list(EpochSampler(lengths, batch, 1, group=True))
    assert lengths[epoch[: MEASURED_STEPS * batch]].mean() > 1.3 * lengths.mean()  # as a real epoch begins
    ratios = []
    for seed in range(20):
        drawn = lengths[np.random.default_rng(seed).permutation(len(lengths))[: MEASURED_STEPS * batch]]
        order = list(EpochSampler(drawn, batch, seed, group=True))
        ratios.append(drawn[order[WARM_UP_STEPS * batch :]].mean() / drawn.mean())
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory: CUDA out of memory. Tried"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "out of memory: [enforce"),
        (TrainingFailed("the loss"), "the loss"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_a_failure_has_a_reason(error: Exception, says: str) -> None:
    assert failure_reason(error).startswith(says)


# --- arguments ---


# --- baselines, devices ---


def test_baselines_are_judged_on_the_same_validation_rows(cache: Path) -> None:
    prepared = dataset.prepare_dataset(settings_of().data, cache)
    train, validation, names = prepared.frame("train"), prepared.frame("validation"), prepared.label_names
    majority = baselines.evaluate_classic("majority", train, validation, GOAL, names, LossSettings())
    assert majority.score == pytest.approx((validation["label"] == 0).mean())
    linear = baselines.evaluate_classic("tfidf_logreg", train, validation, GOAL, names, LossSettings())
    assert 0.75 < linear.score < 0.9
    assert set(linear.metrics) == set(metric_names(2))
    assert linear.megabytes > majority.megabytes > 0


@pytest.mark.parametrize("name", list(baselines.CLASSIC))
def test_a_baseline_is_judged_also_where_train_lacks_a_label(cache: Path, name: str) -> None:
    prepared = dataset.prepare_dataset(settings_of().data, cache)
    train, validation = prepared.frame("train"), prepared.frame("validation").copy()
    validation.loc[validation.index[:20], "label"] = 2
    objective = Objective("f1_macro", "maximize", (1.0,))
    result = baselines.evaluate_classic(name, train, validation, objective, ("a", "b", "c"), LossSettings())
    assert result.state == State.COMPLETE
    assert set(result.metrics) == set(metric_names(3))
    assert result.metrics["accuracy"] < 1 - 20 / len(validation)


def test_counting_gpus_does_not_start_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is visible to a worker is said after that: it counts for CUDA's start alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("this starts CUDA"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: pytest.fail("this starts CUDA"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices.detect_machine(use_cpu=False).gpus == 4
    assert devices.detect_machine(use_cpu=False, each=2).gpus == 2
    assert devices.detect_machine(use_cpu=True).gpus == 0


def test_one_process_trains_on_one_gpu(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_training(cache)[0].recipe
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: getattr(self, "_n_gpu", 4) or 4))
    monkeypatch.setattr(TrainingArguments, "_n_gpu", 4, raising=False)
    assert build_training_arguments(recipe, cache).train_batch_size == recipe.trainer["per_device_train_batch_size"]


@pytest.mark.parametrize("few", [1, 2])
def test_a_part_of_validation_is_drawn_also_where_a_label_is_rare(few: int) -> None:
    labels = [0, 1] * 120 + [2] * few
    rows = stratified_subset(Dataset.from_dict({"labels": labels}), 200, "a")
    assert len(rows) == 200
    assert abs(rows["labels"][:].count(0) - rows["labels"][:].count(1)) < 30
    assert len(stratified_subset(Dataset.from_dict({"labels": labels}), len(labels) - 1, "a")) == len(labels) - 1


def test_the_validation_loss_is_that_of_the_labels_as_they_are(cache: Path, tmp_path: Path) -> None:
    """Smoothing is for training; a search for the least loss would never choose it."""
    result = []
    for smoothing in (0.0, 0.3):
        settings, checkpoint, data = tiny_training(cache, f"trainer.label_smoothing_factor={smoothing}")
        result.append(evaluate_untrained(settings.recipe, checkpoint, data, tmp_path).metrics["loss"])
    assert result[1] == pytest.approx(result[0], abs=1e-3)


@pytest.mark.parametrize(
    ("machine", "n_trials", "workers"),
    [
        ((2, 20.0, 0), 8, 2),
        ((2, 20.0, 0), 1, 1),
        ((8, 5.0, 0), 8, 2),
        ((64, 500.0, 0), 99, 16),
        ((64, 500.0, 4), 99, 4),
    ],
)
def test_workers_that_pay(machine: tuple[int, float, int], n_trials: int, workers: int) -> None:
    assert devices.default_worker_count(devices.Machine(*machine), n_trials) == workers


@pytest.mark.parametrize(
    ("machine", "n_trials", "counts"),
    [
        ((2, 20.0, 0), 8, (1, 2)),
        ((2, 20.0, 0), 1, (1,)),
        ((12, 500.0, 0), 99, (1, 2, 4, 8, 12)),
        ((16, 100.0, 1), 99, (1, 2, 4, 8, 16)),  # trainings packed on one card
        ((16, 100.0, 3), 99, (1, 3, 6, 12, 16)),
        ((1, 0.5, 0), 99, (1,)),
    ],
)
def test_counts_of_workers_to_measure(machine: tuple[int, float, int], n_trials: int, counts: tuple[int, ...]) -> None:
    assert devices.worker_counts_to_try(devices.Machine(*machine), n_trials) == counts
