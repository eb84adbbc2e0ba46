"""Averages whose answers have the scale of their members' answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.core.task import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL, Task
from src.training import inference, matching
from src.training.weight_average import average_weights, weights_sha256
from tests.support.trainings import ARCHITECTURES, tiny_training

TASKS = {
    REGRESSION: Task(("stars",), kind=REGRESSION),
    MULTI_LABEL: Task(("a", "b", "c"), kind=MULTI_LABEL),
    SINGLE_LABEL: Task(("a", "b", "c")),
}
TEXTS = [f"{a} {b} {a + b}" for a in "abcdefg" for b in "tuvwxyz"]


def members_of(folder: Path, kind: str, n: int = 3) -> list[Path]:
    """Classifiers with one encoder and heads of their own, as trainings from several seeds have."""
    _, checkpoint, data = tiny_training(folder / "cache")
    task, members = TASKS[kind], []
    names = dict(enumerate(task.label_names))
    config = AutoConfig.from_pretrained(checkpoint.folder, id2label=names, problem_type=PROBLEM_TYPES[kind])
    for seed in range(n):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            checkpoint.folder, config=config, ignore_mismatched_sizes=True
        )
        with torch.no_grad():
            model.classifier.weight.normal_(0, 2.0)
            model.classifier.bias.normal_(1.0, 0.5)
        members.append(folder / f"member-{seed}")
        model.save_pretrained(members[-1])
        data.tokenizer.save_pretrained(members[-1])
    return members


def answers(folder: Path) -> np.ndarray:
    return inference.predict_probabilities(inference.load_classifier(folder, use_cpu=True), TEXTS)


@pytest.mark.parametrize("kind", [REGRESSION, MULTI_LABEL])
def test_an_average_is_fitted_to_the_mean_of_its_members(tmp_path: Path, kind: str) -> None:
    members, task = members_of(tmp_path, kind), TASKS[kind]
    of_members = matching.answers_of(members, TEXTS, task, use_cpu=True)
    average_weights(dict.fromkeys(members, 1), tmp_path / "plain")
    matching.average_members(members, of_members, TEXTS, task, tmp_path / "matched", use_cpu=True)
    wanted = of_members.mean(axis=0)
    plain, matched = (answers(tmp_path / name) for name in ("plain", "matched"))
    assert np.abs(matched - wanted).mean() <= np.abs(plain - wanted).mean() + 1e-6
    if kind == REGRESSION:
        slope, shift = matching.fit_lines(plain, wanted)
        np.testing.assert_allclose(matched, plain * slope + shift, rtol=1e-3, atol=1e-4)
        assert matched.mean() == pytest.approx(wanted.mean(), abs=1e-3)


def test_an_average_for_one_label_a_text_is_the_plain_one(tmp_path: Path) -> None:
    members, task = members_of(tmp_path, SINGLE_LABEL), TASKS[SINGLE_LABEL]
    of_members = matching.answers_of(members, TEXTS, task, use_cpu=True)
    assert of_members.size == 0  # nothing was predicted
    matching.average_members(members, of_members, TEXTS, task, tmp_path / "one", use_cpu=True)
    average_weights(dict.fromkeys(members, 1), tmp_path / "other")
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "other")


def test_the_same_members_give_the_same_file(tmp_path: Path) -> None:
    members, task = members_of(tmp_path, REGRESSION), TASKS[REGRESSION]
    of_members = matching.answers_of(members, TEXTS, task, use_cpu=True)
    for name in ("one", "other"):
        matching.average_members(members, of_members, TEXTS, task, tmp_path / name, use_cpu=True)
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "other")


def test_lines_are_those_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    outputs = generator.normal(0, 1, (50, 3))
    outputs[:, 2] = 0.5  # always the same
    wanted = outputs * [4.0, -2.0, 1.0] + [1.0, 2.0, 3.0] + generator.normal(0, 0.1, (50, 3))
    slope, shift = matching.fit_lines(outputs, wanted)
    for i in range(2):
        assert (slope[i], shift[i]) == pytest.approx(tuple(np.polyfit(outputs[:, i], wanted[:, i], 1)), abs=2e-3)
    assert slope[2] == 1.0
    assert shift[2] == pytest.approx(wanted[:, 2].mean() - 0.5, abs=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_layer_of_every_architecture_is_stretched(tmp_path: Path, name: str) -> None:
    config = AutoConfig.for_model(name, **ARCHITECTURES[name], num_labels=2, problem_type=PROBLEM_TYPES[MULTI_LABEL])
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    matching.stretch_last_layer(tmp_path, np.array([2.0, -3.0]), np.array([0.5, 1.0]))
    stretched = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        before, after = (m(input_ids=ids).logits[0].numpy() for m in (model, stretched))
    np.testing.assert_allclose(after, before * [2.0, -3.0] + [0.5, 1.0], rtol=1e-4, atol=1e-5)
