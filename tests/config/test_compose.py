"""The border between Hydra's config and frozen settings."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from src.config import compose as config
from src.config.compose import restore_settings, to_overrides
from src.config.groups import CONF_DIR
from src.config.settings import LossSettings
from src.core.errors import InvalidInput, first_line
from src.core.records import Params
from tests.support.data import settings_of


@pytest.mark.parametrize(
    "value",
    ["plain", "two words", "it's", 'a "quote"', "a,b", "[x]", "null", "True", 1e-05, 3, True, None, "é=ü", "a\\'b"],
)
def test_a_point_survives_the_command_line(value: object) -> None:
    (text,) = to_overrides({"model.checkpoint": value})
    assert OverridesParser.create().parse_override(text).value() == value


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 81])
def test_a_study_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"study\.name"):
        settings_of(f"study.name='{name}'")


DATABASE = "postgresql+psycopg://me:secret@db.example/studies"


@pytest.mark.parametrize("key", ["storage.url", "tracking.uri"])
def test_a_password_is_kept_nowhere_and_asked_for_again(key: str) -> None:
    settings = settings_of(f"{key}={DATABASE}")
    assert "secret" not in settings.yaml
    assert "postgresql+psycopg://***@db.example/studies" in settings.yaml
    with pytest.raises(InvalidInput, match=rf"{key} was given with a password.*{key}='\$\{{oc\.env:NAME\}}'"):
        restore_settings(settings.yaml)


@pytest.mark.parametrize("key", ["storage.url", "tracking.uri"])
def test_an_address_in_the_environment_is_found_there_again(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("WHERE", DATABASE)
    settings = settings_of(f"{key}=${{oc.env:WHERE}}")
    assert "secret" not in settings.yaml
    again = restore_settings(settings.yaml)
    assert DATABASE in (again.storage.url, again.tracking.uri)
    assert again.yaml == settings.yaml


def test_a_study_remembers_what_to_do_out_of_memory() -> None:
    assert settings_of().worker.oom_retry
    assert not restore_settings(settings_of("worker.oom_retry=false").yaml).worker.oom_retry


def test_tokens_and_passwords_are_masked_in_what_other_libraries_say() -> None:
    message = first_line(ValueError("hf_abcdefghijklmnopqrstuvwxyzABCD at https://me:pw@host/x\nmore"))
    assert message == "hf_*** at https://***@host/x"


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer.learning_rate": 1e-5, "model.dropout": 0.25, "trainer.num_train_epochs": 3},
        {"model.learning_rate": 2e-5},  # the optimizer's is interpolated from it
        {"trainer.bf16": "auto", "model.dropout": None},
        {"schedule": "cosine", "optimizer.weight_decay": 0.0},
        {"model.checkpoint": "a folder, with blanks"},
    ],
)
def test_a_trial_is_composed_as_hydra_would_compose_its_overrides(params: Params) -> None:
    overrides = ["model=tiny", "trainer.num_train_epochs=2"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        HydraConfig.instance().set_config(compose("config", overrides, return_hydra_config=True))
        trial = config.compose_trial(overrides, params)
        assert trial == config.compose_settings([*overrides, *config.to_overrides(params)])
        assert config.compose_trial(overrides, {}) == config.compose_settings(overrides)  # nothing of it is left


def test_class_weights_are_read_by_the_labels_names_whatever_yaml_makes_of_them() -> None:
    assert settings_of().recipe.loss == LossSettings("none", 0.0)
    assert settings_of("loss.class_weights=null").recipe.loss == LossSettings()
    weights = settings_of("loss.class_weights={1: 2, spam: 5, no: 0.5}")
    assert weights.recipe.loss.class_weights == {"1": 2.0, "spam": 5.0, "no": 0.5}
    assert restore_settings(settings_of("loss.class_weights={spam: 5}").yaml).recipe.loss.class_weights == {"spam": 5.0}


def test_a_recipe_of_an_earlier_version_is_that_with_todays_defaults() -> None:
    plain, weighted = settings_of().recipe, settings_of("loss.class_weights=balanced").recipe
    newer = {
        "loss.class_weights": "none", "loss.focal_gamma": 0.0, "adapter.method": "none", "model.dtype": "float32",
        "trainer.activation_checkpointing": False, "trainer.torch_compile": False,
    }  # fmt: skip
    assert plain.flatten() == {**plain.identity(), **newer}
    assert not set(plain.identity()) & set(newer)
    assert weighted.identity() == {**plain.identity(), "loss.class_weights": "balanced"}
    old = OmegaConf.create(settings_of().yaml)
    del old.loss, old.adapter, old.model.dtype, old.trainer.activation_checkpointing, old.trainer.torch_compile
    assert restore_settings(OmegaConf.to_yaml(old)).recipe.identity() == plain.identity()


def test_an_adapter_is_part_of_the_recipe_and_brings_its_learning_rate() -> None:
    recipe = settings_of("adapter=lora", "adapter.rank=4").recipe
    assert (recipe.adapter.rank, recipe.adapter.target_modules, recipe.optimizer["learning_rate"]) == (4, "auto", 5e-4)
    assert recipe.identity()["adapter.rank"] == 4
    assert settings_of().recipe.optimizer["learning_rate"] == settings_of().recipe.model.learning_rate
    named = settings_of("adapter=lora", "adapter.target_modules=[q_proj,no]").recipe.adapter
    assert named.target_modules == ["q_proj", "no"]
    assert settings_of("model.dtype=4bit").recipe.model.dtype == "4bit"


def test_other_names_of_a_metric_are_known() -> None:
    assert settings_of("study.metric=matthews").study.metric == "matthews_corrcoef"
    assert settings_of("study.metric=neg_log_loss").study.metric == "loss"
