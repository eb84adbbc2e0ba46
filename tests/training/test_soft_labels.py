"""Soft labels: their arithmetic, and a training that learns them beside hard ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from src.core.records import State
from src.core.task import MULTI_LABEL
from src.training import soft_labels
from src.training.callbacks import Objective
from src.training.classifier_trainer import build_trainer
from src.training.trainer import fine_tune
from tests.support.data import write_rows
from tests.support.trainings import RecordingCallback, tiny_training

REFIT = Objective("accuracy", "maximize", (0.5, 1.0), refit_share=1.0)
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_temperature_makes_labels_softer_or_sharper(tmp_path: Path) -> None:
    def labels(temperature: float) -> np.ndarray:
        soft_labels.write_soft_labels(tmp_path / "a.parquet", list("abc"), PROBABILITIES, temperature)
        return np.stack(pd.read_parquet(tmp_path / "a.parquet")["label"])

    assert labels(1.0) == pytest.approx(PROBABILITIES)
    assert labels(2.0)[0] == pytest.approx([0.75, 0.25])  # 3 to 1, the root of 9 to 1
    assert labels(0.5)[1] == pytest.approx([1 / 17, 16 / 17])
    assert labels(4.0)[2] == pytest.approx([0.5, 0.5])


def test_hard_labels_become_certain_ones(cache: Path, tmp_path: Path) -> None:
    _, _, data = tiny_training(cache)
    soft_labels.write_soft_labels(tmp_path / "a.parquet", ["a", "b c", "d"], PROBABILITIES, 1.0)
    taught = soft_labels.add_soft_labels(data, tmp_path / "a.parquet").train
    assert len(taught) == len(data.train) + 3
    hard = np.asarray(taught["labels"][: len(data.train)])
    assert (hard.argmax(axis=1) == np.asarray(data.train["labels"][:])).all()
    assert set(hard.ravel()) == {0.0, 1.0}
    assert np.asarray(taught["labels"][-3:]) == pytest.approx(PROBABILITIES)
    assert taught["length"][-3:] == [len(ids) for ids in taught["input_ids"][-3:]]


def test_a_student_of_pairs_reads_both_texts(tmp_path: Path) -> None:
    rows = [(f"first {i}", f"second {i}", i % 2) for i in range(60)]
    file = write_rows(tmp_path / "pairs.csv", rows, "a,b,label")
    words = ["data=files", f"data.path={file}", "data.text_column=[a,b]", "data.label_names=null"]
    _, _, data = tiny_training(tmp_path / "cache", *words)
    soft_labels.write_soft_labels(tmp_path / "a.parquet", [("x", "y z"), ("x y", "z"), ("u", "v")], PROBABILITIES, 1.0)
    taught = soft_labels.add_soft_labels(data, tmp_path / "a.parquet").train
    assert set(taught.column_names) == {"input_ids", "attention_mask", "token_type_ids", "labels", "length"}
    assert [sum(ids) for ids in taught["token_type_ids"][-3:]] == [3, 2, 2]  # the second text and its [SEP]
    assert taught["token_type_ids"][: len(data.train)] == data.train["token_type_ids"][:]


def test_soft_labels_of_texts_with_several_are_each_for_themselves(tmp_path: Path) -> None:
    rows = [(f"text {i}", " ".join(["ab", "b", "", "a"][i % 4])) for i in range(80)]
    file = write_rows(tmp_path / "several.csv", rows)
    words = ["data=files", f"data.path={file}", "data.task=multi_label", "data.label_separator=' '"]
    _, _, data = tiny_training(tmp_path / "cache", *words)
    answers = np.array([[0.9, 0.9], [0.2, 0.5]])
    soft_labels.write_soft_labels(tmp_path / "a.parquet", ["x", "y"], answers, 2.0, MULTI_LABEL)
    taught = soft_labels.add_soft_labels(data, tmp_path / "a.parquet").train
    assert np.asarray(taught["labels"][-2:]) == pytest.approx(np.array([[0.75, 0.75], [1 / 3, 0.5]]))
    assert taught["labels"][: len(data.train)] == data.train["labels"][:]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_certain_labels_is_that_of_hard_ones(cache: Path, tmp_path: Path, smoothing: float) -> None:
    settings, checkpoint, data = tiny_training(cache, f"trainer.label_smoothing_factor={smoothing}", "model.dropout=0")
    trainer = build_trainer(settings.recipe, checkpoint, data, tmp_path)
    batch = data.tokenizer.pad(
        {"input_ids": data.train["input_ids"][:4], "attention_mask": data.train["attention_mask"][:4]},
        return_tensors="pt",
    )
    hard = torch.tensor(data.train["labels"][:4])
    model = trainer.model.eval()
    soft = trainer.compute_loss(model, {**batch, "labels": torch.eye(2)[hard]})
    assert soft.item() == pytest.approx(
        cross_entropy(model(**batch).logits, hard, label_smoothing=smoothing).item(), abs=1e-6
    )
    expected = trainer.compute_loss(model, {**batch, "labels": hard})
    assert soft.item() == pytest.approx(expected.item(), abs=1e-2)  # the Trainer's own, in its precision


@pytest.mark.parametrize("cuts", [[], [4]])
def test_a_student_is_trained_and_continued(cache: Path, tmp_path: Path, cuts: list[int]) -> None:
    settings, checkpoint, data = tiny_training(cache, "trainer.num_train_epochs=2")
    texts = [f"text number {i}" for i in range(40)]
    soft_labels.write_soft_labels(tmp_path / "a.parquet", texts, np.full((40, 2), 0.5), 1.0)
    objective = replace(REFIT, soft_labels=tmp_path / "a.parquet", trains_on_validation=False)
    whole = fine_tune(settings.recipe, checkpoint, data, objective, RecordingCallback(), tmp_path / "whole")
    for cut in cuts:
        paused = RecordingCallback(stop_after_steps=cut, state=State.PAUSED)
        fine_tune(settings.recipe, checkpoint, data, objective, paused, tmp_path / "cut")
    callback = RecordingCallback()
    result = fine_tune(settings.recipe, checkpoint, data, objective, callback, tmp_path / "cut")
    assert (result.state, result.score, result.steps) == (State.COMPLETE, None, whole.steps)
    batch = settings.recipe.trainer["per_device_train_batch_size"]
    assert result.steps == 2 * -(-(len(data.train) + 40) // batch)
    assert callback.curves
