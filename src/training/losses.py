"""The loss of a training with class weights or focal loss, for hard, smoothed and soft labels alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from src.config.settings import LossSettings
from src.training.class_weights import class_weights


@dataclass(frozen=True)
class TrainingLoss:
    """The loss of a training that is not the mean cross-entropy.

    A text's loss is the sum over labels of q w (1 - p)^gamma (-log p): with the label's probability p, its weight w,
    and its share q in the text's label, which is 1 or 0, or between them if labels are smoothed or soft. The loss of
    a batch is the mean over its texts, so that texts count alike however they are divided into micro-batches. Source
    of gamma: Lin and others 2017, arXiv:1708.02002.
    """

    weights: np.ndarray | None  # [n_labels]
    gamma: float
    smoothing: float  # of labels

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar.

        Args:
            logits: [batch, n_labels].
            labels: indices, [batch], or probabilities, [batch, n_labels].
        """
        n_labels = logits.shape[-1]
        logs = log_softmax(logits.float(), dim=-1)
        shares = one_hot(labels, n_labels).float() if labels.dim() == 1 else labels.float()
        shares = shares * (1 - self.smoothing) + self.smoothing / n_labels
        if self.weights is not None:
            shares = shares * torch.as_tensor(self.weights, dtype=shares.dtype, device=shares.device)
        if self.gamma:
            # 1 - p, without the loss of digits near p = 1, where its root has no finite slope
            shares = shares * (-torch.expm1(logs)).clamp(min=torch.finfo(logs.dtype).tiny) ** self.gamma
        return -(shares * logs).sum(dim=-1).mean()


def training_loss(
    loss: LossSettings, smoothing: float, counts: Sequence[float], label_names: Sequence[str]
) -> TrainingLoss | None:
    """The loss that the settings ask for; None for the mean cross-entropy, which every model computes itself.

    Args:
        loss: the settings.
        smoothing: trainer.label_smoothing_factor.
        counts: training texts of each label, [n_labels].
        label_names: by label index.
    """
    weights = class_weights(loss, counts, label_names)
    if weights is None and not loss.focal_gamma:
        return None
    return TrainingLoss(weights, loss.focal_gamma, smoothing)
