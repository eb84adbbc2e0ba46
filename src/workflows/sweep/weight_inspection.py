"""Analyses the weights of a training: how they have changed, and their errors on validation."""

from pathlib import Path
from typing import Any

import numpy as np

from src.config.settings import Settings
from src.core.paths import Paths
from src.data.dataset import PreparedDataset
from src.reports.error_analysis import ErrorAnalysis, analyze_errors
from src.reports.search_record import WeightInspection
from src.training import adapters, pretrained, weight_changes
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE


def inspect_weights(
    settings: Settings, training: Path, dataset: PreparedDataset, paths: Paths, head: bool = True
) -> WeightInspection:
    """Analyse the best weights of a training, or of an average. Takes some seconds.

    Args:
        settings: of the training.
        training: its folder.
        dataset: the data.
        paths: of the cached models.
        head: whether the classifier's head began as `settings` say. That of an average began from several seeds, so
            how far it has moved is not known.
    """
    model = settings.recipe.model
    checkpoint = pretrained.resolve(model, paths.cache_dir)
    start = weight_changes.initial_model(checkpoint, model, dataset.task, settings.recipe.seed)
    tensors = weight_changes.tensor_changes(start, training / BEST_DIR)
    if not head or dataset.task.is_regression:  # whose last layer has the numbers' unit in it
        tensors = [tensor for tensor in tensors if tensor.part.startswith(f"{start.base_model_prefix}.")]
    return WeightInspection(
        layers=tuple(weight_changes.group_by_layer(tensors, start.base_model_prefix)),
        tensors=tuple(tensors),
        summary=weight_changes.model_summary(_as_trained(start, settings), model.max_tokens),
        analysis=validation_errors(training, dataset),
    )


def _as_trained(start: Any, settings: Settings) -> Any:
    recipe = settings.recipe
    start = start.float()  # torchinfo computes with it
    return adapters.add_adapter(start, recipe.adapter, recipe.seed) if recipe.has_adapter else start


def validation_errors(training: Path, dataset: PreparedDataset) -> ErrorAnalysis | None:
    """The error analysis on validation, from the probabilities stored with the best weights."""
    file = training / BEST_DIR / PROBABILITIES_FILE
    if not file.exists():
        return None
    return analyze_errors("validation", dataset.frame("validation"), np.load(file), dataset.label_names)
