"""Metrics, loaders and baselines of your own, from modules of the working folder (docs/how-to/own_code.md).

A module that `code` names on a command line or in a sweep is imported, and no other: never what data, a checkpoint or
a stored config name. Decorators say what its functions are:

    from src.core.own_code import metric

    @metric(direction="minimize", low=0, high=5)
    def cost(true, predicted):
        ...

Settings name it as `<module>:<name>`, such as `study.metric=my_module:cost`.
"""

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, TypeVar

from src.core.errors import InvalidInput, did_you_mean, first_line, with_full_stop
from src.core.metric import MAXIMIZE, MINIMIZE, RESPONSES, Metric, register

OURS = ("src", "hydra_plugins")  # Trialbook's own packages, which may be in the working folder, too
BETWEEN = ":"  # a module and a name in it


@dataclass(frozen=True)
class OwnFunction:
    """A function of your own module that a setting can name. Called, it is the function itself."""

    function: Callable[..., Any]
    kind: ClassVar[str] = "function"
    setting: ClassVar[str] = "code"  # that names it

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        return self.function(*arguments)


@dataclass(frozen=True)
class OwnMetric(OwnFunction):
    """A metric of your own, see `metric`."""

    direction: str
    low: float
    high: float
    response_method: str
    kind: ClassVar[str] = "metric"
    setting: ClassVar[str] = "study.metric"

    def as_metric(self, name: str) -> Metric:
        """What is known of it without computing it."""
        return Metric.own(name, self.direction, self.low, self.high, self.response_method)


@dataclass(frozen=True)
class OwnLoader(OwnFunction):
    """A loader of your own, see `loader`."""

    kind: ClassVar[str] = "loader"
    setting: ClassVar[str] = "data.loader"


@dataclass(frozen=True)
class OwnBaseline(OwnFunction):
    """A baseline of your own, see `baseline`."""

    kind: ClassVar[str] = "baseline"
    setting: ClassVar[str] = "study.baselines"


Kind = TypeVar("Kind", bound=OwnFunction)


def metric(
    *, direction: str, low: float, high: float, response_method: str = "predict"
) -> Callable[[Callable[..., Any]], OwnMetric]:
    """Makes a function a metric: of true labels and a model's answers, one number.

    The function gets two numpy arrays. Where a text has one label, the true labels are [n_texts], indices in the order
    of the data's labels; where it can have several, [n_texts, n_labels], 0 or 1; of a regression both arrays are
    numbers, [n_texts]. It has to return a number for any texts, also for resampled ones of which none has some label.

    Args:
        direction: maximize or minimize.
        low: the smallest possible value; -math.inf if there is none.
        high: the largest possible value; math.inf if there is none.
        response_method: predict: the answers are labels, in the shape of the true ones. predict_proba: they are
            probabilities, [n_texts, n_labels].

    Raises:
        ValueError: an argument is none of these.
    """
    if direction not in (MAXIMIZE, MINIMIZE):
        raise ValueError(f"direction is {direction!r}; it is {MAXIMIZE} or {MINIMIZE}")
    if response_method not in RESPONSES:
        raise ValueError(f"response_method is {response_method!r}; it is {' or '.join(RESPONSES)}")
    if not low < high:
        raise ValueError(f"low is {low!r} and high is {high!r}; low is below high")
    return lambda function: OwnMetric(function, direction, float(low), float(high), response_method)


def loader(function: Callable[..., Any]) -> OwnLoader:
    """Makes a function a loader: of `data.path` (None if it is not set), the splits by name.

    A split is a pandas.DataFrame or a datasets.Dataset. The names of splits and columns, what is carved and all else
    are as for files. Each process of a command calls it once, and has to get the same each time.
    """
    return OwnLoader(function)


def baseline(function: Callable[..., Any]) -> OwnBaseline:
    """Makes a function a baseline: of training texts and their labels, a function that predicts.

    The function gets a list of texts (for pairs, of tuples of two) and an array of labels as a metric does. It returns
    a function from a list of texts to probabilities, [n_texts, n_labels], or, of a regression, to numbers, [n_texts].
    """
    return OwnBaseline(function)


_modules: dict[str, ModuleType] = {}  # that this process has loaded, by the name in `code`
_sources: dict[str, bytes] = {}  # their files, and those that they import, by their path in the working folder
_folders: list[Path] = []  # the working folder, once something was loaded


def load(names: Sequence[str], root: Path) -> None:
    """Import modules of the working folder, and make their metrics known.

    Args:
        names: as in `code`.
        root: the working folder.

    Raises:
        InvalidInput: there is no such module in the folder, or it cannot be imported.
    """
    new = [name for name in names if name not in _modules]
    for name in new:
        _modules[name] = _import(name, root.resolve())
    if new:
        _sources.update(_loaded_files(root.resolve()))
        _folders[:] = [root.resolve()]
    for name, own in known(OwnMetric).items():
        register(own.as_metric(name))


