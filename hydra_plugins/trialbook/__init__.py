"""Trialbook behind Hydra's `-m`: its sweeper, its local launcher, and sweeps/ on the search path.

Thin on purpose: Hydra takes sweeper and launcher classes from a `hydra_plugins` package only, and imports this module
for every command; the work is in `src`, imported when it is needed.

Why not Hydra's basic sweeper with callbacks: an error raised in a callback is swallowed and the command exits 0, and
with several values of one key callbacks see only the first. Why not its joblib launcher: one killed worker aborts the
whole pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class TrialbookSearchPath(SearchPathPlugin):
    """Makes `sweeps=<name>` find sweeps/<name>.yaml from any working folder."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("trialbook", f"file://{Path(__file__).resolve().parents[2]}")


class TrialbookSweeper(Sweeper):
    """One study, or comparison, per combination of the values on the command line; workers inside each."""

    def __init__(self, verb: str) -> None:
        self.verb = verb

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from hydra_plugins.trialbook import _studies

        assert self.config is not None

        return _studies.run(self.context, self.task, self.config, arguments, self.verb)


class TrialbookLauncher(Launcher):
    """Jobs as processes of this machine, each on its own: one that is killed takes no other along, and is replaced."""

    def __init__(self, most_replacements: int) -> None:
        self.most_replacements = most_replacements

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hydra_plugins.trialbook import _processes

        return _processes.launch(
            self.context, self.task, self.config, job_overrides, initial_job_idx, self.most_replacements
        )


@dataclass
class SweeperConf:
    _target_: str = "hydra_plugins.trialbook.TrialbookSweeper"
    verb: str = "search"  # or compare: what the command does with its workers


@dataclass
class LauncherConf:
    _target_: str = "hydra_plugins.trialbook.TrialbookLauncher"
    most_replacements: int = 10  # of one killed worker, over one launch


ConfigStore.instance().store(group="hydra/sweeper", name="trialbook", node=SweeperConf, provider="trialbook")
ConfigStore.instance().store(group="hydra/launcher", name="trialbook", node=LauncherConf, provider="trialbook")


def register() -> None:
    """Make the plugins known also where an installation hides this package from Hydra's scan."""
    for plugin in (TrialbookSearchPath, TrialbookSweeper, TrialbookLauncher):
        Plugins.instance().register(plugin)
