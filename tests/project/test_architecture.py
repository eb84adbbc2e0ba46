"""The page on the architecture names functions that exist; src opens text files as UTF-8."""

import ast
import re
from functools import reduce

import pytest

from src.config.groups import ROOT

BINARY_OPEN = ("os", "gzip", "bz2", "lzma", "archive", "webbrowser")  # whose `open` has bytes by default, or no text
ROWS = re.findall(
    r"^\| \d+ \| `(src/[\w/]+\.py)` \| `([\w.]+)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE
)


def test_the_rows_were_found() -> None:
    assert len(ROWS) >= 25


@pytest.mark.parametrize(("file", "name"), ROWS)
def test_a_function_on_the_page_exists(file: str, name: str) -> None:
    def inside(node: ast.AST, part: str) -> ast.AST:
        members = ast.iter_child_nodes(node)
        return next(m for m in members if isinstance(m, (ast.FunctionDef, ast.ClassDef)) and m.name == part)

    assert reduce(inside, name.split("."), ast.parse((ROOT / file).read_text()))


def test_files_of_text_are_read_and_written_as_utf_8_whatever_the_locale_is() -> None:
    """Without `encoding`, Python takes the locale's: what was written under one locale is wrong under another."""

    def is_wrong(call: ast.Call) -> bool:
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        words = {keyword.arg for keyword in call.keywords}
        if name == "open":
            mode = next((ast.unparse(a) for a in (*call.args, *(k.value for k in call.keywords if k.arg == "mode"))
                         if isinstance(a, ast.Constant) and isinstance(a.value, str)), "'r'")  # fmt: skip
            return "b" not in mode and "encoding" not in words and owner not in BINARY_OPEN
        # a run's log has methods of these names, too, which take a name
        return (name == "read_text" and not call.args and "encoding" not in words) or (
            name == "write_text" and "encoding" not in words
        )

    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and is_wrong(node)
    ]
    assert wrong == []
