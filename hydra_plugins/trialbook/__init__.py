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
    """Runs one study or comparison per combination of the values on the command line, each with its workers."""

    def __init__(self, verb: str) -> None:
        self.verb = verb

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from src.workers import launcher

        launcher.warm_up()  # start the workers' imports in the background
        from src.cli.entry import handle_errors
        from src.workflows import multirun

        assert self.config is not None
        jobs = multirun.compose_jobs(self.context, self.config, arguments)
        with handle_errors():
            multirun.run(self.context, self.task, jobs, self.verb)


class TrialbookLauncher(Launcher):
    """Runs jobs as processes of this machine. One that is killed is replaced, and the others go on."""

    def __init__(self, most_replacements: int) -> None:
        self.most_replacements = most_replacements

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from src.workers import launcher

        return launcher.launch(
            self.context, self.task, self.config, job_overrides, initial_job_idx, self.most_replacements
        )


@dataclass
class SweeperConf:
    """The options of hydra/sweeper=trialbook."""

    _target_: str = "hydra_plugins.trialbook.TrialbookSweeper"
    verb: str = "search"  # search or compare


@dataclass
class LauncherConf:
    """The options of hydra/launcher=trialbook."""

    _target_: str = "hydra_plugins.trialbook.TrialbookLauncher"
    most_replacements: int = 10  # how often a killed worker is replaced


ConfigStore.instance().store(group="hydra/sweeper", name="trialbook", node=SweeperConf, provider="trialbook")
ConfigStore.instance().store(group="hydra/launcher", name="trialbook", node=LauncherConf, provider="trialbook")


def register() -> None:
    """Register the plugins, even if the way of installation hides this package from Hydra's scan."""
    for plugin in (TrialbookSearchPath, TrialbookSweeper, TrialbookLauncher):
        Plugins.instance().register(plugin)
