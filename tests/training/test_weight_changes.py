"""How far layers moved: exact on weights that were moved by a known amount, in every architecture."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.core.task import Task
from src.training import pretrained, weight_changes
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES


def test_a_layer_that_was_doubled_moved_by_one_and_the_others_by_nothing(tmp_path: Path) -> None:
    model = settings_of("model=tiny").recipe.model
    start = weight_changes.initial_model(pretrained.resolve(model, tmp_path), model, Task(("a", "b")), 1)
    start.save_pretrained(tmp_path / "after")
    file = tmp_path / "after" / "model.safetensors"
    weights = load_file(file)
    save_file({n: 2 * w if ".layer.1." in n else w for n, w in weights.items()}, file, {"format": "pt"})
    result = weight_changes.group_by_layer(
        weight_changes.tensor_changes(start, tmp_path / "after"), start.base_model_prefix
    )
    assert {c.part: c.relative for c in result} == {
        "embeddings": 0, "layer 0": 0, "layer 1": pytest.approx(1.0), "pooler": 0, "classifier": 0,
    }  # fmt: skip
    assert sum(c.parameters for c in result) == sum(p.numel() for p in start.parameters())


def test_norms_of_a_layer_are_those_of_all_its_weights_as_one_vector(tmp_path: Path) -> None:
    model = settings_of("model=tiny").recipe.model
    start, other = (
        weight_changes.initial_model(pretrained.resolve(model, tmp_path), model, Task(("a", "b")), seed)
        for seed in (1, 2)
    )
    other.save_pretrained(tmp_path / "after")
    result = weight_changes.group_by_layer(
        weight_changes.tensor_changes(start, tmp_path / "after"), start.base_model_prefix
    )
    head = result[-1]
    before, after = (torch.cat([p.flatten() for p in m.classifier.parameters()]) for m in (start, other))
    assert head.part == "classifier"
    assert head.relative == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_tensor_belongs_to_embeddings_a_layer_or_a_head(kind: str) -> None:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind]))
    result = {weight_changes.layer_of(name, model.base_model_prefix) for name, _ in model.named_parameters()}
    layers = {"layer 0"} if kind == "albert" else {"layer 0", "layer 1"}  # ALBERT's layers share their weights
    assert layers <= result
    assert "embeddings" in result
    assert "Total params" in weight_changes.model_summary(model.eval(), 8)
    assert result - layers <= {
        "embeddings", "embeddings_project", "embedding_hidden_mapping_in", "rel_embeddings", "relative_attention_bias",
        "LayerNorm", "pooler", "pre_classifier", "classifier", "head", "final_norm",
    }  # fmt: skip


def test_the_summary_names_modules_and_parameters(tmp_path: Path) -> None:
    model = settings_of("model=tiny").recipe.model
    start = weight_changes.initial_model(pretrained.resolve(model, tmp_path), model, Task(("a", "b")), 1)
    text = weight_changes.model_summary(start, 16)
    assert "BertLayer" in text
    assert f"Total params: {sum(p.numel() for p in start.parameters()):,}" in text
