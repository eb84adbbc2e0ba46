"""What Hydra and YAML make of a command line, and what is answered."""

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException

from src.cli import help_pages, override_errors
from src.config import compose, reader
from src.config.groups import CONF_DIR
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.search.space import build_space
from src.workflows.sweep.plan import plan_sweep
from tests.support.data import settings_of, write_rows


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("data.path='a=b.csv'", "a=b.csv"),
        ('data.path="reviews[1].csv"', "reviews[1].csv"),
        ('data.path="reviews,2024.csv"', "reviews,2024.csv"),
        ('data.path="my file (2).csv"', "my file (2).csv"),
        ("data.path='отзывы.csv'", "отзывы.csv"),
        ("data.path=2024/05", "2024/05"),
    ],
)
def test_paths_with_signs_that_mean_something(override: str, path: str) -> None:
    assert settings_of("data=files", override).data.path == path


@pytest.mark.parametrize(
    "override", ["data.path=reviews[1].csv", "data.path=a (1).csv", "study.name=a:{b}", "study.name=отзывы"]
)
def test_a_value_that_cannot_be_read_is_answered_with_how_it_is_typed(override: str) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(HydraException) as caught:
        hydra_compose("sweep", overrides=[override])
    said = override_errors.explain(caught.value, override_errors.ConfigSources(CONF_DIR, "sweep", {}), [override])
    assert "is quoted twice, for the shell and for Hydra: 'KEY=\"VALUE\"'" in said


@pytest.mark.parametrize("name", ["отзывы-minilm", "评论", "reseñas_2", "समीक्षा", "a.b-c"])
def test_studies_are_named_in_any_script(name: str) -> None:
    assert settings_of(f"study.name='{name}'").study.name == name


@pytest.mark.parametrize("name", ["../up", "a b", "-a", "", "ä" * 81, "评" * 70, "a/b", "😀"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"study\.name is"):
        settings_of(f"study.name='{name}'")


def test_a_time_is_asked_once() -> None:
    overrides = ["data.max_examples=60", "study.name=run-${now:%H%M%S%f}"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra_compose("sweep", overrides=overrides, return_hydra_config=True)
        name = str(cfg.study.name)
        resolved = compose.resolve_times(overrides, cfg)
    assert resolved == ["data.max_examples=60", f"study.name={name}"]
    assert settings_of(*resolved, config="sweep").study.name == name
    assert settings_of(*resolved, config="sweep").study.name == name


def test_a_time_in_a_file_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text("# @package _global_\nstudy: {name: 'run-${now:%H%M%S%f}'}\n")
    overrides = ["sweeps=mine"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        path = f"hydra.searchpath=['file://{tmp_path}']"
        cfg = hydra_compose("sweep", overrides=[*overrides, path], return_hydra_config=True)
        assert compose.resolve_times(overrides, cfg) == ["sweeps=mine", f"study.name={cfg.study.name}"]


def test_working_in_hydras_output_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra_compose("sweep", overrides=["hydra.job.chdir=true"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: cfg.hydra))
    with pytest.raises(InvalidInput, match=r"hydra\.job\.chdir=true would let the command work in its output folder"):
        reader.read_settings(cfg)


def test_options_of_ones_own_are_options(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text((CONF_DIR / "model/tiny.yaml").read_text())
    words = ["--config-dir", str(tmp_path), "model=mien"]
    assert help_pages.config_dirs(words) == [tmp_path]
    assert help_pages.config_dirs([f"hydra.searchpath=[file://{tmp_path}]"]) == [tmp_path]
    options = help_pages.groups([tmp_path])
    assert "mine" in options["model"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        with pytest.raises(HydraException) as caught:
            hydra_compose("sweep", overrides=["model=mien"])
        hydra_compose("sweep", overrides=[f"hydra.searchpath=['file://{tmp_path}']", "model=mine"])
    sources = override_errors.ConfigSources(CONF_DIR, "sweep", options, [tmp_path])
    assert "Did you mean model=mine?" in override_errors.explain(caught.value, sources, words)


def test_an_override_that_an_option_of_a_searched_group_does_not_know(tmp_path: Path) -> None:
    overrides = ["model=tiny", "+space.optimizer.choices=[adamw,sgd]", "~space.optimizer.weight_decay"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra_compose("sweep", overrides=[*overrides, "optimizer.adam_beta1=0.95"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        settings = reader.read_settings(cfg, [*overrides, "optimizer.adam_beta1=0.95"])
        with pytest.raises(
            InvalidInput, match=r"the option sgd does not go with optimizer\.adam_beta1=0\.95 .*Write \+\+"
        ):
            plan_sweep(settings, Paths(tmp_path))
    HydraConfig.instance().cfg = None


def test_a_range_of_the_config_gives_way_to_choices() -> None:
    choices = "space.optimizer.learning_rate={low: 1e-5, high: 1e-4}"
    assert build_space(settings_of(choices)).describe()["optimizer.learning_rate"] == "1e-05 .. 0.0001, log"
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(HydraException) as caught:
        hydra_compose("sweep", overrides=["space.optimizer.learning_rate={choices: [1e-5]}"])
    sources = override_errors.ConfigSources(CONF_DIR, "sweep", help_pages.groups())
    said = override_errors.explain(caught.value, sources, ["space.optimizer.learning_rate={choices: [1e-5]}"])
    assert "A further setting to search needs a + in front: +space.optimizer.learning_rate={choices: [1e-5]}." in said


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        (
            "label_names: [no, yes]",
            "data.label_names has false, which is no word: without quotation marks YAML reads no, off",
        ),
        (
            "label_names: [1.5, 2.5]",
            "data.label_names has 1.5, which is no word: without quotation marks YAML reads it as a",
        ),
        ("text_column: on", "data.text_column has true, which is no word"),
    ],
)
def test_words_that_yaml_takes_for_values_are_told(tmp_path: Path, yaml: str, says: str) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text(f"# @package _global_\ndata: {{path: x, {yaml}}}\n")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        overrides = ["data=files", "sweeps=mine", f"hydra.searchpath=['file://{tmp_path}']"]
        cfg = hydra_compose("sweep", overrides=overrides, return_hydra_config=True)
        with pytest.raises(InvalidInput) as caught:
            reader.read_settings(cfg, overrides)
    assert says in str(caught.value)


def test_a_comma_in_a_files_name_is_answered_with_how_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from src.data import loading

    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "reviews,2024.csv", [("a", "x")])
    with pytest.raises(InvalidInput, match=r"There is reviews,2024\.csv: on the command line a comma separates"):
        loading.load_splits(settings_of("data=files", "data.path=reviews").data)
