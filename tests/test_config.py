"""The border between Hydra's config and frozen settings."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.config import as_overrides, restored
from src.errors import Refusal, first_line
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


DATABASE = "postgresql+psycopg://me:secret@db.example/studies"


@pytest.mark.parametrize("key", ["storage.url", "tracking.uri"])
def test_a_password_is_kept_nowhere_and_asked_for_again(key: str) -> None:
    settings = settings_of(f"{key}={DATABASE}")
    assert "secret" not in settings.yaml
    assert "postgresql+psycopg://***@db.example/studies" in settings.yaml
    with pytest.raises(Refusal, match=rf"{key} was given with a password.*{key}='\$\{{oc\.env:NAME\}}'"):
        restored(settings.yaml)


@pytest.mark.parametrize("key", ["storage.url", "tracking.uri"])
def test_an_address_in_the_environment_is_found_there_again(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("WHERE", DATABASE)
    settings = settings_of(f"{key}=${{oc.env:WHERE}}")
    assert "secret" not in settings.yaml
    again = restored(settings.yaml)
    assert DATABASE in (again.storage.url, again.tracking.uri)
    assert again.yaml == settings.yaml


def test_a_study_remembers_what_to_do_out_of_memory() -> None:
    assert settings_of().worker.oom_retry
    assert not restored(settings_of("worker.oom_retry=false").yaml).worker.oom_retry


def test_tokens_and_passwords_are_masked_in_what_other_libraries_say() -> None:
    said = first_line(ValueError("hf_abcdefghijklmnopqrstuvwxyzABCD at https://me:pw@host/x\nmore"))
    assert said == "hf_*** at https://***@host/x"
