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

Todo = Callable[[Callable[..., int]], object]  # given a way to start workers, does it


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
        if verb == "search":
            for i, made in enumerate(composed):
                if made.study.get("join"):
                    each[i] = _with_study(made, each[i], paths)
                    composed[i] = context.config_loader.load_sweep_config(config, each[i])
        for todo, overrides, made in zip(VERBS[verb](composed, each, paths), each, composed, strict=True):

            def launch(workers: int, *more: str, overrides: Sequence[str] = overrides, made: DictConfig = made) -> int:
                HydraConfig.instance().set_config(made)
                return _launch(context, task, made, [*overrides, *more], workers, paths.root)

            HydraConfig.instance().set_config(made)
            todo(launch)


def _with_study(made: DictConfig, overrides: Sequence[str], paths: "Paths") -> list[str]:
    """The overrides, after those of the study that is to be joined."""
    from src import config
    from src.runner import joining

    HydraConfig.instance().set_config(made)
    return joining.overrides(config.settings_from(made, overrides), paths, overrides)


def _search(composed: Sequence[DictConfig], overrides: Sequence[Sequence[str]], paths: "Paths") -> list[Todo]:
    """A study for each combination of values on the command line."""
    from src import config
    from src.runner import joining, searching
    from src.runner import plan as planning

    plans: list[planning.Plan] = []
    todo: list[Todo] = []
    for made, own in zip(composed, overrides, strict=True):
        HydraConfig.instance().set_config(made)
        settings = config.settings_from(made, own)
        if settings.study.join:
            todo.append(partial(joining.join, settings))
            continue
        plans.append(planning.check(settings, paths))
        todo.append(partial(searching.search, plans[-1]))
    planning.refuse_shared_names(plans)
    return todo


def _compare(composed: Sequence[DictConfig], _: Sequence[Sequence[str]], paths: "Paths") -> list[Todo]:
    """A comparison for each study named."""
    from src import config
    from src.runner import comparing

    plans = [comparing.check(config.comparison_from(made), paths) for made in composed]
    return [partial(_compared, plan) for plan in plans]


def _compared(plan: "ComparePlan", launch: Callable[..., int]) -> None:
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
) -> int:
    """One batch of jobs, a worker each, with whatever launcher the config names; how many ended with an error."""
    from src import config as configs
    from src.errors import first_line

    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    OmegaConf.set_readonly(config.hydra, None)
    where = configs.as_overrides({"worker.root": str(root.resolve())})
    jobs = [[*overrides, f"worker.index={i}", f"worker.of={workers}", *where] for i in range(workers)]
    try:
        done = launcher.launch(jobs, initial_job_idx=0)
    except Exception as error:  # of the launcher itself; what the workers have done is in the study
        print(f"the launcher {type(launcher).__name__} gave up: {type(error).__name__}: {first_line(error)}")
        return workers
    if failed := [ret for ret in done if ret.status != JobStatus.COMPLETED]:
        print(f"{len(failed)} of {workers} workers ended with an error: {failed[0]._return_value!r}")
    return len(failed)
