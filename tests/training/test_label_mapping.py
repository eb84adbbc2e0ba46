"""A checkpoint with a head of its own as a baseline: which labels it may have, and what becomes of its stars."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from src.core.errors import InvalidInput
from src.training import label_mapping, pretrained
from tests.support.data import settings_of

STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
NAMES = ("negative", "positive")


def with_labels(folder: Path, cache: Path, *labels: str) -> Path:
    """The tiny model, saved with a head of these labels."""
    base = pretrained.resolve(settings_of("model=tiny").recipe.model, cache).folder
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=dict(enumerate(labels)), num_labels=len(labels), ignore_mismatched_sizes=True
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("stars", "negative"),
    [
        ([0.5, 0.2, 0.1, 0.1, 0.1], 0.8),  # 3 stars go with the larger side
        ([0.1, 0.1, 0.2, 0.2, 0.4], 0.2),
        ([0.0, 0.0, 1.0, 0.0, 0.0], 1.0),  # no side is larger: the first
        ([0.1, 0.2, 0.35, 0.3, 0.05], 0.3),
    ],
)
def test_stars_become_two_labels(stars: list[float], negative: float) -> None:
    result = label_mapping.map_to_data_labels(np.array([stars]), STARS, NAMES, "it")
    assert result[0] == pytest.approx([negative, 1 - negative])


def test_stars_are_read_in_any_order() -> None:
    result = label_mapping.map_to_data_labels(np.array([[0.6, 0.1, 0.1, 0.1, 0.1]]), STARS[::-1], NAMES, "it")
    assert result[0] == pytest.approx([0.2, 0.8])


def test_labels_of_the_same_names_keep_their_chances() -> None:
    result = label_mapping.map_to_data_labels(np.array([[0.7, 0.3]]), ("POSITIVE", "NEGATIVE"), NAMES, "it")
    assert result[0] == pytest.approx([0.3, 0.7])


@pytest.mark.parametrize(
    ("labels", "names"),
    [(("LABEL_0", "LABEL_1"), NAMES), (STARS, ("a", "b", "c")), ((*STARS, "6 stars"), NAMES), (STARS[:4], NAMES)],
)
def test_a_head_that_means_nothing_here_is_refused(labels: tuple[str, ...], names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="it has to answer with their labels"):
        label_mapping.map_to_data_labels(np.full((1, len(labels)), 0.1), labels, names, "some/model")


def test_its_chances_are_those_of_its_own_head(tmp_path: Path) -> None:
    folder = with_labels(tmp_path / "stars", tmp_path, *STARS)
    settings = settings_of("model=tiny", f"study.ready_made={folder}", "study.baselines=[ready_made]")
    result = label_mapping.check_ready_made(settings, NAMES, tmp_path)
    probabilities = label_mapping.predict_probabilities(result, settings, NAMES, ["a warm, funny film", "dull"])
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_base_model_without_a_head_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    settings = settings_of("model=tiny", "study.baselines=[ready_made]")
    with pytest.raises(InvalidInput, match="random://bert answers with LABEL_0, LABEL_1"):
        label_mapping.check_ready_made(settings, NAMES, tmp_path)


def test_a_head_that_gives_one_label_is_no_baseline_for_several(tmp_path: Path) -> None:
    folder = with_labels(tmp_path / "model", tmp_path / "cache", *NAMES)
    for task, given, wanted in (
        ("multi_label", "one label", "several labels"),
        ("single_label", "several labels", "one"),
    ):
        config = AutoConfig.from_pretrained(folder)
        config.problem_type = "multi_label_classification" if task == "single_label" else None
        config.save_pretrained(folder)
        settings = settings_of("data=files", "data.path=x", f"data.task={task}", f"study.ready_made={folder}")
        with pytest.raises(InvalidInput, match=f"gives a text {given}.*; in the data it has {wanted}"):
            label_mapping.check_ready_made(settings, NAMES, tmp_path / "cache")
