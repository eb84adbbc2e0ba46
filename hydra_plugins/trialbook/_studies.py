"""The sweeper's work: from a command line to checked studies, and each study to its workers."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


def run(context: HydraContext, task: TaskFunction, config: DictConfig, arguments: Sequence[str]) -> list[JobReturn]:
    """Check every study first, then run them one after another. Refusals end the command before any worker starts."""
    from hydra_plugins.trialbook import _processes

    _processes.warm_up()
    from src import config as configs
    from src import plan as planning
    from src import runner
    from src.commands import answered
    from src.paths import Paths

    paths = Paths(Path.cwd())
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    studies = BasicSweeper.split_arguments(parsed, None)[0]
    with answered():
        plans = []
        for overrides in studies:
            composed = context.config_loader.load_sweep_config(config, list(overrides))
            HydraConfig.instance().set_config(composed)
            plans.append((planning.check(configs.settings_from(composed, overrides), paths), composed, overrides))
        planning.refuse_shared_names([plan for plan, _, _ in plans])
        returns: list[JobReturn] = []
        for plan, composed, overrides in plans:

            def launch(workers: int, overrides: Sequence[str] = overrides, composed: DictConfig = composed) -> None:
                returns.extend(_launch(context, task, composed, overrides, workers, paths.root))

            runner.search(plan, launch)
    return returns


def _launch(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    overrides: Sequence[str],
    workers: int,
    root: Path,
) -> Sequence[JobReturn]:
    """One batch of jobs, a worker each, with whatever launcher the config names."""
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    OmegaConf.set_readonly(config.hydra, None)
    where = f"worker.root='{root.resolve()}'"
    jobs = [[*overrides, f"worker.index={i}", f"worker.of={workers}", where] for i in range(workers)]
    done = launcher.launch(jobs, initial_job_idx=0)
    if failed := [ret for ret in done if ret.status != JobStatus.COMPLETED]:
        print(f"{len(failed)} of {workers} workers ended with an error: {failed[0]._return_value!r}")
    return done
