"""`--help`: a page that is true; and what is said of words that are mistyped."""

import re
import shlex
import sys

import pytest
from hydra import compose, initialize_config_dir

from src.cli import help_pages
from src.config.groups import CONF_DIR, SWEEPS_DIR, group_options
from src.search import space, validate
from src.training import arguments
from tests.support.commands import Place
from tests.support.data import settings_of


def test_the_page_of_the_sweep(place: Place) -> None:
    done = place.run("src.sweep", "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out == help_pages.page(help_pages.SWEEP)
    for group, options in group_options().items():
        listed = ",\\s+".join(options)
        assert len(re.findall(rf"^  {group} +{listed}(  |$)", done.out, re.M)) == 1, group
    for sweep in SWEEPS_DIR.glob("*.yaml"):
        assert re.search(rf"^  {sweep.stem} +\w.{{10,}}", done.out, re.M), sweep
    assert len(help_pages.SWEEP.examples) == 10
    assert "  n_trials: 8             # the total over all workers and all resumes" in done.out
    assert "hydra:" not in done.out
    assert max(map(len, done.out.splitlines())) <= 130


@pytest.mark.parametrize("name", help_pages.PAGES)
def test_every_command_has_a_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def never() -> None:
        raise AssertionError("the command ran")

    help_pages.run(name, never, ["--help"])
    out = capsys.readouterr().out
    assert out.startswith(help_pages.PAGES[name].does)
    assert f"python -m src.{name}" in out


@pytest.mark.parametrize(("name", "given"), [(n, e[0]) for n, page in help_pages.PAGES.items() for e in page.examples])
def test_every_example_composes(name: str, given: str) -> None:
    if name in ("sweep", "train"):
        first = [word.split(",")[0] for word in shlex.split(given)]
        first = [word.replace("${seed}", "1") for word in first]
        if "data=files" in first:
            first = shlex.split(given)
        settings = settings_of(*first, config={"sweep": "sweep", "train": "config"}[name])
        arguments.check_arguments(settings.recipe)
        validate.check_study(settings, space.build_space(settings), group_options())
    else:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            assert compose(name, overrides=shlex.split(given))


def test_groups_of_the_page_are_those_there_are() -> None:
    assert sorted(help_pages.GROUPS) == sorted(group_options())


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("src.sweep", ["-m", "study.n_trails=5", "sampelr=gp", "study.n_trials=5", "data=sst2", "+space.x=1",
                       "hydra.verbose=true"],
         r"study\.n_trails is not a setting; study has .*n_trials.*\. Did you mean study\.n_trials\?\n"
         r"sampelr is not a setting; .* Did you mean sampler\?\n"),
        ("src.sweep", ["-m", "data=sst2,imbd"], r"data has no option imbd; .* Did you mean data=imdb\?\n"),
        ("src.train", ["data=sst"], r"data has no option sst; it has files, .*\. Did you mean data=sst2\?\n"),
        ("src.sweep", ["-m", "hydra/launcher=slrum"], r"In 'hydra/config': Could not find .*\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_composed_is_answered_in_place_of_hydras_words(
    place: Place, command: str, given: list[str], said: str
) -> None:
    done = place.run(command, *given)
    assert done.code == 2
    assert re.fullmatch(said, done.err)
    assert list(place.folder.iterdir()) == []


def test_a_warning_on_the_way_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    def ends() -> None:
        print("a warning", file=sys.stderr)
        assert sys.stderr.isatty() is False
        raise SystemExit(4)

    with pytest.raises(SystemExit) as end:
        help_pages.run("train", ends, [])
    assert end.value.code == 4
    assert capsys.readouterr().err == "a warning\n"


def test_hydras_own_flags_still_work(place: Place) -> None:
    done = place.run("src.sweep", "--info", "defaults")
    assert done.code == 0
    assert "starter" in done.out
    assert "data" in done.out
