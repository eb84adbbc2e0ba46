"""Trainings that predict numbers: their scale, their weights, their baselines, what learns from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.config.settings import LossSettings
from src.core.errors import InvalidInput
from src.core.metric import MINIMIZE
from src.core.task import REGRESSION, Task, predicts_numbers
from src.search.validate import check_task
from src.training import baselines, inference, linear_probe, soft_labels
from src.training.callbacks import Objective
from src.training.classifier_trainer import TokenizedData
from src.training.classifiers import build_classifier
from src.training.dry_run import dry_run
from src.training.number_scale import NumberScale
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE, resolve
from src.training.trainer import evaluate_untrained, fine_tune
from tests.support.data import settings_of, write_rows
from tests.support.trainings import ARCHITECTURES, RecordingCallback, tiny_training

OBJECTIVE = Objective("mae", MINIMIZE, (0.5, 1.0))
WORDS = [
    "data=files", "data.task=regression", "trainer.num_train_epochs=8", "trainer.per_device_train_batch_size=8",
    "optimizer.learning_rate=5e-3", "model.dropout=0", "seed=1",
]  # fmt: skip


def training_on(folder: Path, unit: float = 1.0, zero: float = 0.0, *overrides: str):
    """A small training on texts whose number is how many z they have, in some unit."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(120):
        n = int(generator.integers(0, 5))
        rows.append((" ".join(generator.permutation(["z"] * n + ["a"] * (4 - n))) + f" {i}", n * unit + zero))
    file = write_rows(folder / "z.csv", rows)
    return tiny_training(folder / "cache", *WORDS, f"data.path={file}", *overrides)


