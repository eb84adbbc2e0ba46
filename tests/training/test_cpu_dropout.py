"""Dropout and attention as they are computed on a processor: against torch's own, and what is saved of them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.config.settings import Recipe
from src.training import architectures, classifier_trainer, cpu_dropout, pretrained, trainer_arguments
from src.training.callbacks import Objective
from src.training.classifier_trainer import TokenizedData, build_trainer
from src.training.pretrained import BEST_DIR
from src.training.trainer import fine_tune
from tests.support.trainings import ARCHITECTURES, RecordingCallback, tiny_training

TEXTS = {"input_ids": torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}  # fmt: skip
ENCODER = SimpleNamespace(is_causal=False)
TRAINED = ["trainer.num_train_epochs=3", "optimizer.learning_rate=3e-3", "optimizer.weight_decay=0.3",
           "model.dropout=0.1", "trainer.bf16=false"]  # fmt: skip


def material(cache: Path, *overrides: str) -> tuple[Recipe, pretrained.PretrainedModel, TokenizedData]:
    settings, checkpoint, data = tiny_training(cache, *TRAINED, *overrides)
    return settings.recipe, checkpoint, data


def classifier(kind: str, dropout: float) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **ARCHITECTURES[kind])
    for field in architectures.DROPOUT_FIELDS[kind]:
        setattr(config, field, dropout)
    return AutoModelForSequenceClassification.from_config(config)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_rest_made_up_for(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    n = 1_000_003  # no multiple of four
    result = cpu_dropout.apply_dropout(torch.ones(n, dtype=dtype), share).double()
    zero = (result == 0).double()
    assert zero.mean().item() == pytest.approx(share, abs=5 * (share * (1 - share) / n) ** 0.5 + 1 / (1 << 16))
    assert result.max().item() == pytest.approx(1 / (1 - share), rel=0.005)  # bfloat16 has eight bits
    for lag in (1, 2, 3, 4, 5, 8):  # neighbours share a random number: they must not know of each other
        together = (zero[lag:] * zero[:-lag]).mean().item()
        assert together == pytest.approx(share * share, abs=5 * (share**2 / n) ** 0.5 + 1e-4)


def test_masks_come_from_torchs_generator_and_gradients_go_where_values_went() -> None:
    values = torch.randn(30, 7, requires_grad=True)
    torch.manual_seed(1)
    result = cpu_dropout.apply_dropout(values, 0.3)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(cpu_dropout.apply_dropout(values, 0.3), result)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(cpu_dropout.apply_dropout(values, 0.3), result)
    result.sum().backward()
    assert torch.equal(values.grad == 0, result == 0)
    assert values.grad.max().item() == pytest.approx(1 / 0.7, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1e-9, 1 - 1e-9])
def test_shares_at_the_ends(share: float) -> None:
    result = cpu_dropout.apply_dropout(torch.ones(100), share)
    assert result.unique().tolist() == [round(1 - share)]


def test_dropout_is_for_training_only() -> None:
    values = torch.ones(1000)
    layer = cpu_dropout.FastDropout(0.5)
    assert (layer(values) == 0).any()
    assert torch.equal(layer.eval()(values), values)


@pytest.mark.parametrize("scaling", [None, 0.25])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_torchs_with_weights_dropped(
    monkeypatch: pytest.MonkeyPatch, masked: bool, scaling: float | None
) -> None:
    query, key, value = (torch.randn(3, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.arange(5).expand(3, 1, 5, 5) < torch.tensor([5, 3, 1]).view(3, 1, 1, 1) if masked else None
    shares: list[float] = []

    def nothing_dropped(values: torch.Tensor, share: float) -> torch.Tensor:
        shares.append(share)
        return values

    monkeypatch.setattr(cpu_dropout, "apply_dropout", nothing_dropped)
    claimed, weights = cpu_dropout.attention_with_dropout(
        ENCODER, query, key, value, mask, dropout=0.2, scaling=scaling
    )
    theirs = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling).transpose(1, 2)
    assert (shares, weights) == ([0.2], None)
    torch.testing.assert_close(claimed, theirs)
    for of in (query, key, value):
        torch.testing.assert_close(
            *(torch.autograd.grad(side.square().sum(), of, retain_graph=True) for side in (claimed, theirs))
        )


@pytest.mark.parametrize(
    ("module", "dropout"),
    [
        (ENCODER, 0.0),
        (SimpleNamespace(is_causal=True), 0.1),
    ],
)
def test_anything_else_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace, dropout: float
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(cpu_dropout, "apply_dropout", never)
    query, key, value = torch.randn(3, 3, 2, 5, 4)
    result, _ = cpu_dropout.attention_with_dropout(module, query, key, value, None, dropout=dropout)
    assert result.shape == (3, 5, 2, 4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_listed_architecture_answers_as_before_and_trains_with_its_dropout(kind: str) -> None:
    model = classifier(kind, dropout=0.0)
    plain = model.eval()(**TEXTS).logits
    without = model.train()(**TEXTS).logits
    cpu_dropout.install(model)
    assert not [m for m in model.modules() if type(m) is torch.nn.Dropout]
    torch.testing.assert_close(model.eval()(**TEXTS).logits, plain)
    torch.testing.assert_close(model.train()(**TEXTS).logits, without)
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.4
    assert not torch.allclose(model(**TEXTS).logits, without)
    torch.testing.assert_close(model.eval()(**TEXTS).logits, plain)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "xlm-roberta"])
def test_attention_with_dropout_is_this_one_where_torchs_would_be_used(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In expectation it answers what the model without dropout does; here dropout is replaced by nothing."""
    model = classifier(kind, dropout=0.3)
    answers = model.eval()(**TEXTS).logits
    shapes: list[tuple[int, ...]] = []

    def noted(values: torch.Tensor, _share: float) -> torch.Tensor:
        shapes.append(tuple(values.shape))
        return values

    monkeypatch.setattr(cpu_dropout, "apply_dropout", noted)
    cpu_dropout.install(model)
    torch.testing.assert_close(model.train()(**TEXTS).logits, answers)
    assert shapes.count((2, 2, 4, 4)) == 2  # two layers: [texts, heads, tokens, tokens]


def test_trainings_use_it_on_a_processor_alone_and_nothing_of_it_is_saved(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, checkpoint, data = material(cache)
    trainer = build_trainer(recipe, checkpoint, data, tmp_path / "trainer")
    assert trainer.model.config._attn_implementation == cpu_dropout.ATTENTION_NAME
    fine_tune(
        recipe, checkpoint, data, Objective("loss", "minimize", (1.0,)), RecordingCallback(), tmp_path / "training"
    )
    saved = json.loads((tmp_path / "training" / BEST_DIR / "config.json").read_text())
    assert cpu_dropout.ATTENTION_NAME not in json.dumps(saved)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "training" / BEST_DIR)
    assert again.config._attn_implementation == "sdpa"
    monkeypatch.setattr(trainer_arguments.TrainingArguments, "device", torch.device("cuda"))
    monkeypatch.setattr(classifier_trainer.Trainer, "_move_model_to_device", lambda *_: None)
    elsewhere = build_trainer(recipe, checkpoint, data, tmp_path / "other")
    assert elsewhere.model.config._attn_implementation == "sdpa"
    assert [m for m in elsewhere.model.modules() if type(m) is torch.nn.Dropout]
