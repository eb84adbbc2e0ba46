"""The head of a checkpoint that was fine-tuned before: kept by name, else new."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from src.core.task import Task
from src.training import classification_head, classifiers, pretrained
from tests.support.data import settings_of

SIZES = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def built(
    folder: Path, own: dict[int, str], names: tuple[str, ...], kind: str = "bert", seed: int = 1
) -> tuple[object, object]:
    """The saved classifier, and what a training for `names` begins with."""
    torch.manual_seed(0)
    config = BertConfig(**SIZES) if kind == "bert" else pretrained_config(kind)
    config.id2label, config.label2id = own, {name: i for i, name in own.items()}
    saved = AutoModelForSequenceClassification.from_config(config)
    saved.save_pretrained(folder)
    model = settings_of("model=checkpoint", f"model.checkpoint={folder}", "model.dropout=null").recipe.model
    return saved, classifiers.build_classifier(pretrained.find(model, folder), model, Task(names), seed)


def pretrained_config(kind: str) -> object:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **SIZES)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize(("names", "order"), [(("negative", "positive"), [0, 1]), (("Positive", "Negative"), [1, 0])])
def test_a_head_for_the_same_labels_is_kept_by_name(
    tmp_path: Path, names: tuple[str, ...], order: list[int], kind: str
) -> None:
    saved, model = built(tmp_path, {0: "NEGATIVE", 1: "POSITIVE"}, names, kind)
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with torch.no_grad():
        before, after = saved.eval()(**batch).logits, model.eval()(**batch).logits  # type: ignore[attr-defined]
    torch.testing.assert_close(after, before[:, order], rtol=1e-5, atol=1e-8)  # where weights lie decides the last bit
    assert model.config.id2label == dict(enumerate(names))  # type: ignore[attr-defined]


@pytest.mark.parametrize("own", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "spam", 1: "ham"}])
def test_a_head_for_other_labels_is_replaced_and_the_rest_kept(tmp_path: Path, own: dict[int, str]) -> None:
    saved, model = built(tmp_path, own, ("negative", "positive"))
    assert not torch.equal(saved.classifier.weight, model.classifier.weight)  # type: ignore[attr-defined]
    assert torch.equal(saved.bert.pooler.dense.weight, model.bert.pooler.dense.weight)  # type: ignore[attr-defined]
    again, other = (
        built(tmp_path, own, ("negative", "positive"))[1],
        built(tmp_path, own, ("negative", "positive"), seed=2)[1],
    )
    assert torch.equal(again.classifier.weight, model.classifier.weight)  # type: ignore[attr-defined]
    assert not torch.equal(other.classifier.weight, model.classifier.weight)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("own", "names", "says"),
    [
        (None, ["a", "b"], None),
        (["a", "b"], ["a", "b"], None),
        (["b", "a"], ["a", "b"], "some/model has a head for b, a; it is kept, each label by its name"),
        (
            ["1 star", "2 stars"],
            ["a", "b"],
            "some/model has a head for other labels (1 star, 2 stars), so every training begins",
        ),
    ],
)
def test_what_is_said_of_the_head(own: list[str] | None, names: list[str], says: str | None) -> None:
    note = classification_head.note_on_head("some/model", own, names)
    assert note is None if says is None else note is not None and note.startswith(says)
