"""Which modules are imported, what is found in them, and what is said where they are wrong."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from src.core import own_code, own_metrics
from src.core.errors import InvalidInput
from src.core.metric import METRICS, known_metrics
from src.core.own_code import OwnBaseline, OwnLoader, OwnMetric
from src.core.task import MULTI_LABEL, Task
from tests.support.own_code import nothing_loaded, write_module

COST = """
@metric(direction="minimize", low=0, high=5)
def cost(true, predicted):
    return (5 * ((true == 1) & (predicted == 0)) + ((true == 0) & (predicted == 1))).mean()
"""


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    with nothing_loaded():
        yield


def load(folder: Path, body: str) -> None:
    write_module(folder, body)
    own_code.load(["my_module"], folder)


def test_what_a_module_has_is_found_by_its_kind(tmp_path: Path) -> None:
    load(
        tmp_path, f"{COST}\n@loader\ndef load(path): ...\n@baseline\ndef rules(texts, labels): ...\ndef other(): ...\n"
    )
    assert list(own_code.known(OwnMetric)) == ["my_module:cost"]
    assert list(own_code.known(OwnLoader)) == ["my_module:load"]
    assert list(own_code.known(OwnBaseline)) == ["my_module:rules"]
    assert own_code.find("my_module:cost", OwnMetric)(np.array([1, 0]), np.array([0, 0])) == 2.5  # the function itself
    found = METRICS["my_module:cost"]
    assert (found.direction, found.low, found.high) == ("minimize", 0.0, 5.0)
    for kind in ("single_label", MULTI_LABEL):
        assert "my_module:cost" in known_metrics(Task(("a", "b"), kind=kind))


def test_the_hashes_are_of_every_file_of_the_folder_that_is_imported(tmp_path: Path) -> None:
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts" / "price.py").write_text("PRICE = 5\n")  # a folder without an __init__.py
    (tmp_path / "my_unused.py").write_text("")
    load(tmp_path, f"from my_parts.price import PRICE\n{COST}")
    assert own_code.hashes() == {
        file: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        for file in ("my_module.py", "my_parts/price.py")
    }


def test_a_package_and_a_module_in_it_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    write_module(tmp_path / "my_package", COST, "scores")
    (tmp_path / "my_package" / "__init__.py").write_text("")
    own_code.load(["my_package.scores"], tmp_path)
    assert list(own_code.known(OwnMetric)) == ["my_package.scores:cost"]
    assert set(own_code.hashes()) == {"my_package/__init__.py", "my_package/scores.py"}


def test_only_what_was_recorded_goes(tmp_path: Path) -> None:
    own_code.check_recorded({}, [], "The run")
    with pytest.raises(InvalidInput, match=r"code of your own, my_module\.py\..*code=my_module\.$"):
        own_code.check_recorded({"my_module.py": "a"}, ["my_module"], "The run")
    with pytest.raises(InvalidInput, match=r"'code=\[my_module,my_other\]'\.$"):
        own_code.check_recorded({"my_module.py": "a"}, ["my_module", "my_other"], "The run")
    load(tmp_path, COST)
    own_code.check_recorded(own_code.hashes(), ["my_module"], "The run")
    for recorded, said in (
        ({**own_code.hashes(), "helper.py": "a"}, r"helper\.py is not imported now\."),
        ({"my_module.py": "a"}, r"my_module\.py has changed\."),
        ({"helper.py": "a"}, r"helper\.py is not imported now, my_module\.py was not part of it\."),
    ):
        with pytest.raises(InvalidInput, match=f"The run was made with other code of your own: {said}"):
            own_code.check_recorded(recorded, ["my_module"], "The run")


@pytest.mark.parametrize("name", ["json", "pandas", "src", "pip"])
def test_no_module_takes_the_name_of_another(tmp_path: Path, name: str) -> None:
    before = sys.modules.get(name)
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')")
    with pytest.raises(InvalidInput, match=f"another module is called {name}, too"):
        own_code.load([name], tmp_path)
    assert sys.modules.get(name) is before


def test_only_the_folder_is_looked_in(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=rf"the folder {tmp_path} has no antigravity\.py"):
        own_code.load(["antigravity"], tmp_path)  # of the standard library


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import nothing_here", r"ModuleNotFoundError: No module named 'nothing_here' \(my_module\.py, line 4\)\."),
        ("1 / 0", r"ZeroDivisionError: division by zero \(my_module\.py, line 4\)\."),
        ("def f(:", r"SyntaxError: .* \(my_module\.py, line 4\)\."),
        ("metric(direction='up', low=0, high=1)", r"direction is 'up'; it is maximize or minimize \(my_module\.py"),
        ("metric(direction='minimize', low=1, high=1)", r"low is 1 and high is 1; low is below high"),
        ("metric(direction='minimize', low=0, high=1, response_method='x')", r"it is predict or predict_proba"),
    ],
)
def test_an_error_of_a_module_is_said_with_its_line(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"^code has my_module, and importing it raised .*{said}"):
        load(tmp_path, body)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"study.metric has my_module:cost, .* was not imported.*code=my_module\.$"):
        own_code.find("my_module:cost", OwnMetric)
    load(tmp_path, COST)
    with pytest.raises(
        InvalidInput, match=r"has no metric cosst; there is my_module:cost\. Did you mean my_module:cost"
    ):
        own_code.find("my_module:cosst", OwnMetric)
    with pytest.raises(InvalidInput, match=r"has no loader cost; nothing there has the decorator @loader\.$"):
        own_code.find("my_module:cost", OwnLoader)


SINGLE = (np.array([0, 1, 1, 0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]))
SEVERAL = (np.array([[1, 0], [0, 0], [1, 1], [0, 1]]), np.array([[0.9, 0.6], [0.4, 0.1], [0.8, 0.7], [0.2, 0.3]]))


def test_a_metric_gets_labels_or_probabilities(tmp_path: Path) -> None:
    load(
        tmp_path,
        """
