"""One training over several processes, a device each, with torch.distributed (nccl on GPUs, gloo on processors).

The calling process trains nothing itself. It starts the ranks, answers what the first of them asks the callback, and
returns that rank's result. All ranks end where the callback says so. A rank that fails ends the training with its
reason; a rank that is killed takes the calling process with it, as a kill of a training in one process does.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from src.config.settings import Recipe
from src.core import own_code, shutdown
from src.core.own_code import LoadedCode
from src.core.records import Calibration, Evaluation, StopDecision, TrainingResult
from src.training import trainer
from src.training.callbacks import Objective, TrainingCallback, TrainingFailed
from src.training.classifier_trainer import TokenizedData
from src.training.devices import forkserver_context
from src.training.failures import failure_reason
from src.training.pretrained import PretrainedModel

PRELOAD = ["src.training.distributed", "transformers.trainer"]
GRACE_SECONDS = 1.0  # to wait after a rank fails: another rank may have been killed, which would be the cause


def fine_tune(  # noqa: PLR0917
    devices: int,
    recipe: Recipe,
    checkpoint: PretrainedModel,
    data: TokenizedData,
    objective: Objective,
    callback: TrainingCallback,
    folder: Path,
) -> TrainingResult:
    """Train a classifier on `devices` devices, one process (rank) each; the arguments are those of `trainer.fine_tune`.

    The recipe's batch size is divided among the devices, so that settings mean the same as on one device. Every rank
    gets the same answers from `callback`. If a rank is killed, this process ends by the same signal, so that the
    study sees a killed worker.

    Raises:
        TrainingFailed: a rank failed; the message is that rank's.
    """
    if devices == 1:
        return trainer.fine_tune(recipe, checkpoint, data, objective, callback, folder)
    what = partial(trainer.fine_tune, recipe, checkpoint, data, objective, folder=folder)
    result: TrainingResult = _run_on_ranks(devices, bool(recipe.trainer.get("use_cpu")), what, callback)
    return result


def measure_speed(
    devices: int, recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, folder: Path
) -> Calibration:
    """As `trainer.measure_speed`, over so many devices."""
    if devices == 1:
        return trainer.measure_speed(recipe, checkpoint, data, folder)
    what = partial(_measure_speed, recipe, checkpoint, data, folder)
    calibration: Calibration = _run_on_ranks(devices, bool(recipe.trainer.get("use_cpu")), what, None)
    return calibration


def _measure_speed(
    recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, folder: Path, callback: TrainingCallback
) -> Calibration:
    del callback  # a measurement reports nothing
    return trainer.measure_speed(recipe, checkpoint, data, folder)


@dataclass(frozen=True)
class _Group:
    """What the ranks of one training share. `folder` is empty at first: they meet there and leave their errors."""

    devices: int
    backend: str
    threads: int  # of one rank
    folder: Path
    code: LoadedCode  # of the calling process

    def reason_file(self, rank: int) -> Path:
        return self.folder / f"reason-{rank}"


def _run_on_ranks(devices: int, use_cpu: bool, what: Callable[..., Any], callback: TrainingCallback | None) -> Any:
    """The first rank's result of `what(callback=...)`, which all ranks run together."""
    backend = "nccl" if torch.cuda.is_available() and not use_cpu else "gloo"
    context = forkserver_context(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        group = _Group(devices, backend, torch.get_num_threads(), Path(folder), own_code.loaded())
        ours, theirs = context.Pipe()
        ranks = start_processes(  # type: ignore[no-untyped-call]
            _run_rank, (theirs, what, group), devices, join=False, daemon=True, start_method=context.get_start_method()
        )
        theirs.close()
        try:
            return _answer_first_rank(ranks, ours, callback)
        except ProcessRaisedException as error:
            raise TrainingFailed(group.reason_file(error.error_index).read_text(encoding="utf-8")) from error
        except ProcessExitedException as error:
            raise TrainingFailed(f"a process of the training ended: {error.msg}") from error
        finally:
            for process in ranks.processes:
                process.kill()
                process.join()
            ours.close()


def _answer_first_rank(ranks: ProcessContext, pipe: Connection, callback: TrainingCallback | None) -> Any:
    """Make the callback's calls that the first rank asks for until all ranks have ended; returns its result.

    Raises:
        ProcessRaisedException: a rank raised an exception.
        ProcessExitedException: a rank ended by itself.
    """
    result, pipes = None, [pipe]
    while ranks.sentinels:
        if pipe not in wait([*pipes, *ranks.sentinels]):
            _die_with_killed_rank(ranks.processes)
            ranks.join(timeout=0, grace_period=0)
            continue
        try:
            message = pipe.recv()
        except (EOFError, ConnectionError):
            pipes.clear()  # the rank has ended; its exit code says how
            continue
        if isinstance(message, _Call):
            answer = getattr(callback, message.method)(*message.arguments)
            with suppress(ConnectionError):  # the rank has died since; its exit code says so
                pipe.send(answer)
        else:
            result = message
    return result


def _die_with_killed_rank(processes: Sequence[BaseProcess]) -> None:
    """If a rank was killed, end this process by the same signal.

    A rank that fails may have lost its connection to one that was killed, so a failure waits for a moment.
    """
    until = time.monotonic() + GRACE_SECONDS
    while any(process.exitcode for process in processes) and time.monotonic() < until:
        for process in processes:
            if (process.exitcode or 0) < 0:
                os.kill(os.getpid(), -(process.exitcode or 0))
        time.sleep(0.05)


# --- in a rank ---


@dataclass(frozen=True)
class _Call:
    """A call of the callback that the first rank asks for."""

    method: str
    arguments: tuple[object, ...]


def _run_rank(rank: int, pipe: Connection, what: Callable[..., Any], group: _Group) -> None:
    for number in (signal.SIGTERM, *shutdown.LAUNCHER_SIGNALS):
        signal.signal(number, signal.SIG_IGN)  # meant for the process that started the ranks; it stops them
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    of = {"WORLD_SIZE": str(group.devices), "LOCAL_WORLD_SIZE": str(group.devices)}
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), **of, "OMP_NUM_THREADS": str(group.threads)})
    torch.set_num_threads(group.threads)
    try:
        group.code.load()
        if group.backend == "nccl":
            torch.cuda.set_device(rank)
        torch.distributed.init_process_group(
            group.backend, init_method=f"file://{group.folder}/meeting", rank=rank, world_size=group.devices
        )
        result = what(callback=SynchronizedCallback(PipeCallback(pipe) if rank == 0 else None))
        torch.distributed.barrier()
    except Exception as error:
        group.reason_file(rank).write_text(failure_reason(error), encoding="utf-8")
        raise  # torch.multiprocessing hands the traceback on
    if rank == 0:
        pipe.send(result)
    torch.distributed.destroy_process_group()


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class PipeCallback(TrainingCallback):
    """Forwards every call through a pipe to the process that has the callback."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def _ask(self, method: str, *arguments: object) -> Any:
        self.pipe.send(_Call(method, arguments))
        return self.pipe.recv()

    def on_training_begins(self, built: Mapping[str, str]) -> None:
        """Forward the call."""
        self._ask("on_training_begins", built)

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Forward the call."""
        self._ask("on_log", step, values)

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        """Forward the call."""
        stop: StopDecision | None = self._ask("on_evaluation", evaluation)
        return stop

    def on_speed_measured(self, calibration: Calibration) -> None:
        """Forward the call."""
        self._ask("on_speed_measured", calibration)

    def on_checkpoint(self) -> None:
        """Forward the call."""
        self._ask("on_checkpoint")

    def should_stop(self, step: int) -> StopDecision | None:
        """Forward the call."""
        stop: StopDecision | None = self._ask("should_stop", step)
        return stop


