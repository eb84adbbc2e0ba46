"""What this machine offers: processors, memory, GPUs, and what a training makes of them."""

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.errors import Refusal

WORKER_GIGABYTES = 2.0  # a worker with a small model, libraries and batches included
MOST_WORKERS = 16  # beyond, memory bandwidth rather than cores is short
TRIALS_EACH = 4  # with so many trials for each worker, they may wait for the default recipe's
SAFE_SHARE = 0.85  # of a GPU's memory, that trainings packed on it may take together


@dataclass(frozen=True)
class Machine:
    """What trainings can share out: where one takes several devices, a core or a GPU here stands for so many."""

    cores: int
    free_gigabytes: float
    gpus: int
    gpu_megabytes: float = 0.0  # memory of the smallest GPU, 10**6 bytes
    each: int = 1  # devices that one training takes


def hands(use_cpu: bool) -> int:
    """Threads of a processor, or GPUs, that compute what this process computes, its ranks' included."""
    import torch

    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return ranks * (1 if torch.accelerator.is_available() and not use_cpu else torch.get_num_threads())


def this_machine(use_cpu: bool, each: int = 1) -> Machine:
    """Cores and memory this process may use, containers' limits included; GPUs unless `use_cpu`.

    `each`: the devices that one training takes. Raises Refusal where there are some GPUs, but not so many.
    """
    import joblib
    import psutil

    gpus, memory = 0, 0.0
    if not use_cpu:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        memory = min((torch.cuda.get_device_properties(i).total_memory / 1e6 for i in range(gpus)), default=0.0)
    if 0 < gpus < each:
        raise Refusal(
            f"worker.devices_per_trial is {each}, and torch finds {gpus} GPU{'s' * (gpus != 1)} here; give each trial "
            f"1 to {gpus}, or let processors do it (trainer=cpu)."
        )
    cores = max(1, joblib.cpu_count() // each)
    return Machine(cores, psutil.virtual_memory().available / 1e9 / each, gpus // each, memory, each)


def workers_that_pay(machine: Machine, n_trials: int) -> int:
    """Unmeasured: one worker per GPU; without one, as many one-thread workers as cores and memory allow."""
    return max(1, min(machine.gpus or _room(machine), n_trials))


def default_alone(machine: Machine, workers: int, n_trials: int) -> bool:
    """Whether the default recipe goes first, with every core to itself: where that costs the other workers little."""
    return 1 < workers <= machine.cores and not machine.gpus and n_trials >= TRIALS_EACH * workers


def counts_to_try(machine: Machine, n_trials: int) -> tuple[int, ...]:
    """Counts of workers worth measuring: doubling from one (per GPU), as cores, memory and trials allow."""
    most = max(1, min(_room(machine), n_trials))
    first = min(max(1, machine.gpus), most)
    counts = [1, *(first << k for k in range(most.bit_length()) if first << k < most), most]
    return tuple(sorted(set(counts)))


def _room(machine: Machine) -> int:
    return max(1, min(machine.cores, MOST_WORKERS, int(machine.free_gigabytes / WORKER_GIGABYTES)))


def fast_precision(use_cpu: bool) -> str:
    """What this machine trains fastest in without losing accuracy: bf16 where a GPU or processor has units for it.

    A GPU without them gets fp16; a processor without them fp32. Units of a processor are Intel's AMX: without such,
    bf16 is slower than fp32 there.
    """
    import torch

    if torch.cuda.is_available() and not use_cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not tell
    return "bf16" if known.get("amx_bf16") else "fp32"


def use_threads(threads: int | None) -> int:
    """Compute with so many threads, as a recorded training did; None leaves it as it is. Returns the threads."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def use_share(index: int, of: int, machine: Machine, cpus: int | None = None) -> int:
    """Take worker `index`'s share of the machine: its threads, and its GPUs where there are any. Returns the threads.

    They are the threads of one device where a training takes several. `cpus`: those of the worker, where they are not
    to be the machine's shared out.
    """
    import torch

    threads = max(1, cpus // machine.each if cpus else machine.cores // of)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    if machine.gpus > 1:
        every = range(machine.gpus * machine.each)
        visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, every))).split(",")
        first = index % machine.gpus * machine.each
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[first : first + machine.each])  # CUDA has not started yet
    return threads


def forking(preload: list[str]) -> Any:
    """The way to start processes: they fork from one that has imported `preload`, and nothing else; elsewhere anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(preload)
    return made
