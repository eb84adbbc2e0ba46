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


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 81])
def test_a_study_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(Refusal, match=r"study\.name"):
        settings_of(f"study.name='{name}'")
