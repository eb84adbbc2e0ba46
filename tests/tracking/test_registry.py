"""Versions, aliases and the way back, on a real store."""

from pathlib import Path

import pytest

from src.config.settings import PromotionSettings
from src.core.errors import InvalidInput, PromotionDeclined
from src.core.paths import Paths
from src.tracking import registry
from src.tracking.logged_model import find_logged_model
from src.tracking.registry import CHAMPION, PREVIOUS_CHAMPION_TAG, ROLLED_BACK_TAG, SEED_RUN_TAG
from src.tracking.store import TrackingStore, open_existing_store
from src.workflows import promote
from tests.support.commands import Done, Place, runs_of


@pytest.fixture(scope="module")
def store(finished: tuple[Place, Done]) -> TrackingStore:
    return open_existing_store(None, finished[0].folder)


@pytest.fixture(scope="module")
def two(finished: tuple[Place, Done], store: TrackingStore) -> list[registry.ModelVersion]:
    """Two versions of one registered model."""
    (best,) = [r for r in runs_of(finished[0]) if "model.uri" in r.data.tags]
    uri = find_logged_model(store, best.info.run_id)
    assert uri == best.data.tags["model.uri"]
    versions = [
        registry.register(store, "small", uri, best.info.run_id, {SEED_RUN_TAG: name}, f"# {name}") for name in "ab"
    ]
    again = registry.register(
        store, "small", uri, best.info.run_id, {SEED_RUN_TAG: "a", "more": "evidence"}, "# a again"
    )
    assert [v.number for v in versions] == ["1", "2"]
    assert again.number == "1"
    return versions


def test_a_version_is_registered_once_and_keeps_the_newest_evidence(
    two: list[registry.ModelVersion], store: TrackingStore
) -> None:
    result = registry.list_versions(store, "small")
    assert {v.number: v.tags[SEED_RUN_TAG] for v in result} == {"1": "a", "2": "b"}
    assert registry.find_version(store, "small", "1").tags["more"] == "evidence"
    assert store.client.get_model_version("small", "1").description == "# a again"
    assert len({v.key for v in result}) == 2
    assert registry.find_version(store, "small", "9") is None
    assert registry.by_alias(store, "nobody", CHAMPION) is None
    assert two[0].uri == "models:/small/1"


def test_the_champion_before_comes_back(two: list[registry.ModelVersion], store: TrackingStore, tmp_path: Path) -> None:
    one, other = two
    back = PromotionSettings(study=None, registry="small", dry_run=False, rollback=True, again=False)
    paths = Paths(Path(store.uri.removeprefix("sqlite:///")).parent)
    with pytest.raises(PromotionDeclined, match="no earlier champion of small to go back to: it has none"):
        promote.promote(back, paths)
    registry.set_alias(store, one, CHAMPION)
    registry.set_alias(store, other, CHAMPION)
    registry.set_alias(store, other, CHAMPION)  # twice: the one before stays the one before
    assert registry.find_version(store, "small", "2").tags[PREVIOUS_CHAMPION_TAG] == "1"
    promote.promote(PromotionSettings(study=None, registry="small", dry_run=True, rollback=True, again=False), paths)
    assert registry.by_alias(store, "small", CHAMPION).number == "2"
    promote.promote(back, paths)
    assert registry.by_alias(store, "small", CHAMPION).number == "1"
    assert ROLLED_BACK_TAG in registry.find_version(store, "small", "2").tags
    with pytest.raises(PromotionDeclined, match="version 1 was its first one"):
        promote.promote(back, paths)
    with pytest.raises(InvalidInput, match="There is no MLflow store"):
        promote.promote(back, Paths(tmp_path))
