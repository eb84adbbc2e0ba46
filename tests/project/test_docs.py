"""What stands in docs/ is done: every command typed, every file written, page by page, in a copy of the project."""

import importlib.util
import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from markdown_it import MarkdownIt

from src.cli import help_pages
from src.config.groups import ROOT
from tests.support import docs_python
from tests.support.commands import clean_environment
from tests.support.data import LAUNCHER_PLUGINS
from tests.support.fork_server import start_server
from tests.support.project import copy_project

DOCS = ROOT / "docs"
PAGES = sorted(str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md"))
NEEDS = ("gpu", "cluster", "hub", "a champion", "more rows", "a terminal of its own")
KINDS = ("bash", "python", "yaml", "csv", "text")
INSTALLED = re.compile(r"^pip install .*$", re.M)  # the environment of the tests has it all


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its file's name if it is one, what it needs that is not here."""

    kind: str
    title: str | None
    needs: str | None
    text: str


def blocks(text: str) -> Iterator[Block]:
    needs = None
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "html_block" and (result := re.search(r"<!-- needs: (.+?) -->", token.content)):
            needs = result[1]
        elif token.type == "fence":
            title = re.search(r'title="(.+?)"', token.info)
            yield Block(token.info.split()[0] if token.info else "", title[1] if title else None, needs, token.content)
            needs = None


def test_every_table_ends_with_an_empty_line() -> None:
    """What follows at once would be a row of it."""
    for file in [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *DOCS.rglob("*.md")]:
        lines = file.read_text().split("\n")
        for number, (line, following) in enumerate(itertools.pairwise(lines), start=2):
            assert not line.startswith("|") or not following or following.startswith("|"), f"{file}:{number}"


def shell(script: str, place: Path, server: socket.socket | None = None) -> subprocess.CompletedProcess[str]:
    """The script in bash. Trialbook's commands in it fork from `server`, or start a Python of their own."""
    wrapped = f'python() {{ "{sys.executable}" -m tests.support.docs_python "$@"; }}\n{INSTALLED.sub("true", script)}'
    environment = environment_in(place) | ({docs_python.SERVER: str(server.fileno())} if server else {})
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", wrapped], cwd=place, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=270, check=False, pass_fds=[server.fileno()] if server else [],
    )  # fmt: skip


def environment_in(place: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean_environment() | {"PYTHONPATH": str(place), "PATH": path}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_known_kind(page: str) -> None:
    for block in blocks((DOCS / page).read_text()):
        assert block.kind in KINDS, block
        assert block.needs is None or block.needs in NEEDS, block
        if block.kind in ("yaml", "csv"):
            assert block.title, "a file has a name"


def test_the_pages_say_something_to_do() -> None:
    every = [block for page in PAGES for block in blocks((DOCS / page).read_text())]
    assert len([b for b in every if b.kind == "bash" and b.needs is None]) >= 20
    assert {b.needs for b in every if b.needs} == set(NEEDS)
    assert len([b for b in every if b.kind == "yaml"]) >= 5


@pytest.mark.long
@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks((DOCS / p).read_text()))])
def test_everything_on_the_page_works(page: str, tmp_path: Path) -> None:
    place = copy_project(tmp_path)
    every = list(blocks((DOCS / page).read_text()))
    typed = [block for block in every if block.kind == "bash" and not block.needs]
    server = start_server(place, environment_in(place)) if typed else None
    for block in every:
        if block.title:
            (place / block.title).parent.mkdir(parents=True, exist_ok=True)
            (place / block.title).write_text(block.text)
            if block.kind == "python":
                continue
        if block.kind == "bash" and block.needs:
            composed(block.text, place)
        elif block.kind == "bash":
            done = shell(block.text, place, server)
            assert done.returncode == 0, f"{page}\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        elif block.kind == "python" and block.needs:
            compile(block.text, page, "exec")
        elif block.kind == "python":
            done = shell(f"python - <<'END'\n{block.text}END\n", place, server)
            assert done.returncode == 0, done.stderr


def composed(script: str, place: Path) -> None:
    """What cannot be done here is at least sound shell, and its commands are understood."""
    subprocess.run(["bash", "-n", "-c", script], check=True)
    for name, given in re.findall(r"^python -m src\.(\w+)(?: -m)?([^#&|\n]*)", script, re.M):
        if name not in help_pages.PAGES:
            continue
        words = shlex.split(given)
        plugins = [LAUNCHER_PLUGINS.get(word.replace("=", "/"), "hydra") for word in words]
        if not all(importlib.util.find_spec(plugin) for plugin in plugins):
            continue  # an extra, which the environment of the cluster tests has
        with initialize_config_dir(str(place / "conf"), version_base="1.3"):
            assert compose(help_pages.PAGES[name].config, overrides=words, return_hydra_config=True)


@pytest.mark.long
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {str(f.relative_to(tmp_path / "site")) for f in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "tutorial.html", "reference/commands.html", "reference/settings.html"} <= pages
    settings = (tmp_path / "site" / "reference" / "settings.html").read_text()
    assert "the total over all workers and all resumes" in settings


def test_a_command_that_fails_is_noticed() -> None:
    done = shell("python -m src.status nothing-of-this-name\necho went on", ROOT)
    assert done.returncode == 2
    assert "went on" not in done.stdout
    assert "there is no such study" in done.stderr


def test_a_command_that_is_tried_is_the_one_that_stands_there() -> None:
    small = docs_python.smaller(["-m", "src.sweep", "-m", "sampler=gp"])
    assert small[:4] == ["-m", "src.sweep", "-m", "sampler=gp"]
    assert "study.n_trials=3" in small
    assert "study.n_trials=3" not in docs_python.smaller(["-m", "src.sweep", "-m", "study.n_trials=20"])
    assert docs_python.smaller(["-m", "src.status"]) == ["-m", "src.status"]
    assert docs_python.smaller(["-c", "print(1)"]) == ["-c", "print(1)"]