@metric(direction="maximize", low=0, high=1)
def exact(true, predicted):
    assert predicted.dtype.kind == "i" and true.shape == predicted.shape
    return (true == predicted).all(axis=-1).mean() if true.ndim > 1 else (true == predicted).mean()

@metric(direction="minimize", low=0, high=1, response_method="predict_proba")
def mean(true, probabilities):
    return probabilities.mean()
""",
    )
    assert own_metrics.score("my_module:exact", *SINGLE) == 0.5
    assert own_metrics.score("my_module:exact", *SEVERAL) == 0.5
    assert own_metrics.score("my_module:mean", *SINGLE) == 0.5
    for labels, probabilities in (SINGLE, SEVERAL):
        own_metrics.try_metric("my_module:exact", labels, 2)
        floats = labels.astype(np.float32) if labels.ndim > 1 else labels  # as a training has several labels
        assert own_metrics.score("my_module:exact", floats, probabilities) == 0.5


def test_a_metric_of_a_regression_gets_numbers(tmp_path: Path) -> None:
    load(
        tmp_path,
        """
@metric(direction="minimize", low=0, high=np.inf)
def largest(true, predicted):
    assert true.shape == predicted.shape and true.dtype.kind == "f"
    return np.abs(true - predicted).max()
""",
    )
    true = np.array([1.0, 2.5, 4.0])
    assert own_metrics.score("my_module:largest", true, np.array([[1.0], [2.0], [6.0]])) == 2.0
    own_metrics.try_metric("my_module:largest", true, 1)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("'good'", r"my_module:own returned str 'good'; a metric returns one number\."),
        ("true", r"my_module:own returned ndarray array\(\[.*\]\); a metric returns one number\."),
        ("None", r"returned NoneType None"),
        ("float('nan')", r"returned nan for 4 texts, and it declares values from 0 to 1\."),
        ("2", r"returned 2 for 4 texts, and it declares values from 0 to 1\."),
        ("true[99]", r"raised IndexError: index 99 is out of bounds .* \(my_module\.py, line 7\)\."),
        ("1 / (true == 1).sum()", r"returned inf for 2 texts.*also where none of them has some label"),
        ("1.0 if (true == 1).sum() > 1 else np.nan", r"returned nan for 2 texts"),
        ("1 / (len(true) - 1)", r"raised ZeroDivisionError: .*\(my_module\.py, line 7\)\."),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_metric_that_returns_nonsense_is_refused_before_a_study(tmp_path: Path, returned: str, said: str) -> None:
    load(
        tmp_path, f"\n@metric(direction='minimize', low=0, high=1)\ndef own(true, predicted):\n    return {returned}\n"
    )
    with pytest.raises(InvalidInput, match=said):
        own_metrics.try_metric("my_module:own", SINGLE[0], 2)
