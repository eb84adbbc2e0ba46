"""How much memory a training takes: against what the whole model keeps, and what is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.config.settings import Recipe
from src.core.errors import InvalidInput
from src.core.records import MemoryEstimate
from src.core.task import Task
from src.training import classifiers, cpu_dropout, memory, pretrained
from src.training.devices import Machine
from src.training.pretrained import PretrainedModel
from src.workers import recipe_check
from src.workflows.sweep import memory_plan
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES, DECODERS

TASK = Task(("low", "high"))
TEXT = ["a warm and funny film " * 3]
PLAIN = ("trainer=cpu", "trainer.bf16=false")


def recipe_of(*overrides: str) -> Recipe:
    return settings_of("model=tiny", *PLAIN, *overrides).recipe


def estimated(place: Path, *overrides: str) -> MemoryEstimate:
    recipe = recipe_of(*overrides)
    return memory.estimate_memory(recipe, pretrained.resolve(recipe.model, place), TASK, TEXT)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "llama", "gpt2"])
def test_activations_of_all_layers_are_those_that_the_whole_model_keeps(tmp_path: Path, kind: str) -> None:
    layers = "n_layers" if kind == "distilbert" else "n_layer" if kind == "gpt2" else "num_hidden_layers"
    config = AutoConfig.for_model(kind, **{**(ARCHITECTURES | DECODERS)[kind], layers: 5, "vocab_size": 143})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny = settings_of("model=tiny").recipe.model
    pretrained.load_tokenizer(pretrained.resolve(tiny, tmp_path / "cache")).save_pretrained(tmp_path)
    recipe = settings_of("model=checkpoint", f"model.checkpoint={tmp_path}", "model.dropout=0.1", *PLAIN).recipe
    checkpoint = PretrainedModel(tmp_path, str(tmp_path), "folder", None)
    found = memory.estimate_memory(recipe, checkpoint, TASK, TEXT)
    whole = classifiers.build_classifier(checkpoint, recipe.model, TASK, 1).train()
    cpu_dropout.install(whole)
    one, two = (memory._saved_bytes(whole, "fp32", found.tokens, n) for n in (1, 2))
    alike = 0.06 if kind == "modernbert" else 0.02  # whose layers are of two sorts
    assert found.per_text * 1e9 == pytest.approx(two - one, rel=alike)
    n_weights = sum(p.numel() for p in whole.parameters())
    assert found.weights * 1e9 == pytest.approx(4 * n_weights + 2 * one - two, rel=alike)
    assert found.gradients * 1e9 == 4 * n_weights
    assert found.optimizer == pytest.approx(2 * found.gradients, rel=0.01)


def test_what_saves_memory_is_seen(tmp_path: Path) -> None:
    full = estimated(tmp_path)
    assert estimated(tmp_path, "optimizer=sgd").optimizer == 0
    assert estimated(tmp_path, "optimizer=adafactor").optimizer < 0.3 * full.optimizer
    assert estimated(tmp_path, "trainer.activation_checkpointing=true").per_text < 0.8 * full.per_text
    adapted = estimated(tmp_path, "adapter=lora", "adapter.rank=2")
    assert adapted.gradients < 0.5 * full.gradients
    assert adapted.weights > full.weights
    half = estimated(tmp_path, "model.dtype=bfloat16", "trainer.bf16=auto")
    assert (half.gradients, half.optimizer) == (full.gradients / 2, pytest.approx(full.optimizer / 2, rel=0.01))
    assert estimated(tmp_path, "trainer.per_device_train_batch_size=32").total == pytest.approx(
        full.total + 16 * full.per_text
    )


def test_weights_in_four_bits_take_an_eighth_and_the_head_and_embeddings_do_not(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    config = AutoConfig.for_model("bert", **ARCHITECTURES["bert"] | {"hidden_size": 64, "vocab_size": 143})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny = settings_of("model=tiny").recipe.model
    pretrained.load_tokenizer(pretrained.resolve(tiny, tmp_path / "cache")).save_pretrained(tmp_path)
    where = ("model=checkpoint", f"model.checkpoint={tmp_path}", "model.max_tokens=32", "adapter=lora", "trainer=cpu")
    found = {}
    for dtype in ("float32", "4bit"):
        recipe = settings_of(*where, f"model.dtype={dtype}").recipe
        found[dtype] = memory.estimate_memory(recipe, PretrainedModel(tmp_path, "x", "folder", None), TASK, TEXT)
    layers = 2 * (4 * 64 * 64 + 2 * 64 * 64)  # weights of the projections
    saved = (found["float32"].weights - found["4bit"].weights) * 1e9
    assert saved > 0.8 * layers * (4 - memory.FOUR_BIT_BYTES)


def test_what_cannot_fit_is_refused_and_says_what_would(tmp_path: Path) -> None:
    found = estimated(tmp_path)
    memory_plan.check_fit(found, Machine(2, 20.0, 0))
    memory_plan.check_fit(None, Machine(2, 0.1, 0))
    with pytest.raises(InvalidInput) as raised:
        memory_plan.check_fit(found, Machine(2, 0.5, 0))
    text = str(raised.value)
    assert text.startswith("A training takes about 1.1 GB of memory with one text at a time (weights 0.00, gradients")
    assert "and this machine has 0.5 GB free. Take one of: adapter=lora, model.dtype=bfloat16" in text


def test_no_more_workers_than_fit() -> None:
    each = MemoryEstimate(0.5, 0.5, 1.0, 0.1, 11, 64, 0.9)
    assert each.total == pytest.approx(4.0)
    assert memory_plan.workers_that_fit(each, Machine(8, 17.0, 0), 8) == 4
    assert memory_plan.workers_that_fit(each, Machine(8, 3.0, 0), 8) == 1
    on_card = MemoryEstimate(0.5, 0.5, 1.0, 0.1, 11, 64, 0.9, gpu_gigabytes=10.0)
    assert memory_plan.workers_that_fit(on_card, Machine(8, 1.0, 2), 16) == 4  # two on each GPU
    enough, scarce = (memory_plan.describe(each, Machine(8, free, 0), 4, always=False) for free in (17.0, 9.0))
    assert enough.startswith("about 4.0 GB for each of 4 workers")
    assert scarce.endswith("this machine has 9.0 GB free; micro-batches are halved where it runs out")
    assert memory_plan.describe(each, Machine(8, 64.0, 0), 1, always=False) == ""


def test_an_estimate_is_used_on_the_kind_of_machine_that_it_is_for(tmp_path: Path) -> None:
    each = MemoryEstimate(0.5, 0.5, 1.0, 0.1, 11, 64, 0.9)
    memory_plan.save_estimate(each, tmp_path)
    assert memory_plan.load_estimate(tmp_path, Machine(8, 17.0, 0)) == each
    assert memory_plan.load_estimate(tmp_path, Machine(8, 17.0, 4)) is None
    assert memory_plan.load_estimate(tmp_path / "elsewhere", Machine(8, 17.0, 0)) is None
    assert memory_plan.workers_that_fit(None, Machine(8, 17.0, 4), 4) == 4


def test_an_optimizer_in_eight_bits_keeps_more_of_embeddings(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    wide = ARCHITECTURES["bert"] | {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 143}
    config = AutoConfig.for_model("bert", **wide)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny = settings_of("model=tiny").recipe.model
    pretrained.load_tokenizer(pretrained.resolve(tiny, tmp_path / "cache")).save_pretrained(tmp_path)
    where = ("model=checkpoint", f"model.checkpoint={tmp_path}", "model.max_tokens=32", *PLAIN)
    found = {}
    for optimizer in ("adamw", "adamw_8bit"):
        recipe = settings_of(*where, f"optimizer={optimizer}").recipe
        found[optimizer] = memory.estimate_memory(recipe, PretrainedModel(tmp_path, "x", "folder", None), TASK, TEXT)
    embedding = 8 * 128 * (143 + 64 + 2) / 1e9
    assert embedding < found["adamw_8bit"].optimizer < 0.75 * found["adamw"].optimizer


def test_the_largest_searched_values_count(tmp_path: Path) -> None:
    settings = settings_of(
        "model=tiny", *PLAIN, "adapter=lora", "+space.adapter.rank.choices=[4,16]",
        "+space.trainer.per_device_train_batch_size.choices=[8,32]",
    )  # fmt: skip
    from src.search import space as spaces

    checkpoint = pretrained.resolve(settings.recipe.model, tmp_path)
    candidates = [("", settings.recipe, checkpoint)]
    ((_, largest, _),) = memory_plan.largest_recipes(settings, spaces.build_space(settings), candidates)
    assert (largest.adapter.rank, largest.trainer["per_device_train_batch_size"]) == (16, 32)
    found = recipe_check.largest_estimate([("", largest, checkpoint)], TASK, TEXT, devices=2)
    assert found.texts == 16
    with torch.device("cpu"):
        assert found.gradients > estimated(tmp_path, "adapter=lora", "adapter.rank=4").gradients
