"""The loss of a training with class weights or focal loss, for hard, smoothed and soft labels alike."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid, one_hot

from src.config.settings import LossSettings
from src.core.task import Task
from src.training.class_weights import class_weights, positive_weights
from src.training.number_scale import NumberScale


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


@dataclass(frozen=True)
class SeveralLabelsLoss:
    """The loss of a training whose texts can have several labels: the mean binary cross-entropy over texts and labels.

    A decision's loss is q w (1 - p)^gamma (-log p) + (1 - q) p^gamma (-log (1 - p)): with the label's probability p,
    the weight w of texts that have it, and q, which is 1 if the text has it and 0 if not, or between them if labels
    are smoothed or soft.
    """

    weights: np.ndarray | None = None  # [n_labels]
    gamma: float = 0.0
    smoothing: float = 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar. `logits` and `labels`: [batch, n_labels]."""
        logits, labels = logits.float(), labels.float()
        has = labels * (1 - self.smoothing) + self.smoothing / 2
        without = 1 - has
        if self.weights is not None:
            has = has * torch.as_tensor(self.weights, dtype=has.dtype, device=has.device)
        if self.gamma:
            tiny = torch.finfo(logits.dtype).tiny
            has = has * torch.sigmoid(-logits).clamp(min=tiny) ** self.gamma
            without = without * torch.sigmoid(logits).clamp(min=tiny) ** self.gamma
        return -(has * logsigmoid(logits) + without * logsigmoid(-logits)).mean()


Loss = Callable[[Tensor, Tensor], Tensor]  # of logits [batch, n_labels] and labels; a scalar


def mean_loss(task: Task, scale: NumberScale | None = None) -> Loss:
    """The loss that validation and test are measured by: unweighted, without smoothing. `scale`: of a regression."""
    if scale is not None:
        return scale.loss
    return SeveralLabelsLoss() if task.has_several_labels else _cross_entropy


def training_loss(loss: LossSettings, smoothing: float, labels: np.ndarray, task: Task) -> Loss | None:
    """The loss that the settings ask for; None for the mean cross-entropy, which every model computes itself.

    Args:
        loss: the settings.
        smoothing: trainer.label_smoothing_factor.
        labels: of the training texts: indices [n_texts], or probabilities or 0 and 1, [n_texts, n_labels].
        task: of the data.
    """
    names, gamma = task.label_names, loss.focal_gamma
    counts = np.bincount(labels, minlength=len(names)) if labels.ndim == 1 else labels.sum(axis=0)
    if task.has_several_labels:
        return SeveralLabelsLoss(positive_weights(loss, counts.tolist(), len(labels), names), gamma, smoothing)
    weights = class_weights(loss, counts.tolist(), names)
    return None if weights is None and not gamma else TrainingLoss(weights, gamma, smoothing)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.float(), labels if labels.dim() == 1 else labels.float())
