"""The local launcher's work: worker processes that share their imports, watched, and replaced when killed."""

import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from src.console import error_messages
from src.core import messages, shutdown
from src.core.messages import notify
from src.training.devices import forkserver_context

PRELOAD = [
    "src.workers.search_worker",
    "src.workers.comparison_worker",
    "mlflow",
    "transformers.trainer",
    "src.workers.forkserver_setup",  # last, so that its atexit handler runs first
]  # imported once, in the process that all workers fork from


def warm_up() -> None:
    """Start those imports now, beside whatever the launching process does next."""
    forkserver_context(PRELOAD)


def launch(
    hydra_context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
    most_replacements: int,
) -> Sequence[JobReturn]:
    """Run the jobs at the same time and wait for all. A job whose process is killed is started again.

    Args:
        hydra_context: of the command.
        task: Hydra's task function.
        config: of the command.
        job_overrides: of each job.
        initial_job_idx: number of the first job.
        most_replacements: how often a killed job is started again.

    Returns:
        Hydra's result of each job.
    """
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    processes = forkserver_context(PRELOAD)
    payload = cloudpickle.dumps((hydra_context, task, config, Singleton.get_state()))

    inbox: set[Connection] = set()

    def start(index: int) -> BaseProcess:
        receiver, sender = processes.Pipe(duplex=False)
        process: BaseProcess = processes.Process(
            target=_run_job,
            args=(payload, list(job_overrides[index]), initial_job_idx + index, sender),
            name=f"worker-{index}",
        )
        process.start()
        sender.close()
        inbox.add(receiver)
        return process

    running = {index: start(index) for index in range(len(job_overrides))}
    replaced = dict.fromkeys(running, 0)
    codes: dict[int, int] = {}
    with _SignalHandler(running) as signals:
        while running:
            for ready in wait([*inbox, *(p.sentinel for p in running.values())]):
                if isinstance(ready, Connection) and not messages.forward(ready):
                    inbox.discard(ready)
            for index, process in list(running.items()):
                if process.exitcode is None:
                    continue
                del running[index]
                if process.exitcode < 0 and not signals.seen and replaced[index] < most_replacements:
                    replaced[index] += 1
                    notify(f"worker {index} was killed by signal {-process.exitcode}; another takes its place")
                    running[index] = start(index)
                else:
                    codes[index] = process.exitcode
    while inbox:  # what workers sent last
        inbox = {connection for connection in inbox if messages.forward(connection)}
    if signals.seen:
        raise KeyboardInterrupt
    return [_job_return(codes[i], overrides) for i, overrides in enumerate(job_overrides)]


class _SignalHandler:
    """Passes Ctrl-C, SIGTERM and SIGHUP on to the workers.

    After the first signal they stop at a safe point; after the second they are killed.
    """

    def __init__(self, running: dict[int, BaseProcess]) -> None:
        self.running, self.seen = running, 0

    def __enter__(self) -> "_SignalHandler":
        handled = shutdown.not_ignored(signal.SIGTERM, *shutdown.LAUNCHER_SIGNALS)
        self.before = {number: signal.signal(number, self._on_signal) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _on_signal(self, _signal: int, _frame: object) -> None:
        self.seen += 1
        if self.seen == 1:
            notify("\nStopping: workers finish their step and save where they are. Once more: at once.", important=True)
        for process in list(self.running.values()):
            if self.seen == 1:
                process.terminate()
            else:
                process.kill()


def _job_return(code: int, overrides: Sequence[str]) -> JobReturn:
    job_return = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED if code == 0 else JobStatus.FAILED)
    job_return.return_value = None if code == 0 else RuntimeError(f"a worker ended with exit code {code}")
    return job_return


def _run_job(payload: bytes, overrides: list[str], index: int, sender: Connection) -> None:
    """In the worker's process: compose the job's config and run the task, as Hydra does."""
    messages.send_to_launcher(sender)
    shutdown.listen_for_signals()
    hydra_context, task, config, state = cloudpickle.loads(payload)
    setup_globals()
    Singleton.set_state(state)
    composed = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = f"{composed.hydra.job.name}_{index}"
        composed.hydra.job.num = index
    HydraConfig.instance().set_config(composed)
    done = run_job(
        hydra_context=hydra_context,
        config=composed,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    try:
        _ = done.return_value
    except Exception as error:
        notify(f"worker {index} ended: {error_messages.explain(error).strip()}", important=True)
        sys.exit(1)
