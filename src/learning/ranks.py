"""One training over several devices of this machine: a process (rank) for each, and one model among them.

The ranks train as the Trainer does under accelerate (torch's DistributedDataParallel: NCCL between GPUs, gloo between
processors). This process trains nothing itself: it starts them, is asked by the first of them what a watcher is asked,
and hears how it went.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from src import drain
from src.learning import finetune
from src.learning.checkpoints import Checkpoint
from src.learning.devices import forking
from src.learning.finetune import Lesson
from src.learning.judge import Goal, TrainingFailed, Watcher
from src.records import Calibration, Evaluation, Outcome, Stop
from src.settings import Recipe

PRELOAD = ["src.learning.ranks", "transformers.trainer"]
GRACE_SECONDS = 1.0  # between a rank's failure and the news that another was killed, which would explain it
ASKED, FAILED, DONE = "asked", "failed", "done"


def fine_tune(  # noqa: PLR0917
    devices: int, recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, goal: Goal, watcher: Watcher, folder: Path
) -> Outcome:
    """As `finetune.fine_tune`, over so many devices.

    The batches of the recipe are divided among them, so that settings mean what they mean on one device. Every rank
    hears the same orders. Raises TrainingFailed with the reason of a rank that failed. A rank that is killed takes
    this process with it, by the same signal: who looks after killed workers looks after this one.
    """
    if devices == 1:
        return finetune.fine_tune(recipe, checkpoint, lesson, goal, watcher, folder)
    what = partial(finetune.fine_tune, recipe, checkpoint, lesson, goal, folder=folder)
    found: Outcome = _together(devices, bool(recipe.trainer.get("use_cpu")), what, watcher)
    return found


def calibrate(devices: int, recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path) -> Calibration:
    """As `finetune.calibrate`, over so many devices."""
    if devices == 1:
        return finetune.calibrate(recipe, checkpoint, lesson, folder)
    what = partial(_calibrated, recipe, checkpoint, lesson, folder)
    found: Calibration = _together(devices, bool(recipe.trainer.get("use_cpu")), what, None)
    return found


def _calibrated(recipe: Recipe, checkpoint: Checkpoint, lesson: Lesson, folder: Path, watcher: Watcher) -> Calibration:
    del watcher  # nothing is reported of a measurement
    return finetune.calibrate(recipe, checkpoint, lesson, folder)


def _together(devices: int, use_cpu: bool, what: Callable[..., Any], watcher: Watcher | None) -> Any:
    """The first rank's result of `what(watcher=...)`, done by all of them together."""
    backend = "nccl" if torch.cuda.is_available() and not use_cpu else "gloo"
    threads = torch.get_num_threads()  # a rank's own, as the machine was shared out
    made = forking(PRELOAD)
    ranks: dict[Connection, BaseProcess] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for rank in range(devices):
                ours, theirs = made.Pipe()
                setting = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
                process = made.Process(
                    target=_rank, args=(theirs, what, setting, backend, threads, f"{scratch}/meeting"),
                    name=f"rank-{rank}", daemon=True,
                )  # fmt: skip
                process.start()
                theirs.close()
                ranks[ours] = process
            return _heard(ranks, watcher)
        finally:
            for pipe, process in ranks.items():
                process.kill()
                process.join()
                pipe.close()


def _heard(ranks: Mapping[Connection, BaseProcess], watcher: Watcher | None) -> Any:
    """Answer the first rank until all are done; its result."""
    speaking, result = dict(ranks), None
    while speaking:
        for pipe in wait(list(speaking)):
            assert isinstance(pipe, Connection)
            try:
                kind, *said = pipe.recv()
            except (EOFError, ConnectionError):
                kind, said = FAILED, ["a process of the training ended without a word", ""]
            if kind == ASKED:
                method, arguments = said
                answer = getattr(watcher, method)(*arguments)
                with suppress(ConnectionError):  # it has died since; that is heard next
                    pipe.send(answer)
            elif kind == FAILED:
                _fall_with_the_killed(ranks.values())
                reason, trace = said
                raise TrainingFailed(reason) from (RankFailed(trace) if trace else None)
            else:
                del speaking[pipe]
                result = said[0] if pipe is next(iter(ranks)) else result
    return result


class RankFailed(Exception):
    """Carries the traceback of a rank, as text."""


def _fall_with_the_killed(processes: Any) -> None:
    """If a rank was killed, be killed likewise."""
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        for process in processes:
            if (process.exitcode or 0) < 0:
                print(f"a process of the training was killed by signal {-process.exitcode}, and its worker with it")
                os.kill(os.getpid(), -process.exitcode)
        time.sleep(0.05)


# --- in a rank ---


def _rank(
    pipe: Connection, what: Callable[..., Any], setting: Mapping[str, int], backend: str, threads: int, meeting: str
) -> None:
    for number in (signal.SIGTERM, *drain.LAUNCHERS):
        signal.signal(number, signal.SIG_IGN)  # meant for the process that is asked; it answers for all
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update({**{key: str(value) for key, value in setting.items()}, "OMP_NUM_THREADS": str(threads)})
    torch.set_num_threads(threads)
    rank, of = setting["RANK"], setting["WORLD_SIZE"]
    try:
        if backend == "nccl":
            torch.cuda.set_device(rank)
        torch.distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=of)
        result = what(watcher=Agreed(Asking(pipe) if rank == 0 else None))
        torch.distributed.barrier()
    except Exception as error:  # told to the process that waits
        pipe.send((FAILED, finetune.failure_reason(error), traceback.format_exc()))
        os._exit(1)  # the others may still wait for this rank: nothing can be ended in order
    pipe.send((DONE, result if rank == 0 else None))
    torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Asking:
    """The watcher, at the other end of a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def _ask(self, method: str, *arguments: object) -> Any:
        self.pipe.send((ASKED, method, arguments))
        return self.pipe.recv()

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        self._ask("curve", step, values)

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        stop: Stop | None = self._ask("evaluated", evaluation)
        return stop

    def timed(self, found: Calibration) -> None:
        self._ask("timed", found)

    def saved(self) -> None:
        self._ask("saved")

    def asked_to_stop(self, step: int, /) -> Stop | None:
        stop: Stop | None = self._ask("asked_to_stop", step)
        return stop


class Agreed:
    """What the first rank's watcher says, on every rank; `first` is None on the others."""

    def __init__(self, first: Watcher | None) -> None:
        self.first = first

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        if self.first is not None:
            self.first.curve(step, values)

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        return _from_first(self.first.evaluated(evaluation) if self.first is not None else None)

    def timed(self, found: Calibration) -> None:
        if self.first is not None:
            self.first.timed(found)

    def saved(self) -> None:
        if self.first is not None:
            self.first.saved()

    def asked_to_stop(self, step: int, /) -> Stop | None:
        return _from_first(self.first.asked_to_stop(step) if self.first is not None else None)


def _from_first(stop: Stop | None) -> Stop | None:
    from accelerate.utils import broadcast_object_list

    heard: list[Stop | None] = broadcast_object_list([stop])
    return heard[0]
