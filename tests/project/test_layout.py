"""The folders of the tests are those of src/, and no test needs another."""

import ast
from pathlib import Path

import pytest

from src.config.groups import ROOT

TESTS = ROOT / "tests"
OF_NO_PACKAGE = {"golden", "project", "support"}


def folders(parent: Path) -> set[str]:
    return {folder.name for folder in parent.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}


def test_a_folder_of_tests_is_a_package_of_the_same_name() -> None:
    assert folders(TESTS) - OF_NO_PACKAGE <= folders(ROOT / "src")


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_test_is_imported(file: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    ours = {name for name in imported if name.startswith("tests.")}
    assert all(name.split(".")[1] in ("golden", "support") for name in ours), sorted(ours)
