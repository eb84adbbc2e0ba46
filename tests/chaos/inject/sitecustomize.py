"""Kills the process at a chosen line of the product, which knows nothing of it.

CHAOS_AT is `module:function:before` (or `after`), CHAOS_MARK a file that is made at the kill, so that it happens once.
Python imports this file at start-up wherever its folder is on PYTHONPATH.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from pathlib import Path


class _Patcher(importlib.abc.MetaPathFinder):
    """Wraps the function once its module has been imported."""

    def __init__(self, module: str, function: str, moment: str, mark: str) -> None:
        self.module, self.function, self.moment, self.mark = module, function, moment, Path(mark)

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != self.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def run_and_patch(module):  # type: ignore[no-untyped-def]
            run(module)
            holder, _, last = self.function.rpartition(".")
            place = getattr(module, holder) if holder else module
            setattr(place, last, self.deadly(getattr(place, last)))

        spec.loader.exec_module = run_and_patch
        return spec

    def deadly(self, function):  # type: ignore[no-untyped-def]
        @functools.wraps(function)
        def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
            if self.moment == "before":
                self.die()
            result = function(*args, **kwargs)
            self.die()
            return result

        return wrapped

    def die(self) -> None:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


if at := os.environ.get("CHAOS_AT"):
    sys.meta_path.insert(0, _Patcher(*at.split(":"), os.environ["CHAOS_MARK"]))