class SynchronizedCallback(TrainingCallback):
    """Calls the callback on the first rank and gives every rank its answer; `first` is None on the others."""

    def __init__(self, first: TrainingCallback | None) -> None:
        self.first = first

    def on_training_begins(self, built: Mapping[str, str]) -> None:
        """Call it on the first rank."""
        if self.first is not None:
            self.first.on_training_begins(built)

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Call it on the first rank."""
        if self.first is not None:
            self.first.on_log(step, values)

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        """Call it on the first rank, and send its decision to all."""
        return _from_first(self.first.on_evaluation(evaluation) if self.first is not None else None)

    def on_speed_measured(self, calibration: Calibration) -> None:
        """Call it on the first rank."""
        if self.first is not None:
            self.first.on_speed_measured(calibration)

    def on_checkpoint(self) -> None:
        """Call it on the first rank."""
        if self.first is not None:
            self.first.on_checkpoint()

    def should_stop(self, step: int) -> StopDecision | None:
        """Call it on the first rank, and send its decision to all."""
        return _from_first(self.first.should_stop(step) if self.first is not None else None)


def _from_first(stop: StopDecision | None) -> StopDecision | None:
    from accelerate.utils import broadcast_object_list

    decisions: list[StopDecision | None] = broadcast_object_list([stop])
    return decisions[0]
