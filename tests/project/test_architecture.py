"""The page on the architecture names functions that exist."""

import ast
import re
from functools import reduce

import pytest

from src.config.groups import ROOT

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
