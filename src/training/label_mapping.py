"""Ready-made classifiers as baselines: their own labels are mapped to those of the data."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.config.settings import Settings
from src.core.errors import InvalidInput
from src.core.task import gives_several_labels, labels_in
from src.core.texts import Text
from src.training import inference, pretrained
from src.training.pretrained import PretrainedModel

STARS = 5


def check_ready_made(settings: Settings, names: tuple[str, ...], cache: Path) -> PretrainedModel:
    """The model of study.ready_made, or else the study's own. Raises InvalidInput if its labels cannot be mapped.

    `names`: the labels of the data, by index.
    """
    model = settings.recipe.model
    checkpoint = pretrained.find(replace(model, checkpoint=settings.study.ready_made or model.checkpoint), cache)
    config = pretrained.own_config(checkpoint)
    labels, several = labels_in(config), gives_several_labels(config)
    if several != settings.data.has_several_labels:
        kinds = ("one label", "several labels")
        raise InvalidInput(
            f"study.baselines has ready_made, and {checkpoint.id} gives a text {kinds[several]}; in the data it has "
            f"{kinds[not several]}. Name another checkpoint (study.ready_made=<Hub id or folder>), or take it out."
        )
    map_to_data_labels(np.full((1, len(labels)), 1 / len(labels)), labels, names, checkpoint.id)
    return checkpoint


def predict_probabilities(
    checkpoint: PretrainedModel, settings: Settings, names: tuple[str, ...], texts: Sequence[Text]
) -> np.ndarray:
    """Probabilities of the data's labels `names`, [n_texts, n_labels]."""
    use_cpu = bool(settings.recipe.trainer.get("use_cpu"))
    classifier: Any = inference.load_classifier(checkpoint.folder, use_cpu)
    places = getattr(classifier.model.config, "max_position_embeddings", None) or settings.recipe.model.max_tokens
    known = classifier.tokenizer.model_max_length
    classifier.tokenizer.model_max_length = min(settings.recipe.model.max_tokens, places, known)
    probabilities = inference.predict_probabilities(classifier, texts)
    return map_to_data_labels(probabilities, inference.label_names(classifier), names, checkpoint.id)


def map_to_data_labels(
    probabilities: np.ndarray, labels: tuple[str, ...], names: tuple[str, ...], where: str
) -> np.ndarray:
    """Map probabilities of a model's own labels to those of the data.

    Labels of the same names, in any case, are taken over. "1 star" to "5 stars" map to two names: 1 and 2 stars to the
    first, 4 and 5 to the second, and 3 stars to the side with the larger sum.

    Args:
        probabilities: of the model's own labels, [n_texts, n_own_labels].
        labels: of the model, by index.
        names: of the data, by index.
        where: the model's name, for the error.

    Returns:
        [n_texts, n_labels].

    Raises:
        InvalidInput: for any other labels.
    """
    by_name = {label.casefold(): i for i, label in enumerate(labels)}
    columns = [by_name.get(name.casefold()) for name in names]
    if None not in columns and len(labels) == len(names):
        return probabilities[:, [i for i in columns if i is not None]]
    stars = [re.fullmatch(r"([1-5]) stars?", label.strip().casefold()) for label in labels]
    order = [int(match[1]) for match in stars if match]
    if len(names) == 2 and sorted(order) == list(range(1, STARS + 1)) and len(labels) == STARS:
        rated = probabilities[:, np.argsort(order)]
        sides = np.stack([rated[:, :2].sum(axis=1), rated[:, 3:].sum(axis=1)], axis=1)
        sides[np.arange(len(sides)), sides.argmax(axis=1)] += rated[:, 2]
        return sides
    raise InvalidInput(
        f"study.baselines has ready_made, and {where} answers with {', '.join(labels)}. To be a baseline on these data "
        f"it has to answer with their labels, {', '.join(names)}, or (where there are two) with 1 star to 5 stars; "
        "name such a checkpoint, study.ready_made=<Hub id or folder>, or take ready_made out."
    )
