"""The environment of a run: library versions, git commit, command line, machine."""

import os
import platform
import shlex
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from src.core.errors import mask_secrets

PACKAGES = (
    "trialbook", "torch", "transformers", "datasets", "accelerate", "evaluate", "optuna", "mlflow", "hydra-core",
    "scikit-learn", "numpy", "tokenizers",
)  # fmt: skip


@lru_cache
def versions() -> dict[str, str]:
    """Installed versions by package; a package that is not installed is left out."""
    versions_by_package = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions_by_package[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions_by_package


@lru_cache
def git_commit() -> str | None:
    """The commit of the code that runs, with '-dirty' if it was changed since; None outside a repository."""
    root = Path(__file__).resolve().parents[2]
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def machine() -> str:
    """Processor, cores and system in one line."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def command_line() -> str:
    """The running command, as it can be typed again, without passwords."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    start = ["python", "-m", module.name.removesuffix(".__main__")] if module else ["python", sys.argv[0]]
    return mask_secrets(shlex.join([*start, *sys.argv[1:]]))
