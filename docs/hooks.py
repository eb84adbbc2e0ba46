"""The reference, made from the configs, the commands' own help and the docstrings whenever the site is built."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src import predict, status, ui  # noqa: E402
from src.cli import help_pages  # noqa: E402
from src.config.groups import CONF_DIR, group_options, sweep_files  # noqa: E402

MODULES = {
    "src.config.settings": "Settings, as the commands read them",
    "src.core.records": "Records of trials and trainings",
    "src.verdict.records": "Records of a comparison",
    "src.search.space": "The space",
    "src.tracking.folder_sync": "What travels between machines",
    "src.core.errors": "How things end",
}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that nobody writes."""
    pages = {
        "reference/commands.md": commands(),
        "reference/settings.md": settings(),
        "reference/refusals.md": (ROOT / "tests" / "golden" / "bad_input.md").read_text(),
        "reference/python.md": python(),
        "reference/benchmarks.md": benchmarks(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for figure in sorted((ROOT / "benchmarks" / "figures").glob("*.svg")):
        files.append(File.generated(config, f"reference/figures/{figure.name}", abs_src_path=str(figure)))
    return files


def commands() -> str:
    """Every command's own page."""
    shown = {f"src.{name}": help_pages.page(page) for name, page in help_pages.PAGES.items()}
    shown |= {f"src.{m.__name__.split('.')[-1]}": m.parser().format_help() for m in (predict, status, ui)}
    parts = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in shown.items()]
    return "# Commands\n\nAs `--help` prints them.\n\n" + "\n".join(parts)


def settings() -> str:
    """Every YAML of conf/ and sweeps/."""
    parts = ["# Settings\n\nThe files themselves: what they hold can be set on the command line.\n"]
    primary = ("config", "compare", "promote", "reproduce", "publish")
    parts += [f"## {name}\n\n{yaml(CONF_DIR / f'{name}.yaml')}" for name in primary]
    for group in help_pages.GROUPS:
        parts.append(f"## {group}\n")
        parts += [f"### {group}={o}\n\n{yaml(CONF_DIR / group / f'{o}.yaml')}" for o in group_options()[group]]
    parts.append("## sweeps\n")
    parts += [f"### sweeps={file.stem}\n\n{yaml(file)}" for file in sweep_files()]
    return "\n".join(parts)


def yaml(file: Path) -> str:
    return f"```yaml\n{file.read_text().rstrip()}\n```\n"


def python() -> str:
    """Docstrings of what other code may build on."""
    parts = ["# Python\n\nWhat the rooms exchange. Raised errors and units stand in the docstrings.\n"]
    parts += [f"## {title}\n\n::: {module}\n" for module, title in MODULES.items()]
    return "\n".join(parts)


def benchmarks() -> str:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    return re.sub(r"\]\(\.\./docs/", "](../", text)