@dataclass(frozen=True)
class LoadedCode:
    """What a process has loaded, for another process to do the same."""

    modules: tuple[str, ...]
    folder: Path

    def load(self) -> None:
        """Load it in this process."""
        load(self.modules, self.folder)


def loaded() -> LoadedCode:
    """What this process has loaded."""
    return LoadedCode(tuple(_modules), _folders[0] if _folders else Path())


def sources() -> Mapping[str, bytes]:
    """The files of the loaded modules, and of what they import of the working folder, by their path in it."""
    return MappingProxyType(_sources)


def hashes() -> dict[str, str]:
    """The sha256 of each of these files."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in sorted(_sources.items())}


def check_recorded(recorded: Mapping[str, str], modules: Sequence[str], what: str) -> None:
    """Raise InvalidInput unless this process has loaded what a study or a run was made with.

    Args:
        recorded: the hashes then; empty if there was no such code.
        modules: as they were named then.
        what: the study or run, in words.
    """
    if recorded and not set(modules) <= set(_modules):
        raise InvalidInput(
            f"{what} was made with code of your own, {', '.join(sorted(recorded))}. It is imported only where a "
            f"command line names it: {argument(modules)}."
        )
    now, changes = hashes(), list[str]()
    for path in sorted({*recorded, *now}):
        if path not in now:
            changes.append(f"{path} is not imported now")
        elif path not in recorded:
            changes.append(f"{path} was not part of it")
        elif recorded[path] != now[path]:
            changes.append(f"{path} has changed")
    if recorded and changes:
        raise InvalidInput(
            f"{what} was made with other code of your own: {', '.join(changes)}. Put the old code back; it is among "
            "the artifacts of its MLflow run, in the folder code."
        )


def known(kind: type[Kind]) -> dict[str, Kind]:
    """What the loaded modules have of a kind, by the name that settings give it."""
    return {
        f"{name}{BETWEEN}{attribute}": value
        for name, module in _modules.items()
        for attribute, value in vars(module).items()
        if isinstance(value, kind)
    }


def argument(modules: Sequence[str]) -> str:
    """How `code` is typed for these modules."""
    return f"code={modules[0]}" if len(modules) == 1 else f"'code=[{','.join(modules)}]'"


def is_own(name: str) -> bool:
    """Whether a setting's value names something of your own: `<module>:<name>`."""
    return BETWEEN in name


def find(name: str, kind: type[Kind]) -> Kind:
    """What a setting's value names. Raises InvalidInput if no loaded module has it."""
    found = known(kind)
    if name in found:
        return found[name]
    module, _, attribute = name.partition(BETWEEN)
    if module not in _modules:
        raise InvalidInput(
            f"{kind.setting} has {name}, and the module {module} was not imported. Code of your own is imported only "
            f"where a command line or a sweep names it: {argument([module])}."
        )
    there = f"there is {', '.join(found)}" if found else f"nothing there has the decorator @{kind.kind}"
    raise InvalidInput(
        f"{kind.setting} has {name}, and {module} has no {kind.kind} {attribute}; {there}.{did_you_mean(name, found)}"
    )


def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What your function returns. Raises InvalidInput if it raises an error, with the line."""
    try:
        return function(*arguments)
    except Exception as error:
        raise InvalidInput(f"{name} raised {_describe(error)}") from error


def shown(value: Any) -> str:
    """A value that your function returned, for a message."""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _import(name: str, root: Path) -> ModuleType:
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, [str(root)])
    if spec is None:
        raise InvalidInput(
            f"code has {name}, and the folder {root} has no {top}.py and no package {top}. code names modules of the "
            "folder that the command is given in, without .py: code=my_module."
        )
    elsewhere = PathFinder.find_spec(top, [path for path in sys.path if Path(path).resolve() != root])
    if top in (*OURS, *sys.stdlib_module_names) or (elsewhere is not None and elsewhere.has_location):
        raise InvalidInput(f"code has {name}, and another module is called {top}, too: give yours another name.")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InvalidInput(f"code has {name}, and importing it raised {_describe(error)}") from error


def _loaded_files(root: Path) -> dict[str, bytes]:
    """The files of imported modules that lie in the folder, without Trialbook's own and installed packages."""
    files = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        file = Path(spec.origin if spec is not None and spec.has_location else "/").resolve()
        is_installed = file.is_relative_to(Path(sys.prefix).resolve()) or "site-packages" in file.parts
        if name.partition(".")[0] not in (*OURS, "__main__") and file.is_relative_to(root) and not is_installed:
            files[file.relative_to(root).as_posix()] = file.read_bytes()
    return files


def _describe(error: Exception) -> str:
    """The error, and the line of your own file in which it was raised."""
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_yours(f.filename)]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (None, None)
    where = f" ({Path(file).name}, line {line})" if file else ""
    return with_full_stop(f"{type(error).__name__}: {first_line(error)}{where}")


def _is_yours(file: str) -> bool:
    ours, python = str(Path(__file__).parents[1]), (sys.prefix, sys.base_prefix)
    return not file.startswith(("<", ours, *python))
