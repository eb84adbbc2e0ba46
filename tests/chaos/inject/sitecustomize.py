"""Kills the process at chosen lines of the product, which knows nothing of it.

CHAOS_AT is `module:function:before` (or `after`), or several of them, separated by blanks; CHAOS_MARK a folder with a
file for each that was reached, so that it happens once. Python imports this file at start-up wherever its folder is on
PYTHONPATH.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from pathlib import Path


class _Patcher(importlib.abc.MetaPathFinder):
    """Wraps functions once their module has been imported."""

    def __init__(self, lines: list[str], marks: Path) -> None:
        self.lines, self.marks = [(*line.split(":"), line) for line in lines], marks

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in [module for module, *_ in self.lines]:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def run_and_patch(module):  # type: ignore[no-untyped-def]
            run(module)
            for where, function, moment, line in self.lines:
                if where == name:
                    holder, _, last = function.rpartition(".")
                    place = getattr(module, holder) if holder else module
                    setattr(place, last, self.deadly(getattr(place, last), moment, self.marks / line))

        spec.loader.exec_module = run_and_patch
        return spec

    def deadly(self, function, moment: str, mark: Path):  # type: ignore[no-untyped-def]
        @functools.wraps(function)
        def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
            if moment == "before":
                die_once(mark)
            result = function(*args, **kwargs)
            if moment == "after":
                die_once(mark)
            return result

        return wrapped


def die_once(mark: Path) -> None:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


if at := os.environ.get("CHAOS_AT"):
    sys.meta_path.insert(0, _Patcher(at.split(), Path(os.environ["CHAOS_MARK"])))
