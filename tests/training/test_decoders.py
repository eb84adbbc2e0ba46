"""Decoders: padding, the last token of a text, dropout, and what of it is saved."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from src.core.errors import InvalidInput
from src.core.records import State
from src.core.task import Task
from src.training import architectures, classifiers, inference, pretrained
from src.training.callbacks import Objective
from src.training.dry_run import dry_run
from src.training.pretrained import BEST_DIR
from src.training.trainer import fine_tune
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES, DECODERS, RecordingCallback, tiny_training

TEXTS = ["dull", "a warm and funny film that nobody should miss", "good , but far too long"]
TASK = Task(("low", "high"))


def test_all_listed_architectures_are_tried() -> None:
    assert set(ARCHITECTURES) | set(DECODERS) == set(architectures.DROPOUT_FIELDS)
    assert {kind for kind in architectures.DROPOUT_FIELDS if architectures.is_decoder(kind)} == set(DECODERS)
    assert not any(map(architectures.is_decoder, ("xlnet", "bert", "t5", "bart")))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_padded_batch_gives_what_each_text_gives_by_itself(tmp_path: Path, kind: str) -> None:
    """With right padding the logits at a text's last token are those of the text alone, [n_texts, n_labels]."""
    torch.manual_seed(0)
    tiny = pretrained.resolve(settings_of("model=tiny_decoder").recipe.model, tmp_path / "cache")
    published = AutoTokenizer.from_pretrained(tiny.folder)
    config = AutoConfig.for_model(kind, **{**DECODERS[kind], "vocab_size": 100})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    published.save_pretrained(tmp_path)
    model = settings_of("model=checkpoint", f"model.checkpoint={tmp_path}", "model.dropout=0.37").recipe.model
    checkpoint = pretrained.find(model, tmp_path)
    built, tokenizer = (
        classifiers.build_classifier(checkpoint, model, TASK, 1).eval(),
        pretrained.load_tokenizer(checkpoint),
    )
    assert (tokenizer.padding_side, tokenizer.pad_token_id) == ("right", built.config.pad_token_id)
    with torch.inference_mode():
        batch = built(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        alone = torch.cat([built(**tokenizer([text], return_tensors="pt")).logits for text in TEXTS])
    torch.testing.assert_close(batch, alone, rtol=1e-4, atol=1e-5)
    assert batch.std(dim=0).min() > 1e-4  # the texts differ
    dropouts = [m.p for m in built.modules() if isinstance(m, torch.nn.Dropout)]
    functional = [v for m in built.modules() for k, v in vars(m).items() if "dropout" in k and isinstance(v, float)]
    assert {*dropouts, *functional} - {0.0, 0.1} == {0.37}  # OPT's layerdrop and GPT-2's unused summary stay


def test_padding_is_set_and_saved(tmp_path: Path) -> None:
    """From a language model whose tokenizer has no padding token and pads on the left, to weights that load."""
    settings, checkpoint, data = tiny_training(tmp_path, "model=tiny_decoder", "trainer.num_train_epochs=1")
    published = AutoTokenizer.from_pretrained(checkpoint.folder)
    assert (published.pad_token, published.padding_side) == (None, "left")
    objective = Objective("accuracy", "maximize", (0.5, 1.0))
    result = fine_tune(settings.recipe, checkpoint, data, objective, RecordingCallback(), tmp_path / "training")
    assert result.state == State.COMPLETE, result.reason
    best = tmp_path / "training" / BEST_DIR
    saved, config = AutoTokenizer.from_pretrained(best), AutoConfig.from_pretrained(best)
    assert (saved.pad_token, saved.padding_side, config.pad_token_id) == ("</s>", "right", saved.pad_token_id)
    texts = [f"{'very ' * (i % 7)}good film" for i in range(20)]
    classifier = inference.load_classifier(best, use_cpu=True)
    alone = [inference.predict_probabilities(classifier, [text])[0] for text in texts]
    torch.testing.assert_close(
        torch.from_numpy(inference.predict_probabilities(classifier, texts)), torch.tensor(alone), rtol=1e-4, atol=1e-5
    )


def test_the_padding_token_of_a_config_is_that_of_the_tokenizer(tmp_path: Path) -> None:
    config = AutoConfig.for_model("llama", **{**DECODERS["llama"], "pad_token_id": 2})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny = pretrained.resolve(settings_of("model=tiny_decoder").recipe.model, tmp_path / "cache")
    AutoTokenizer.from_pretrained(tiny.folder).save_pretrained(tmp_path)
    model = settings_of("model=checkpoint", f"model.checkpoint={tmp_path}").recipe.model
    checkpoint = pretrained.find(model, tmp_path)
    assert pretrained.load_tokenizer(checkpoint).pad_token_id == 2
    assert classifiers.classifier_config(checkpoint, model, TASK).pad_token_id == 2


@pytest.mark.parametrize("kind", [*DECODERS, *ARCHITECTURES])
def test_more_tokens_than_a_model_has_positions_are_refused(tmp_path: Path, kind: str) -> None:
    config = AutoConfig.for_model(kind, **{**(ARCHITECTURES | DECODERS)[kind], "vocab_size": 143})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny = pretrained.resolve(settings_of("model=tiny_decoder").recipe.model, tmp_path / "cache")
    AutoTokenizer.from_pretrained(tiny.folder).save_pretrained(tmp_path)
    words = ("model=checkpoint", f"model.checkpoint={tmp_path}", "model.dropout=0.1", "model.max_tokens=4000")
    with pytest.raises(InvalidInput, match=r"model\.max_tokens is 4000, and .* takes texts of up to \d+ tokens"):
        pretrained.resolve(settings_of(*words).recipe.model, tmp_path)


def test_pairs_that_nothing_would_separate_are_refused(tmp_path: Path) -> None:
    recipe = settings_of("model=tiny_decoder", "trainer=cpu").recipe
    checkpoint = pretrained.resolve(recipe.model, tmp_path)
    (problem,) = dry_run(recipe, checkpoint, Task(("no", "yes"), ("a", "b")), frozenset()).problems
    assert "the tokenizer of random://llama puts nothing between them" in problem
    assert dry_run(recipe, checkpoint, Task(("no", "yes")), frozenset()).problems == ()
