"""Every YAML in conf/ and sweeps/ composes, is read, and passes the checks that come before any training."""

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.config import reader
from src.config.groups import CONF_DIR, SWEEPS_DIR, group_options
from src.search import space, validate
from src.search.instantiate import instantiate
from src.training import arguments
from tests.support.data import LAUNCHER_PLUGINS, settings_of

NEEDED = {
    "data/files": ["data.path=reviews.csv", "data.label_names=[no,yes]"],
    "data/loader": ["code=my_module", "data.loader=my_module:load"],
    "model/checkpoint": ["model.checkpoint=some/model"],
    "space/empty": ["+space.optimizer.learning_rate={low: 1e-5, high: 1e-4}"],
    "sampler/grid": ["space=empty", "+space.trainer.num_train_epochs={low: 1, high: 3}"],
}
OPTIONS = [f"{group}/{option}" for group, options in group_options().items() for option in options]
SWEEPS = sorted(f.stem for f in SWEEPS_DIR.glob("*.yaml"))


def test_every_yaml_is_walked() -> None:
    files = [*CONF_DIR.rglob("*.yaml"), *SWEEPS_DIR.rglob("*.yaml")]
    assert len(files) == len(OPTIONS) + len(SWEEPS) + 7  # the primary ones and quiet
    assert (len(OPTIONS), len(SWEEPS)) == (63, 7)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_passes(option: str) -> None:
    group, name = option.split("/")
    if option in LAUNCHER_PLUGINS:
        pytest.importorskip(LAUNCHER_PLUGINS[option])
    check(f"{group}={name}", *NEEDED.get(option, []))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_sweep_composes_and_passes(sweep: str) -> None:
    check(f"sweeps={sweep}")


@pytest.mark.parametrize("option", [*OPTIONS, *(f"../sweeps/{s}" for s in SWEEPS)])
def test_file_says_what_it_is(option: str) -> None:
    first = (CONF_DIR / f"{option}.yaml").read_text().splitlines()[:2]
    assert any(line.startswith("# ") and "@package" not in line for line in first), option


def test_the_default_space_is_the_four() -> None:
    result = space.build_space(settings_of())
    assert [p.key for p in result.parameters] == [
        "optimizer.learning_rate", "optimizer.weight_decay", "trainer.num_train_epochs", "model.dropout",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "read"), [("compare", reader.read_comparison_settings), ("promote", reader.read_promotion_settings)]
)
def test_the_other_commands_configs_compose_and_are_read(name: str, read: Callable[[DictConfig], object]) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        result = read(compose(name))
        assert compose("reproduce", overrides=["run=0123"]).run == "0123"
        assert reader.read_publication_settings(compose("publish", overrides=["repo=me/it"])).private
    assert (result.study, result.registry) == (None, None)


def check(*overrides: str) -> None:
    settings = settings_of(*overrides, config="sweep")
    arguments.check_arguments(settings.recipe)
    validate.check_study(settings, space.build_space(settings), group_options())
    instantiate(settings.pruner, "pruner")


def test_a_launcher_says_how_many_workers_there_are_and_what_each_is_given() -> None:
    assert (settings_of("launcher=inline").workers, settings_of().workers) == (1, None)
    pytest.importorskip(LAUNCHER_PLUGINS["launcher/slurm"])
    placed = settings_of("launcher=slurm", "worker.cpus=2")
    assert (placed.workers, placed.worker.cpus) == (4, 2)
