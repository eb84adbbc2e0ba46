"""The scale on which numbers are learned: with mean 0 and standard deviation 1, whatever their unit is.

A model is trained to predict numbers on this scale. In its saved weights the last layer is multiplied and shifted, so
that it predicts them in their own unit, and nothing else needs to know of the scale.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.training.classification_head import output_bias, output_weight, scale_outputs


@dataclass(frozen=True)
class NumberScale:
    """The mean and the standard deviation of the numbers that a model is trained on."""

    mean: float
    deviation: float  # above 0

    @classmethod
    def of(cls, numbers: np.ndarray) -> "NumberScale":
        """The scale of these numbers, [n_texts]."""
        exact = np.asarray(numbers, dtype=np.float64)
        return cls(float(exact.mean()), float(exact.std()) or 1.0)

    def loss(self, predicted: Tensor, numbers: Tensor) -> Tensor:
        """The mean squared error on the scale, a scalar.

        Args:
            predicted: on the scale, [batch, 1].
            numbers: in their own unit, [batch].
        """
        wanted = (numbers.double() - self.mean) / self.deviation
        return torch.nn.functional.mse_loss(predicted[:, 0].float(), wanted.float())

    def in_own_unit(self, predicted: np.ndarray) -> np.ndarray:
        """Predicted numbers in their own unit."""
        return np.asarray(predicted.astype(np.float64) * self.deviation + self.mean)

    def put_into(self, model: Any) -> None:
        """Let a model that predicts on the scale predict in the numbers' own unit. `model`: of transformers."""
        assert output_bias(model) is not None  # the dry run refuses others
        scale_outputs(model, self.deviation, self.mean)

    @contextmanager
    def inside(self, model: Any) -> Iterator[None]:
        """Within the block, the model predicts in the numbers' own unit; afterwards it is exactly as before."""
        layer = [parameter for parameter in (output_weight(model), output_bias(model)) if parameter is not None]
        before = [parameter.detach().clone() for parameter in layer]
        self.put_into(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(layer, before, strict=True):
                    parameter.copy_(value)
