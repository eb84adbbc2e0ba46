"""The decision threshold of two labels or of several: chosen on validation, put into probabilities and weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import f1_score
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.core.errors import InvalidInput
from src.core.metric import MAXIMIZE
from src.core.task import MULTI_LABEL, Task, Threshold
from src.search.validate import check_task
from src.training.classification_head import output_bias
from src.training.classifiers import write_plain
from src.verdict import estimates
from src.verdict.threshold import choose_threshold, deciding_metric, with_threshold
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES

SMALL = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 64}


def two(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=-1)


def test_probabilities_cross_a_half_where_they_crossed_the_threshold() -> None:
    positive = np.linspace(0.001, 0.999, 999)
    shifted = with_threshold(two(positive), 0.2)
    np.testing.assert_array_equal(shifted[:, 1] > 0.5, positive > 0.2)
    np.testing.assert_allclose(shifted.sum(axis=1), 1)
    assert (np.diff(shifted[:, 1]) > 0).all()
    np.testing.assert_allclose(with_threshold(two(positive), 0.5), two(positive))
    assert with_threshold(two(positive), None) is not None


def test_the_threshold_is_the_best_on_validation_of_all_seeds_together() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(400) < 0.1).astype(int)
    answers = two(expit(generator.normal(2.0 * labels - 3.0, 1.0, (3, 400))))
    chosen = choose_threshold(labels, answers, "f1")

    def f1(threshold: float) -> float:
        return float(np.mean([f1_score(labels, each[:, 1] > threshold) for each in answers]))

    assert f1(chosen) >= max(f1(t) for t in np.linspace(0.01, 0.99, 99)) - 0.005
    assert f1(chosen) > f1(0.5) + 0.1
    decided = estimates.metrics_per_seed(labels, with_threshold(answers, chosen))["f1"].mean()
    assert decided == pytest.approx(f1(chosen))


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken() -> None:
    labels = np.array([0, 0, 1, 1])
    assert choose_threshold(labels, two(np.array([[0.1, 0.2, 0.8, 0.9]])), "accuracy") == 0.5
    assert choose_threshold(labels, two(np.array([[0.1, 0.2, 0.3, 0.4]])), "accuracy") == pytest.approx(0.25)


def test_a_threshold_is_refused_for_three_labels_and_is_kept_in_no_model_without_a_bias() -> None:
    settings = settings_of("study.threshold=tuned")
    assert check_task(settings, Task(("a", "b"))) == MAXIMIZE
    with pytest.raises(InvalidInput, match="the data have 3 labels; a threshold is for two"):
        check_task(settings, Task(("a", "b", "c")))
    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=60, num_labels=2)
    assert output_bias(AutoModelForSequenceClassification.from_config(config)) is None


def test_a_metric_of_the_ranking_leaves_the_choice_to_f1() -> None:
    assert deciding_metric("average_precision") == "f1"
    assert deciding_metric("loss") == "f1"
    assert deciding_metric("matthews_corrcoef") == "matthews_corrcoef"


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_weights_say_what_the_shifted_probabilities_say(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **ARCHITECTURES[name], num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    assert output_bias(model) is not None
    model.save_pretrained(tmp_path / "before")
    (tmp_path / "before" / "vocab.txt").write_text("kept")
    write_plain(tmp_path / "before", tmp_path / "after", 0.3)
    after = AutoModelForSequenceClassification.from_pretrained(tmp_path / "after").eval()
    ids = torch.randint(3, 60, (5, 12))
    with torch.inference_mode():
        plain, decided = (softmax(m(input_ids=ids).logits.numpy(), axis=1) for m in (model, after))
    np.testing.assert_allclose(decided, with_threshold(plain, 0.3), rtol=1e-4)
    assert after.config.decision_threshold == 0.3
    assert (tmp_path / "after" / "vocab.txt").read_text() == "kept"
    assert sorted(f.name for f in (tmp_path / "after").iterdir()) == sorted(
        f.name for f in (tmp_path / "before").iterdir()
    )


def test_thresholds_of_several_labels_are_the_best_on_validation() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((400, 3)) < (0.5, 0.2, 0.05)).astype(int)
    answers = expit(generator.normal(2.0 * labels - (1.0, 2.0, 4.0), 1.0, (3, 400, 3)))
    plain = estimates.metrics_per_seed(labels, answers, "f1_macro")["f1_macro"].mean()
    one, each = (choose_threshold(labels, answers, "f1_macro", per_label) for per_label in (False, True))
    assert isinstance(one, float)
    assert isinstance(each, tuple)
    scores = []
    for chosen in (one, each):
        shifted = with_threshold(answers, chosen, several=True)
        np.testing.assert_array_equal(shifted > 0.5, answers > np.asarray(chosen))
        scores.append(estimates.metrics_per_seed(labels, shifted, "f1_macro")["f1_macro"].mean())
    assert plain < scores[0] < scores[1]
    assert each[0] > each[1] > each[2]
    for i in range(3):
        best = max(
            np.mean([f1_score(labels[:, i], seed[:, i] > t) for seed in answers]) for t in np.linspace(0.01, 0.99, 99)
        )
        assert np.mean([f1_score(labels[:, i], seed[:, i] > each[i]) for seed in answers]) >= best - 0.005
    assert deciding_metric("average_precision", several=True) == "f1_micro"


@pytest.mark.parametrize("threshold", [0.2, (0.2, 0.5, 0.9)])
def test_a_threshold_of_several_labels_in_the_weights_says_the_same(tmp_path: Path, threshold: Threshold) -> None:
    config = AutoConfig.for_model("distilbert", num_labels=3, problem_type="multi_label_classification", **SMALL)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path / "plain")
    write_plain(tmp_path / "plain", tmp_path / "with", threshold)
    shifted = AutoModelForSequenceClassification.from_pretrained(tmp_path / "with").eval()
    texts = torch.randint(5, 50, (8, 6))
    with torch.no_grad():
        before, after = (torch.sigmoid(each(texts).logits).numpy() for each in (model, shifted))
    np.testing.assert_allclose(after, with_threshold(before, threshold, several=True), atol=1e-5)
    assert np.asarray(shifted.config.decision_threshold).tolist() == np.asarray(threshold).tolist()


def test_thresholds_per_label_are_for_texts_with_several() -> None:
    settings = settings_of("study.threshold=per_label")
    with pytest.raises(InvalidInput, match=r"study\.threshold is per_label, and each text has one label"):
        check_task(settings, Task(("a", "b")))
    assert check_task(settings, Task(("a", "b", "c"), kind=MULTI_LABEL)) == MAXIMIZE
