"""Rows of tokens that no training text uses are left out of a training; what is learned and saved is the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, BertForMaskedLM

from src.learning import checkpoints, embeddings
from src.learning.checkpoints import BEST
from src.learning.embeddings import UsedEmbedding, leave_out_unused
from src.learning.finetune import Lesson, _trainer, calibrate, evaluate_untrained, fine_tune
from src.learning.judge import Goal
from src.learning.resume import last_checkpoint
from src.records import State
from tests import test_learning
from tests.test_learning import ARCHITECTURES, SMALL, Listener

GOAL = Goal("loss", "minimize", (0.5, 1.0))
TRAINED = ["trainer.num_train_epochs=3", "optimizer.learning_rate=3e-3", "optimizer.weight_decay=0.3",
           "model.dropout=0.1", "trainer.bf16=false"]  # fmt: skip
TABLE = "bert.embeddings.word_embeddings.weight"


def material(cache: Path, *overrides: str) -> tuple[Any, checkpoints.Checkpoint, Lesson]:
    settings, checkpoint, lesson = test_learning.material(cache, *TRAINED, *overrides)
    return settings.recipe, checkpoint, lesson


def used_by(lesson: Lesson) -> np.ndarray:
    return np.unique(np.concatenate([lesson.tokenizer.pad_token_id, *lesson.train["input_ids"][:]], axis=None))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("optim", embeddings.EXACT)
def test_a_training_learns_and_saves_what_one_of_all_rows_does(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optim: str
) -> None:
    recipe, checkpoint, lesson = material(cache, f"optimizer.optim={optim}")
    ears = Listener(), Listener()
    fine_tune(recipe, checkpoint, lesson, GOAL, ears[0], tmp_path / "used")
    monkeypatch.setattr(embeddings, "WORTH", 0.0)
    fine_tune(recipe, checkpoint, lesson, GOAL, ears[1], tmp_path / "all")
    assert [step for step, _ in ears[0].curves] == [step for step, _ in ears[1].curves]
    for mine, theirs in zip(*([e.metrics for e in ear.evaluations] for ear in ears), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    for (_, mine), (_, theirs) in zip(*(ear.curves for ear in ears), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    weights = [load_file(tmp_path / side / BEST / "model.safetensors") for side in ("used", "all")]
    assert weights[0].keys() == weights[1].keys()
    for key, mine in weights[0].items():
        torch.testing.assert_close(mine, weights[1][key], rtol=1e-4, atol=1e-5)
    unused = np.setdiff1d(np.arange(len(weights[0][TABLE])), used_by(lesson))
    before = load_file(checkpoint.folder / "model.safetensors")[TABLE]
    assert len(unused) > 20
    assert torch.equal(weights[0][TABLE][unused], weights[1][TABLE][unused])  # decayed, to the last bit
    assert (weights[0][TABLE][unused].abs() <= before[unused].abs()).all()
    assert not torch.equal(weights[0][TABLE][unused], before[unused])


def test_the_parameter_is_of_the_used_rows_and_lookups_are_of_all(cache: Path) -> None:
    recipe, checkpoint, lesson = material(cache)
    plain = checkpoints.build(checkpoint, recipe.model, lesson.label_names, 1).get_input_embeddings()
    model = checkpoints.build(checkpoint, recipe.model, lesson.label_names, 1)
    made = leave_out_unused(model, lesson.train, lesson.tokenizer.pad_token_id)
    assert made is model.get_input_embeddings()
    assert made.weight.shape == (len(used_by(lesson)), 32)
    every = torch.arange(plain.num_embeddings)
    assert torch.equal(made.eval()(every), plain(every))
    texts = torch.tensor(used_by(lesson)).reshape(1, -1)
    assert torch.equal(made.train()(texts), plain(texts))
    made(texts).sum().backward()
    padding = made.place[lesson.tokenizer.pad_token_id]
    assert (made.weight.grad[padding] == 0).all()
    assert (made.weight.grad != 0).any(dim=1).sum() == len(used_by(lesson)) - 1
    elsewhere = leave_out_unused(
        checkpoints.build(checkpoint, recipe.model, lesson.label_names, 1).to("meta"), lesson.train, 0
    )
    assert {t.device.type for t in (elsewhere.weight, elsewhere.table, elsewhere.used, elsewhere.place)} == {"meta"}
    unpadded = checkpoints.build(checkpoint, recipe.model, lesson.label_names, 1)
    unused = int(np.setdiff1d(np.arange(plain.num_embeddings), used_by(lesson))[0])
    unpadded.get_input_embeddings().padding_idx = unused  # the tokenizer pads with another token than the model thinks
    assert leave_out_unused(unpadded, lesson.train, 0).train()(texts).shape == (*texts.shape, 32)
    half = made.to(torch.float16)
    assert (half.weight.dtype, half.table.dtype, half.place.dtype) == (torch.float16, torch.float16, torch.int64)


def test_a_checkpoint_is_smaller_and_one_of_all_rows_is_continued_too(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, checkpoint, lesson = material(cache)

    def until(folder: str, cut: int | None) -> Listener:
        ear = Listener(stop_after_steps=cut, state=State.PAUSED)
        fine_tune(recipe, checkpoint, lesson, GOAL, ear, tmp_path / folder)
        return ear

    with monkeypatch.context() as patched:
        patched.setattr(embeddings, "WORTH", 0.0)
        until("of all", 9)
    until("of used", 9)
    sizes = [(last_checkpoint(tmp_path / f) / "optimizer.pt").stat().st_size for f in ("of used", "of all")]
    moments = torch.load(last_checkpoint(tmp_path / "of all") / "optimizer.pt")["state"][0]["exp_avg"]
    missing = len(moments) - len(used_by(lesson))
    assert sizes[1] - sizes[0] == pytest.approx(2 * 4 * 32 * missing, abs=1000)
    last = [until(f, None).evaluations[-1].metrics for f in ("of used", "of all")]
    assert last[0] == pytest.approx(last[1], abs=1e-5)


def test_a_measurement_of_few_texts_computes_with_all_rows_that_the_training_will(cache: Path, tmp_path: Path) -> None:
    recipe, checkpoint, lesson = material(cache)
    seen: list[int] = []
    remembered = embeddings.decay_with

    def noted(optimizer: torch.optim.Optimizer, made: UsedEmbedding) -> None:
        seen.append(made.n_used)
        remembered(optimizer, made)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embeddings, "decay_with", noted)
        few = lesson.train.select(range(40))
        assert len(used_by(Lesson(few, lesson.validation, lesson.tokenizer, lesson.label_names))) < len(used_by(lesson))
        calibrate(recipe, checkpoint, lesson, tmp_path / "a")
        fine_tune(recipe, checkpoint, lesson, GOAL, Listener(), tmp_path / "b")
    assert seen == [len(used_by(lesson))] * 2


@pytest.mark.parametrize(
    ("optimizer", "field"),
    [("optimizer=adafactor", None), ("optimizer.optim=sgd", None), ("optimizer=adamw", "fp16"),
     ("optimizer=adamw", "torch_compile")],
)  # fmt: skip
def test_where_it_would_not_be_the_same_all_rows_are_trained(
    cache: Path, tmp_path: Path, optimizer: str, field: str | None
) -> None:
    recipe, checkpoint, lesson = material(cache, optimizer)
    trainer = _trainer(recipe, checkpoint, lesson, tmp_path)
    if field:
        setattr(trainer.args, field, True)
    trainer.create_optimizer()
    assert type(trainer.model.get_input_embeddings()) is torch.nn.Embedding


def test_an_embedding_that_is_shared_or_frozen_or_mostly_used_is_left_alone() -> None:
    few = Dataset.from_dict({"input_ids": [[1, 2, 3]]})
    shared = BertForMaskedLM(AutoConfig.for_model("bert", **SMALL))
    assert shared.get_input_embeddings().weight is shared.get_output_embeddings().weight
    assert leave_out_unused(shared, few, 0) is None
    made = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **SMALL))
    assert leave_out_unused(made, Dataset.from_dict({"input_ids": [list(range(50))]}), 0) is None
    made.get_input_embeddings().requires_grad_(False)
    assert leave_out_unused(made, few, 0) is None
    assert type(made.get_input_embeddings()) is torch.nn.Embedding


@pytest.mark.parametrize("kind", checkpoints.DROPOUT_FIELDS)
def test_every_listed_architecture_answers_and_saves_as_before(tmp_path: Path, kind: str) -> None:
    made = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind])).eval()
    texts = {"input_ids": torch.tensor([[1, 5, 6, 2], [1, 40, 41, 2]]), "attention_mask": torch.ones(2, 4).long()}
    before, state = made(**texts).logits, {k: v.clone() for k, v in made.state_dict().items()}
    assert leave_out_unused(made, Dataset.from_dict({"input_ids": [[1, 5, 6, 2]]}), 0) is not None
    assert torch.equal(made(**texts).logits, before)
    assert all(torch.equal(v, state[k]) for k, v in made.state_dict().items())
    made.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**texts).logits, before)


def test_a_text_with_other_tokens_is_judged_by_its_own_rows(cache: Path, tmp_path: Path) -> None:
    """Validation texts may use tokens that no training text has: they count, as they came and have decayed."""
    recipe, checkpoint, lesson = material(cache)
    spare = np.setdiff1d(np.arange(len(lesson.tokenizer)), used_by(lesson))
    strange = lesson.validation.map(lambda row: {"input_ids": [int(spare[i % len(spare)]) for i in row["input_ids"]]})
    lesson = Lesson(lesson.train, strange, lesson.tokenizer, lesson.label_names)
    outcome = fine_tune(recipe, checkpoint, lesson, GOAL, Listener(), tmp_path / "a")
    kept = checkpoints.Checkpoint(tmp_path / "a" / BEST, "kept", "folder", None)
    again = evaluate_untrained(recipe, kept, lesson, tmp_path / "b")
    assert again.metrics["loss"] == pytest.approx(outcome.score, abs=1e-6)
