"""Versions, aliases and the way back, on a real store."""

from pathlib import Path

import pytest

from src.errors import Declined, Refusal
from src.evidence import registry
from src.evidence.delivered import logged_model
from src.evidence.registry import BEFORE, CHAMPION, REPEAT, ROLLED_BACK
from src.evidence.store import Store, existing_store
from src.paths import Paths
from src.runner import promoting
from src.settings import PromotionSettings
from tests.conftest import Done, Place
from tests.test_commands import runs


@pytest.fixture(scope="module")
def store(finished: tuple[Place, Done]) -> Store:
    return existing_store(None, finished[0].folder)


@pytest.fixture(scope="module")
def two(finished: tuple[Place, Done], store: Store) -> list[registry.Version]:
    """Two versions of one registered model."""
    (best,) = [r for r in runs(finished[0], "trial") if "model.uri" in r.data.tags]
    uri = logged_model(store, best.info.run_id)
    assert uri == best.data.tags["model.uri"]
    made = [registry.register(store, "small", uri, best.info.run_id, {REPEAT: name}, f"# {name}") for name in "ab"]
    again = registry.register(store, "small", uri, best.info.run_id, {REPEAT: "a", "more": "evidence"}, "# a again")
    assert [v.number for v in made] == ["1", "2"]
    assert again.number == "1"
    return made


def test_a_version_is_registered_once_and_keeps_the_newest_evidence(two: list[registry.Version], store: Store) -> None:
    found = registry.versions(store, "small")
    assert {v.number: v.tags[REPEAT] for v in found} == {"1": "a", "2": "b"}
    assert registry.version(store, "small", "1").tags["more"] == "evidence"
    assert store.client.get_model_version("small", "1").description == "# a again"
    assert len({v.key for v in found}) == 2
    assert registry.version(store, "small", "9") is None
    assert registry.by_alias(store, "nobody", CHAMPION) is None
    assert two[0].uri == "models:/small/1"


def test_the_champion_before_comes_back(two: list[registry.Version], store: Store, tmp_path: Path) -> None:
    one, other = two
    back = PromotionSettings(None, "small", False, True, False)
    paths = Paths(Path(store.uri.removeprefix("sqlite:///")).parent)
    with pytest.raises(Declined, match="no earlier champion of small to go back to: it has none"):
        promoting.promote(back, paths)
    registry.point(store, one, CHAMPION)
    registry.point(store, other, CHAMPION)
    registry.point(store, other, CHAMPION)  # twice: the one before stays the one before
    assert registry.version(store, "small", "2").tags[BEFORE] == "1"
    promoting.promote(PromotionSettings(None, "small", True, True, False), paths)
    assert registry.by_alias(store, "small", CHAMPION).number == "2"
    promoting.promote(back, paths)
    assert registry.by_alias(store, "small", CHAMPION).number == "1"
    assert ROLLED_BACK in registry.version(store, "small", "2").tags
    with pytest.raises(Declined, match="version 1 was its first one"):
        promoting.promote(back, paths)
    with pytest.raises(Refusal, match="There is no MLflow store"):
        promoting.promote(back, Paths(tmp_path))
