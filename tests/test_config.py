"""The border between Hydra's config and frozen settings."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.config import as_overrides
from src.errors import Refusal
from tests.conftest import settings_of


@pytest.mark.parametrize(
    "value",
    ["plain", "two words", "it's", 'a "quote"', "a,b", "[x]", "null", "True", 1e-05, 3, True, None, "é=ü", "a\\'b"],
)
def test_a_point_survives_the_command_line(value: object) -> None:
    (text,) = as_overrides({"model.checkpoint": value})
    assert OverridesParser.create().parse_override(text).value() == value


def test_a_group_replaced_by_a_word_is_refused() -> None:
    with pytest.raises(Refusal, match=r"study=foo replaces the whole group by one word.*study\.<setting>="):
        settings_of("study=foo")


def test_all_problems_of_a_config_come_together() -> None:
    with pytest.raises(Refusal) as caught:
        settings_of("study.n_trials=many", "+data.colour=red", "model.max_tokens=1.5", "workers=none")
    assert len(caught.value.problems) == 4
    assert "study.n_trials" in str(caught.value)
    assert "(found 'many')" in str(caught.value)
    assert "data.colour is no setting" in str(caught.value)


def test_a_missing_value_names_its_key() -> None:
    with pytest.raises(Refusal, match=r"data\.label_names has no value|data\.path has no value"):
        settings_of("data=files")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 81])
def test_a_study_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(Refusal, match=r"study\.name"):
        settings_of(f"study.name='{name}'")
