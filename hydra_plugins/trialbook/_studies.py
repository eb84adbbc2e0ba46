"""The sweeper's work: from a command line to checked plans, and each plan to its workers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from src.paths import Paths
    from src.runner.telling import ComparePlan

Todo = Callable[[Callable[..., None]], object]  # given a way to start workers, does it


def run(context: HydraContext, task: TaskFunction, config: DictConfig, arguments: Sequence[str], verb: str) -> None:
    """Check everything asked for first, then do it, one after another. Refusals come before any worker starts."""
    from hydra_plugins.trialbook import _processes

    _processes.warm_up()
    from src.commands import answered
    from src.paths import Paths

    paths = Paths(Path.cwd())
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    each = BasicSweeper.split_arguments(parsed, None)[0]
    composed = [context.config_loader.load_sweep_config(config, list(overrides)) for overrides in each]
    with answered():
        for todo, overrides, made in zip(VERBS[verb](composed, each, paths), each, composed, strict=True):

            def launch(workers: int, *more: str, overrides: Sequence[str] = overrides, made: DictConfig = made) -> None:
                HydraConfig.instance().set_config(made)
                _launch(context, task, made, [*overrides, *more], workers, paths.root)

            HydraConfig.instance().set_config(made)
            todo(launch)


def _search(composed: Sequence[DictConfig], overrides: Sequence[Sequence[str]], paths: "Paths") -> list[Todo]:
    """A study for each combination of values on the command line."""
    from src import config
    from src.runner import plan as planning
    from src.runner import searching

    plans = []
    for made, own in zip(composed, overrides, strict=True):
        HydraConfig.instance().set_config(made)
        plans.append(planning.check(config.settings_from(made, own), paths))
    planning.refuse_shared_names(plans)
    return [partial(searching.search, plan) for plan in plans]


def _compare(composed: Sequence[DictConfig], _: Sequence[Sequence[str]], paths: "Paths") -> list[Todo]:
    """A comparison for each study named."""
    from src import config
    from src.runner import comparing

    plans = [comparing.check(config.comparison_from(made), paths) for made in composed]
    return [partial(_compared, plan) for plan in plans]


def _compared(plan: "ComparePlan", launch: Callable[..., None]) -> None:
    from src.runner import comparing

    comparing.compare(plan, lambda workers, *more: launch(workers, f"study.name={plan.studied.name}", *more))


VERBS: dict[str, Callable[..., list[Todo]]] = {"search": _search, "compare": _compare}


def _launch(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    overrides: Sequence[str],
    workers: int,
    root: Path,
) -> None:
    """One batch of jobs, a worker each, with whatever launcher the config names."""
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    OmegaConf.set_readonly(config.hydra, None)
    where = f"worker.root='{root.resolve()}'"
    jobs = [[*overrides, f"worker.index={i}", f"worker.of={workers}", where] for i in range(workers)]
    done = launcher.launch(jobs, initial_job_idx=0)
    if failed := [ret for ret in done if ret.status != JobStatus.COMPLETED]:
        print(f"{len(failed)} of {workers} workers ended with an error: {failed[0]._return_value!r}")
