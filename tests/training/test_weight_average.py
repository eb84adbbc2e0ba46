"""The average of weights is the mean of every tensor, and loads as a classifier."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.core.errors import CommandFailed
from src.core.task import Task
from src.training import classifiers, inference, pretrained
from src.training.pretrained import WEIGHTS_FILE
from src.training.weight_average import average_weights
from tests.support.data import settings_of


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / "config.json").write_text(folder.name)
    return folder


def test_every_tensor_is_the_mean_and_keeps_its_type(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor([3])})
    two = saved(tmp_path / "two", {"w": torch.tensor([5.0, -2.0]), "n": torch.tensor([3])})
    average_weights({one: 1, two: 1}, tmp_path / "mean")
    found = load_file(tmp_path / "mean" / WEIGHTS_FILE)
    assert found["w"].tolist() == [3.0, 0.0]
    assert (found["n"].tolist(), found["n"].dtype) == ([3], torch.int64)
    assert (tmp_path / "mean" / "config.json").read_text() == "one"


def test_an_average_of_three_is_extended_by_a_fourth(tmp_path: Path) -> None:
    members = [saved(tmp_path / str(n), {"w": torch.tensor([float(n**3)])}) for n in range(4)]
    average_weights(dict.fromkeys(members[:3], 1), tmp_path / "three")
    average_weights({tmp_path / "three": 3, members[3]: 1}, tmp_path / "four")
    average_weights(dict.fromkeys(members, 1), tmp_path / "at once")
    assert load_file(tmp_path / "four" / WEIGHTS_FILE)["w"] == load_file(tmp_path / "at once" / WEIGHTS_FILE)["w"] == 9


def test_low_precision_weights_are_summed_in_high_precision(tmp_path: Path) -> None:
    members = [saved(tmp_path / str(n), {"w": torch.full((4,), 1.0 + n / 128, dtype=torch.bfloat16)}) for n in range(3)]
    average_weights(dict.fromkeys(members, 1), tmp_path / "mean")
    found = load_file(tmp_path / "mean" / WEIGHTS_FILE)["w"]
    assert (found.dtype, found.tolist()) == (torch.bfloat16, [1.0 + 1 / 128] * 4)


@pytest.mark.parametrize("other", [{"v": torch.zeros(2)}, {"w": torch.zeros(3)}])
def test_other_tensors_are_refused_and_nothing_is_left(tmp_path: Path, other: dict[str, torch.Tensor]) -> None:
    members = [saved(tmp_path / "one", {"w": torch.zeros(2)}), saved(tmp_path / "two", other)]
    with pytest.raises(CommandFailed, match="cannot be averaged"):
        average_weights(dict.fromkeys(members, 1), tmp_path / "mean")
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_the_average_of_two_classifiers_answers_as_one_with_the_mean_weights(tmp_path: Path) -> None:
    model = settings_of("model=tiny").recipe.model
    checkpoint = pretrained.resolve(model, tmp_path / "cache")
    built = [classifiers.build_classifier(checkpoint, model, Task(("no", "yes")), seed) for seed in (1, 2)]
    members = [tmp_path / "one", tmp_path / "two"]
    for classifier, folder in zip(built, members, strict=True):
        classifier.save_pretrained(folder)
        pretrained.load_tokenizer(checkpoint).save_pretrained(folder)
    average_weights(dict.fromkeys(members, 1), tmp_path / "mean")
    expected = classifiers.build_classifier(checkpoint, model, Task(("no", "yes")), 1)
    with torch.no_grad():
        for parameter, *others in zip(expected.parameters(), *(b.parameters() for b in built), strict=True):
            parameter.copy_(torch.stack(others).mean(dim=0))
    expected.save_pretrained(tmp_path / "expected")
    pretrained.load_tokenizer(checkpoint).save_pretrained(tmp_path / "expected")
    texts = ["a warm, funny film", "dull"]
    answers = [
        inference.predict_probabilities(inference.load_classifier(tmp_path / name, use_cpu=True), texts)
        for name in ("mean", "expected", "one")
    ]
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)
    assert abs(answers[0] - answers[2]).max() > 1e-4
