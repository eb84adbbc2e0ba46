"""The local launcher's work: worker processes that share their imports, watched, and replaced when killed."""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from src import drain
from src.learning.devices import forking

PRELOAD = [
    "src.runner.worker",
    "src.runner.repeats",
    "mlflow",
    "transformers.trainer",
    "hydra_plugins.trialbook._parting",  # last: the others register what is to be done at the end, too
]  # imported once, in the process that all workers fork from


def warm_up() -> None:
    """Start those imports now, beside whatever the launching process does next."""
    forking(PRELOAD)


def launch(
    hydra_context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
    most_replacements: int,
) -> Sequence[JobReturn]:
    """Run the jobs at once and wait for all. A job whose process is killed is started again, the others go on."""
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    made = forking(PRELOAD)
    payload = cloudpickle.dumps((hydra_context, task, config, Singleton.get_state()))

    def start(index: int) -> BaseProcess:
        process: BaseProcess = made.Process(
            target=_run,
            args=(payload, list(job_overrides[index]), initial_job_idx + index),
            name=f"worker-{index}",
        )
        process.start()
        return process

    running = {index: start(index) for index in range(len(job_overrides))}
    replaced = dict.fromkeys(running, 0)
    codes: dict[int, int] = {}
    with _Signals(running) as signals:
        while running:
            wait([p.sentinel for p in running.values()])
            for index, process in list(running.items()):
                if process.exitcode is None:
                    continue
                del running[index]
                if process.exitcode < 0 and not signals.seen and replaced[index] < most_replacements:
                    replaced[index] += 1
                    print(f"worker {index} was killed by signal {-process.exitcode}; another takes its place")
                    running[index] = start(index)
                else:
                    codes[index] = process.exitcode
    if signals.seen:
        raise KeyboardInterrupt
    return [_returned(codes[i], overrides) for i, overrides in enumerate(job_overrides)]


class _Signals:
    """Ctrl-C, SIGTERM or a closed terminal once: workers stop at a safe point. Twice: they are killed; what they saved
    is continued."""

    def __init__(self, running: dict[int, BaseProcess]) -> None:
        self.running, self.seen = running, 0

    def __enter__(self) -> "_Signals":
        heeded = drain.heeded(signal.SIGTERM, *drain.LAUNCHERS)
        self.before = {number: signal.signal(number, self._heard) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _heard(self, _signal: int, _frame: object) -> None:
        self.seen += 1
        if self.seen == 1:
            with suppress(OSError):  # the terminal may be gone
                print("\nStopping: workers finish their step and save where they are. Once more: at once.", flush=True)
        for process in list(self.running.values()):
            if self.seen == 1:
                process.terminate()
            else:
                process.kill()


def _returned(code: int, overrides: Sequence[str]) -> JobReturn:
    ok = code == 0
    return JobReturn(
        overrides=list(overrides),
        status=JobStatus.COMPLETED if ok else JobStatus.FAILED,
        _return_value=None if ok else RuntimeError(f"a worker ended with exit code {code}"),
    )


def _run(payload: bytes, overrides: list[str], index: int) -> None:
    """In the worker's process: compose the job's config and run the task, as Hydra does."""
    from src import drain

    drain.listen()
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
    except Exception:
        import traceback

        traceback.print_exc()
        sys.exit(1)
