"""Modules of own code that a test writes and loads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.core import metric, own_code


def write_module(folder: Path, body: str, name: str = "my_module") -> Path:
    """A module with what it needs imported; `body`: the rest of it."""
    head = "import numpy as np\nimport pandas as pd\nfrom src.core.own_code import baseline, loader, metric\n"
    file = folder / f"{name}.py"
    file.write_text(head + body)
    return file


@contextmanager
def nothing_loaded() -> Iterator[None]:
    """As in a new process; what is loaded meanwhile is forgotten at the end."""
    modules, path, metrics = dict(sys.modules), list(sys.path), dict(metric.METRICS)
    own_code._modules.clear()
    own_code._sources.clear()
    try:
        yield
    finally:
        for name in set(sys.modules) - set(modules):
            if name.startswith(("my_", "helper")):
                del sys.modules[name]
        sys.path[:] = path
        for name in set(metric.METRICS) - set(metrics):
            del metric.METRICS[name]
        own_code._modules.clear()
        own_code._sources.clear()
