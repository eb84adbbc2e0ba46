"""Class weights and focal loss: their arithmetic, and that a training uses them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from src.config.settings import LossSettings
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.core.task import MULTI_LABEL, Task
from src.training.callbacks import Objective
from src.training.class_weights import check_class_weights, class_weights, positive_weights
from src.training.losses import SeveralLabelsLoss, TrainingLoss, mean_loss, training_loss
from src.training.trainer import evaluate_untrained, fine_tune
from src.workflows.train import train
from tests.support.data import settings_of
from tests.support.trainings import RecordingCallback, tiny_training

COUNTS, NAMES = [870, 130], ("ham", "spam")
SEVERAL_OF_TWO, SEVERAL = Task(NAMES, kind=MULTI_LABEL), Task(("a", "b", "c"), kind=MULTI_LABEL)


def batch(n_labels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, n_labels, generator=generator), torch.randint(n_labels, (16,), generator=generator)


def test_balanced_weights_are_scikit_learns() -> None:
    weights = class_weights(LossSettings("balanced"), COUNTS, NAMES)
    labels = np.repeat([0, 1], COUNTS)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.array([0, 1]), y=labels))


def test_weights_have_a_mean_of_one_over_the_texts() -> None:
    for setting in ("balanced", "effective", {"spam": 5.0}, {"spam": 50.0, "ham": 10.0}):
        weights = class_weights(LossSettings(setting), COUNTS, NAMES)
        assert weights is not None
        assert np.dot(weights, COUNTS) / sum(COUNTS) == pytest.approx(1)
    same, larger = (class_weights(LossSettings({"spam": s, "ham": h}), COUNTS, NAMES) for s, h in ((5, 1), (50, 10)))
    np.testing.assert_allclose(same, larger)
    assert same[1] / same[0] == pytest.approx(5)


def test_effective_weights_are_milder_than_balanced_ones() -> None:
    balanced, effective = (class_weights(LossSettings(s), COUNTS, NAMES) for s in ("balanced", "effective"))
    assert 1 < effective[1] / effective[0] < balanced[1] / balanced[0]
    by_hand = [(1 - 0.999) / (1 - 0.999**n) for n in COUNTS]
    assert effective[1] / effective[0] == pytest.approx(by_hand[1] / by_hand[0])


def test_a_label_without_texts_has_no_weight() -> None:
    for setting in ("balanced", "effective"):
        weights = class_weights(LossSettings(setting), [10, 0, 10], ("a", "b", "c"))
        assert weights is not None
        assert weights.tolist() == [1.0, 0.0, 1.0]


def test_a_weight_for_no_label_of_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"'spm', which is no label of the data; they have ham, spam\. Did you mean spam"
    ):
        check_class_weights(LossSettings({"spm": 2.0}), NAMES)
    check_class_weights(LossSettings({"spam": 2.0}), NAMES)
    with pytest.raises(InvalidInput, match=r"'positve', which is no label .* Did you mean positive"):
        train(settings_of("model=tiny", "data.max_examples=80", "loss.class_weights={positve: 2}"), Paths(tmp_path))
    check_class_weights(LossSettings("balanced"), NAMES)


def test_without_weights_and_gamma_it_is_the_cross_entropy() -> None:
    logits, labels = batch()
    torch.testing.assert_close(TrainingLoss(None, 0.0, 0.0)(logits, labels), cross_entropy(logits, labels))
    smoothed = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(TrainingLoss(None, 0.0, 0.1)(logits, labels), smoothed)
    soft = torch.softmax(batch()[0] * 2, dim=1)
    torch.testing.assert_close(TrainingLoss(None, 0.0, 0.0)(logits, soft), cross_entropy(logits, soft))
    assert training_loss(LossSettings(), 0.0, np.repeat([0, 1], COUNTS), Task(NAMES)) is None


def test_the_loss_of_several_labels_is_the_binary_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(16, 3, generator=generator), torch.randint(0, 2, (16, 3), generator=generator).float()
    plain = binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(SeveralLabelsLoss()(logits, labels), plain)
    torch.testing.assert_close(mean_loss(SEVERAL)(logits, labels), plain)
    weights = np.array([1.0, 4.0, 0.5])
    weighted = binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.as_tensor(weights))
    torch.testing.assert_close(SeveralLabelsLoss(weights)(logits, labels), weighted.float())
    smoothed = binary_cross_entropy_with_logits(logits, labels * 0.8 + 0.1)
    torch.testing.assert_close(SeveralLabelsLoss(smoothing=0.2)(logits, labels), smoothed)
    p = torch.sigmoid(logits)
    by_hand = -(labels * (1 - p) ** 2 * p.log() + (1 - labels) * p**2 * (1 - p).log()).mean()
    torch.testing.assert_close(SeveralLabelsLoss(gamma=2.0)(logits, labels), by_hand)
    parts = [SeveralLabelsLoss(weights, 1.0)(logits[i::2], labels[i::2]) for i in range(2)]
    torch.testing.assert_close(sum(parts) / 2, SeveralLabelsLoss(weights, 1.0)(logits, labels))


def test_weights_of_several_labels_balance_texts_with_and_without_each() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    made = training_loss(LossSettings("balanced"), 0.0, labels, SEVERAL_OF_TWO)
    assert isinstance(made, SeveralLabelsLoss)
    assert made.weights == pytest.approx([1 / 3, 3.0])
    counts = [3, 1]
    assert positive_weights(LossSettings({"spam": 5.0}), counts, 4, NAMES) == pytest.approx([1.0, 5.0])
    assert positive_weights(LossSettings(), counts, 4, NAMES) is None
    few, many = (positive_weights(LossSettings("effective"), [n, 1], 4 * n, NAMES) for n in (2, 20_000))
    assert few is not None
    assert many is not None
    assert few[0] == pytest.approx(3.0, rel=0.01)
    assert many[0] == pytest.approx(1.0, rel=0.01)  # beyond some thousand texts, more of them hardly count
    assert positive_weights(LossSettings("balanced"), [0, 4], 4, NAMES) == pytest.approx([1.0, 1.0])


def test_weights_are_torchs_up_to_the_scale() -> None:
    logits, labels = batch()
    weights = np.array([0.5, 1.0, 3.0])
    each = cross_entropy(logits, labels, weight=torch.tensor(weights, dtype=torch.float32), reduction="none")
    torch.testing.assert_close(TrainingLoss(weights, 0.0, 0.0)(logits, labels), each.mean())


def test_focal_loss_is_that_of_its_paper() -> None:
    logits, labels = batch(2)
    true = torch.softmax(logits, dim=1)[torch.arange(16), labels]
    torch.testing.assert_close(TrainingLoss(None, 2.0, 0.0)(logits, labels), (-((1 - true) ** 2) * true.log()).mean())


def test_focal_loss_has_a_slope_where_the_model_is_sure() -> None:
    for gamma in (0.5, 1.0, 2.0):
        logits = torch.tensor([[60.0, -60.0], [0.0, 0.0]], requires_grad=True)
        TrainingLoss(None, gamma, 0.0)(logits, torch.tensor([0, 1])).backward()
        assert torch.isfinite(logits.grad).all()


def test_micro_batches_have_the_loss_of_their_batch() -> None:
    logits, labels = batch()
    loss = TrainingLoss(np.array([0.5, 1.0, 3.0]), 1.0, 0.0)
    parts = torch.stack([loss(logits[i : i + 4], labels[i : i + 4]) for i in range(0, 16, 4)])
    torch.testing.assert_close(parts.mean(), loss(logits, labels))


def test_a_training_uses_its_loss_and_is_judged_by_the_plain_one(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    objective = Objective("loss", "minimize", (1.0,))
    results, first_losses = {}, {}
    for name, weights in (("plain", "none"), ("weighted", "{positive: 50, negative: 1}")):
        settings, checkpoint, data = tiny_training(
            cache, f"loss.class_weights={weights}", "trainer.num_train_epochs=1", "trainer.logging_steps=1"
        )
        callback = RecordingCallback()
        results[name] = fine_tune(settings.recipe, checkpoint, data, objective, callback, tmp_path / name)
        first_losses[name] = callback.curves[0][1]["train/loss"]
    assert results["weighted"].metrics["recall"] > results["plain"].metrics["recall"]
    assert first_losses["plain"] != pytest.approx(first_losses["weighted"])
    settings, checkpoint, data = tiny_training(cache, "loss.class_weights={positive: 50}", "loss.focal_gamma=2")
    weighted = evaluate_untrained(settings.recipe, checkpoint, data, tmp_path / "a", ["roc_auc"])
    settings, checkpoint, data = tiny_training(cache)
    assert (
        weighted.metrics["loss"]
        == evaluate_untrained(settings.recipe, checkpoint, data, tmp_path / "b").metrics["loss"]
    )
    assert 0 < weighted.metrics["roc_auc"] < 1


def test_students_soft_labels_are_weighted_by_the_labels_they_stand_for() -> None:
    logits, labels = batch(2)
    weights = np.array([0.5, 4.0])
    soft = torch.nn.functional.one_hot(labels, 2).float()
    loss = TrainingLoss(weights, 1.0, 0.0)
    torch.testing.assert_close(loss(logits, soft), loss(logits, labels))
