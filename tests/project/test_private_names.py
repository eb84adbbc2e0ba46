"""Private names of other libraries are used where CONTRIBUTING says so, and nowhere else."""

import ast
import re
from collections.abc import Iterator

from src.config.groups import ROOT

ROW = re.compile(r"^\| `(src/[\w/]+\.py)` \| (.+?) \|.*\| `(tests/[\w/]+\.py)` \|$", re.MULTILINE)
PUBLIC = {"_exit", "_target_"}  # os._exit; Hydra's own key


def listed() -> set[tuple[str, str]]:
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
    return {(file, name) for file, names, _ in rows for name in re.findall(r"`(\w+)`", names)}


def definitions(tree: ast.Module) -> set[str]:
    """Names that the module makes itself: functions, classes, variables, attributes of self."""
    defined = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    defined |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    stored = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
    return defined | {n.attr for n in stored if isinstance(n.value, ast.Name) and n.value.id == "self"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def foreign_names(tree: ast.Module) -> Iterator[str]:
    """Private attributes and modules that the module did not make itself."""
    own = definitions(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("src"):
            yield from filter(is_private, (node.module or "").split("."))
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            called_super = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if node.attr not in own or called_super:
                yield node.attr


OVERRIDDEN = {("src/search/sampler.py", "_get_trials"), ("src/training/classifier_trainer.py", "_get_eval_sampler")}
"""Methods that a library calls by a private name, and that nothing here calls."""


def test_the_table_lists_what_the_code_uses() -> None:
    used = set(OVERRIDDEN)
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]:
        path = str(file.relative_to(ROOT))
        used |= {(path, name) for name in foreign_names(ast.parse(file.read_text()))}
    assert used == listed()


def test_what_is_overridden_is_there() -> None:
    for path, name in OVERRIDDEN:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, path


def test_every_row_names_a_test_that_is_there() -> None:
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
    assert len(rows) >= 5
    for file, _, test in rows:
        assert (ROOT / file).is_file()
        assert (ROOT / test).is_file()


def test_a_planted_use_is_noticed() -> None:
    planted = "from optuna._rdb import models\n\ndef f(trial):\n    return trial._trial_id, models\n"
    assert set(foreign_names(ast.parse(planted))) == {"_rdb", "_trial_id"}
