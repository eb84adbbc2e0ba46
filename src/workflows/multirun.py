"""What the sweeper does: it turns a command line into jobs, checks each, and starts the workers of each."""

import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from src.core.paths import Paths
    from src.workflows.compare.plan import ComparisonPlan

Launch = Callable[..., int]
"""Starts so many workers, with further overrides, waits for them, and returns how many failed."""


@dataclass(frozen=True)
class Job:
    """One study or comparison of the command line: its overrides, and the config that they compose."""

    overrides: Sequence[str]
    config: DictConfig


def compose_jobs(context: HydraContext, config: DictConfig, arguments: Sequence[str]) -> list[Job]:
    """A job for every combination of the values on the command line, in the order in which they are written.

    Raises:
        HydraException: Hydra cannot compose a job.
    """
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    combinations = itertools.product(*map(_values, parsed))
    from src.config import compose

    jobs = []
    for overrides in combinations:
        job = context.config_loader.load_sweep_config(config, list(overrides))
        resolved = compose.resolve_times(overrides, job)
        jobs.append(Job(resolved, context.config_loader.load_sweep_config(config, resolved)))
    return jobs


def _values(override: Override) -> list[str]:
    """The override as text: one string for each value that it lists."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]  # as it was typed
    if not override.is_discrete_sweep():
        raise HydraException(
            f"{override.input_line}: an interval is not a list of values. To search a range, put it into space."
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def run(context: HydraContext, task: TaskFunction, jobs: Sequence[Job], command: str) -> None:
    """Check all jobs, then run them one after another.

    Args:
        context: Hydra's.
        task: Hydra's task function, which is one worker.
        jobs: of the command line.
        command: search or compare.

    Raises:
        InvalidInput: a job is invalid; no worker has started then.
    """
    from src.core.paths import Paths

    paths = Paths(Path.cwd())
    if command == "search":
        jobs = [_with_joined_study(context, job, paths) for job in jobs]
    for job, do in zip(jobs, COMMANDS[command](jobs, paths), strict=True):
        HydraConfig.instance().set_config(job.config)
        do(partial(_launch, context, task, job, paths.root))


def _with_joined_study(context: HydraContext, job: Job, paths: "Paths") -> Job:
    """The job with the overrides of the study that it joins in front of its own; unchanged if it joins none."""
    if not job.config.study.get("join"):
        return job
    from src.config import reader
    from src.workflows import join

    HydraConfig.instance().set_config(job.config)
    overrides = join.joined_overrides(reader.read_settings(job.config, job.overrides), paths, job.overrides)
    return Job(overrides, context.config_loader.load_sweep_config(job.config, overrides))


def _search(jobs: Sequence[Job], paths: "Paths") -> list[Callable[[Launch], object]]:
    """Check all jobs. Returns a function per job that runs its study, or adds workers to one that is being searched."""
    from src.config import reader
    from src.workflows import join
    from src.workflows.sweep import plan as plans
    from src.workflows.sweep import run as sweep

    planned: list[plans.SweepPlan] = []
    todo: list[Callable[[Launch], object]] = []
    for job in jobs:
        HydraConfig.instance().set_config(job.config)
        settings = reader.read_settings(job.config, job.overrides)
        if settings.study.join:
            todo.append(partial(join.join, settings))
            continue
        planned.append(plans.plan_sweep(settings, paths))
        todo.append(partial(sweep.search, planned[-1]))
    plans.refuse_shared_names(planned)
    return todo


def _compare(jobs: Sequence[Job], paths: "Paths") -> list[Callable[[Launch], object]]:
    """Plan all comparisons. Returns a function per job that runs its comparison."""
    from src.config import reader
    from src.workflows.compare import run as comparison
    from src.workflows.compare.plan import plan_comparison

    planned = [plan_comparison(reader.read_comparison_settings(job.config), paths) for job in jobs]

    def compare(plan: "ComparisonPlan", launch: Launch) -> None:
        comparison.compare(plan, lambda workers, *more: launch(workers, f"study.name={plan.saved_study.name}", *more))

    return [partial(compare, plan) for plan in planned]


COMMANDS: dict[str, Callable[..., list[Callable[[Launch], object]]]] = {"search": _search, "compare": _compare}


def _launch(context: HydraContext, task: TaskFunction, job: Job, root: Path, workers: int, *overrides: str) -> int:
    """Start `workers` Hydra jobs, one worker each, with the config's launcher. Returns how many failed."""
    from src.config import compose
    from src.core.errors import first_line
    from src.core.messages import notify

    HydraConfig.instance().set_config(job.config)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=job.config)
    OmegaConf.set_readonly(job.config.hydra, None)
    shared = [*job.overrides, *overrides, *compose.to_overrides({"worker.root": str(root.resolve())})]
    jobs = [[*shared, f"worker.index={i}", f"worker.of={workers}"] for i in range(workers)]
    try:
        returned = launcher.launch(jobs, initial_job_idx=0)
    except Exception as error:  # the launcher's own errors; what the workers have done is in the study
        notify(
            f"the launcher {type(launcher).__name__} gave up: {type(error).__name__}: {first_line(error)}",
            important=True,
        )
        return workers
    failed = [job_return for job_return in returned if job_return.status != JobStatus.COMPLETED]
    if failed:
        notify(f"{len(failed)} of {workers} workers ended with an error: {_error_of(failed[0])!r}", important=True)
    return len(failed)


def _error_of(failed: JobReturn) -> Exception | None:
    """The exception of a failed job. Reading the return value makes Hydra raise it again and print to stderr."""
    try:
        with redirect_stderr(io.StringIO()):
            _ = failed.return_value
    except Exception as error:
        return error
    return None
