"""Environment variables of the machine that would change what a command does without a word."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from src.core.paths import can_write

CLEARED = (
    "ACCELERATE_",  # precision, devices, FSDP, DeepSpeed: settings of trainer.* and worker.* decide
    "FSDP_",
    "PARALLELISM_CONFIG_",
    "MLFLOW_RUN_ID",  # another program's run
    "MLFLOW_EXPERIMENT_",
    "MLFLOW_NESTED_RUN",
    "MLFLOW_TAGS",
    "MLFLOW_ENABLE_ASYNC_LOGGING",
    "MLFLOW_HUGGINGFACE_",  # how models are loaded
    "MLFLOW_DEFAULT_PREDICTION_DEVICE",
    "HF_MLFLOW_",
    "HF_DATASETS_IN_MEMORY_MAX_SIZE",
    "HF_DATASETS_DISABLE_CACHING",
    "TORCH_LOGS",
    "NEFTUNE_",
)
"""How names of variables begin that are taken out of the environment of our processes."""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun and job scripts set: a training would wait for ranks that nobody starts."""
_cleared: list[str] = []


def clear_variables() -> None:
    """Take variables out of this process's environment that settings decide about. Called before libraries read them.

    See `cleared_variables` for their names.
    """
    for name in sorted(os.environ):
        if name.startswith(CLEARED) or name in RANK_VARIABLES:
            del os.environ[name]
            _cleared.append(name)


def cleared_variables() -> Iterator[str]:
    """Notes for the plan: which variables were set and are not read."""
    if _cleared:
        yield (
            f"{', '.join(_cleared)} in the environment {'is' if len(_cleared) == 1 else 'are'} not read: the config "
            "decides (trainer.*, worker.*, tracking.*)"
        )


def use_writable_caches(project_cache: Path) -> None:
    """Where the Hugging Face home cannot be written, keep what the libraries write in the project's cache.

    Models that were downloaded into that home, and its token, are still read from there.
    """
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    if can_write(home):
        return
    if not can_write(project_cache):  # a project that can only be read
        project_cache = Path(tempfile.mkdtemp(prefix="trialbook-"))
        atexit.register(shutil.rmtree, project_cache, ignore_errors=True)
    os.environ.setdefault("HF_HUB_CACHE", str(home / "hub" if (home / "hub").is_dir() else project_cache / "hub"))
    os.environ.setdefault("HF_TOKEN_PATH", str(home / "token"))
    os.environ["HF_HOME"] = str(project_cache / "huggingface")
    os.environ.setdefault("MPLCONFIGDIR", str(project_cache / "matplotlib"))