@pytest.mark.parametrize(("unit", "zero"), [(1000.0, -5000.0), (1e-4, 2e-4)])
def test_the_unit_of_the_numbers_does_not_matter(tmp_path: Path, unit: float, zero: float) -> None:
    scores = []
    for name, change in (("plain", (1.0, 0.0)), ("other", (unit, zero))):
        (tmp_path / name).mkdir()
        settings, checkpoint, data = training_on(tmp_path / name, *change, "trainer.bf16=false")
        result = fine_tune(settings.recipe, checkpoint, data, OBJECTIVE, RecordingCallback(), tmp_path / name / "t")
        scores.append(result)
    plain, other = (result.metrics for result in scores)
    assert plain["r2"] > 0.5  # something was learned
    assert other["r2"] == pytest.approx(plain["r2"], abs=0.02)
    assert other["mae"] == pytest.approx(plain["mae"] * unit, rel=0.05)
    assert other["loss"] == pytest.approx(plain["loss"], rel=0.1)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_saved_weights_predict_in_the_numbers_unit(tmp_path: Path, adapter: str) -> None:
    settings, checkpoint, data = training_on(tmp_path, 100.0, 1000.0, "trainer.bf16=false", f"adapter={adapter}")
    result = fine_tune(settings.recipe, checkpoint, data, OBJECTIVE, RecordingCallback(), tmp_path / "t")
    stored = np.load(tmp_path / "t" / BEST_DIR / PROBABILITIES_FILE)
    true = np.asarray(data.validation["labels"][:])
    assert stored.shape == (len(true), 1)
    assert np.abs(stored[:, 0] - true).mean() == pytest.approx(result.metrics["mae"], rel=1e-4)
    classifier = inference.load_classifier(tmp_path / "t" / BEST_DIR, use_cpu=True)
    assert predicts_numbers(classifier.model.config)
    texts = [data.tokenizer.decode(ids, skip_special_tokens=True) for ids in data.validation["input_ids"]]
    predicted = inference.predict_probabilities(classifier, texts)
    assert predicted == pytest.approx(stored, abs=1.0)
    assert classifier(texts[0])[0] == {"label": "label", "score": pytest.approx(float(predicted[0, 0]), abs=0.01)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_scale_is_put_into_every_architecture_and_taken_out_again(name: str) -> None:
    config = AutoConfig.for_model(name, **ARCHITECTURES[name], num_labels=1, problem_type="regression")
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.arange(4, 12)[None]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        plain = model(input_ids=ids).logits.item()
        with NumberScale(50.0, 8.0).inside(model):
            assert model(input_ids=ids).logits.item() == pytest.approx(plain * 8 + 50, rel=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_numbers_that_are_all_the_same_have_a_scale() -> None:
    assert NumberScale.of(np.full(5, 3.0)) == NumberScale(3.0, 1.0)


def test_an_architecture_without_a_bias_is_refused(tmp_path: Path) -> None:
    _, _, data = training_on(tmp_path)
    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=300, pad_token_id=0, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "gpt2")
    data.tokenizer.save_pretrained(tmp_path / "gpt2")
    recipe = settings_of(
        "model=checkpoint", f"model.checkpoint={tmp_path / 'gpt2'}", "model.max_tokens=64", "model.dropout=null"
    ).recipe
    found = dry_run(recipe, resolve(recipe.model, tmp_path), Task(("stars",), kind=REGRESSION), frozenset())
    assert len(found.problems) == 1
    assert "has no bias, in which the mean of the numbers is kept" in found.problems[0]


def test_a_head_of_another_regression_is_not_taken_over(tmp_path: Path) -> None:
    settings, checkpoint, data = training_on(tmp_path, 100.0)
    fine_tune(settings.recipe, checkpoint, data, OBJECTIVE, RecordingCallback(), tmp_path / "t")
    trained = settings_of(
        "model=checkpoint", f"model.checkpoint={tmp_path / 't' / BEST_DIR}", "model.max_tokens=64"
    ).recipe.model
    again = build_classifier(resolve(trained, tmp_path), trained, data.task, seed=0)
    assert again.classifier.weight.abs().max() < 1  # of a new head; the old one has the unit in it
    assert again.classifier.bias.abs().max() == 0


def test_an_untuned_model_is_judged_on_the_scale(tmp_path: Path) -> None:
    settings, checkpoint, data = training_on(tmp_path, 100.0, 1000.0)
    true = np.asarray(data.validation["labels"][:])
    untrained = evaluate_untrained(settings.recipe, checkpoint, data, tmp_path / "scratch", ["mae"])
    assert untrained.metrics["mae"] < 3 * np.abs(true - true.mean()).mean()
    numbers = np.asarray(data.train["labels"][:])
    classifier = inference.untuned_classifier(checkpoint, settings.recipe.model, data.task, 1, numbers)
    assert inference.predict_probabilities(classifier, ["a z"])[0, 0] == pytest.approx(numbers.mean(), abs=300)


def test_baselines_of_numbers(tmp_path: Path) -> None:
    settings = settings_of(*WORDS, f"data.path={tmp_path / 'z.csv'}", "study.metric=mse")
    assert settings.study.baselines == ["mean", "tfidf_ridge", "untuned"]
    training_on(tmp_path)
    from src.data.dataset import prepare_dataset

    prepared = prepare_dataset(settings.data, tmp_path / "cache")
    train, validation = prepared.frame("train"), prepared.frame("validation")
    found = {
        name: baselines.evaluate_classic(name, train, validation, OBJECTIVE, ("label",), LossSettings())
        for name in ("mean", "tfidf_ridge")
    }
    mean = train["label"].mean()
    assert found["mean"].score == pytest.approx(np.abs(validation["label"] - mean).mean())
    assert found["tfidf_ridge"].score < found["mean"].score
    predicted = baselines.predict_classic("tfidf_ridge", train, ["z z z z", "a a a a"], ("label",), LossSettings())
    assert predicted.shape == (2, 1)
    assert predicted[0, 0] > predicted[1, 0] + 1


def test_students_learn_the_numbers_of_their_teachers(tmp_path: Path) -> None:
    _, _, data = training_on(tmp_path)
    file = tmp_path / "soft.parquet"
    soft_labels.write_soft_labels(file, ["z z", "a z"], np.array([[2.25], [0.75]]), 3.0, REGRESSION)
    taught = soft_labels.add_soft_labels(data, file).train
    assert taught["labels"][-2:] == [2.25, 0.75]
    assert np.asarray(taught["labels"][:-2]) == pytest.approx(np.asarray(data.train["labels"][:]))


def test_a_linear_probe_of_numbers_is_a_ridge_regression(tmp_path: Path) -> None:
    settings, checkpoint, data = training_on(tmp_path)
    assert np.isfinite(linear_probe.evaluate_probe(settings.recipe, checkpoint, data, "spearman"))


@pytest.mark.parametrize(
    "setting",
    [
        "study.threshold=tuned",
        "loss.class_weights=balanced",
        "loss.focal_gamma=2",
        "trainer.label_smoothing_factor=0.1",
        "+space.loss.focal_gamma={low: 0, high: 1}",
        "+space.trainer.label_smoothing_factor={low: 0, high: 0.1}",
    ],
)
def test_what_is_about_labels_is_refused(setting: str) -> None:
    settings = settings_of(*WORDS, "data.path=z.csv", "study.metric=r2", setting)
    with pytest.raises(InvalidInput, match=r"is about labels, and data\.task is regression"):
        check_task(settings, Task(("stars",), kind=REGRESSION))


def test_a_rung_of_a_regression_has_ten_texts() -> None:
    task = Task(("stars",), kind=REGRESSION)
    with pytest.raises(InvalidInput, match=r"study.rung_examples is 9; of a regression it is at least 10"):
        check_task(settings_of(*WORDS, "data.path=z.csv", "study.metric=r2", "study.rung_examples=9"), task)


def test_metrics_have_their_task() -> None:
    task = Task(("stars",), kind=REGRESSION)
    with pytest.raises(InvalidInput, match=r"'accuracy', which is for labels; of numbers it is one of mse, mae, r"):
        check_task(settings_of(*WORDS, "data.path=z.csv"), task)
    with pytest.raises(InvalidInput, match=r"'mse', which is for numbers \(data.task=regression\); with 2 labels"):
        check_task(settings_of("study.metric=mse"), Task(("a", "b")))
    assert check_task(settings_of(*WORDS, "data.path=z.csv", "study.metric=neg_mean_squared_error"), task) == MINIMIZE


def test_tokenized_numbers_are_floats(tmp_path: Path) -> None:
    _, _, data = training_on(tmp_path, 0.5)
    assert isinstance(data, TokenizedData)
    assert set(data.train["labels"][:]) == {0.0, 0.5, 1.0, 1.5, 2.0}
