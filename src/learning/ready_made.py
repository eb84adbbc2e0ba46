"""A baseline that somebody else has trained: a checkpoint with its own head, its labels mapped to the data's."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from src.errors import Refusal
from src.learning import checkpoints, classify
from src.learning.checkpoints import Checkpoint
from src.settings import Settings

STARS = 5


def checked(settings: Settings, cache: Path) -> Checkpoint:
    """The checkpoint of study.ready_made, else the model's own. Raises Refusal if its labels mean nothing here."""
    model = settings.recipe.model
    found = checkpoints.find(replace(model, checkpoint=settings.study.ready_made or model.checkpoint), cache)
    own = _own_labels(found)
    to_data(np.full((1, len(own)), 1 / len(own)), own, tuple(settings.data.label_names), found.id)
    return found


def chances(found: Checkpoint, settings: Settings, texts: list[str]) -> np.ndarray:
    """The chance of every label of the data for every text, [n_texts, n_labels]."""
    use_cpu = bool(settings.recipe.trainer.get("use_cpu"))
    classifier: Any = classify.from_folder(found.folder, use_cpu)
    places = getattr(classifier.model.config, "max_position_embeddings", None) or settings.recipe.model.max_tokens
    known = classifier.tokenizer.model_max_length
    classifier.tokenizer.model_max_length = min(settings.recipe.model.max_tokens, places, known)
    own = classify.chances(classifier, texts)
    return to_data(own, classify.label_names(classifier), tuple(settings.data.label_names), found.id)


def to_data(own: np.ndarray, labels: tuple[str, ...], names: tuple[str, ...], where: str) -> np.ndarray:
    """Chances of a head's own `labels`, [n, n_own], as chances of the data's `names`, [n, n_labels].

    Labels of the same names (in any case) keep their chances. One to five stars, and two names: 1 and 2 stars are the
    first name, 4 and 5 the second, and 3 goes to the side that has more. Raises Refusal for anything else.
    """
    by_name = {label.casefold(): i for i, label in enumerate(labels)}
    wanted = [by_name.get(name.casefold()) for name in names]
    if None not in wanted and len(labels) == len(names):
        return own[:, [i for i in wanted if i is not None]]
    stars = [re.fullmatch(r"([1-5]) stars?", label.strip().casefold()) for label in labels]
    order = [int(match[1]) for match in stars if match]
    if len(names) == 2 and sorted(order) == list(range(1, STARS + 1)) and len(labels) == STARS:
        rated = own[:, np.argsort(order)]
        sides = np.stack([rated[:, :2].sum(axis=1), rated[:, 3:].sum(axis=1)], axis=1)
        sides[np.arange(len(sides)), sides.argmax(axis=1)] += rated[:, 2]
        return sides
    raise Refusal(
        f"study.baselines has ready_made, and {where} answers with {', '.join(labels)}. To be a baseline on these data "
        f"it has to answer with their labels, {', '.join(names)}, or (where there are two) with 1 star to 5 stars; "
        "name such a checkpoint, study.ready_made=<Hub id or folder>, or take ready_made out."
    )


def _own_labels(found: Checkpoint) -> tuple[str, ...]:
    config = AutoConfig.from_pretrained(found.folder, local_files_only=True)
    return tuple(str(name) for _, name in sorted(config.id2label.items()))
