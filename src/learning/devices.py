"""What this machine offers: processors, memory, GPUs, and what a training makes of them."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from src import drain
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
    gpu_megabytes: float = 0.0  # memory of the smallest GPU, 10**6 bytes; 0 where nobody has asked
    each: int = 1  # devices that one training takes


def hands(use_cpu: bool) -> int:
    """Threads of a processor, or GPUs, that compute what this process computes, its ranks' included."""
    import torch

    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return ranks * (1 if torch.accelerator.is_available() and not use_cpu else torch.get_num_threads())


def this_machine(use_cpu: bool, each: int = 1) -> Machine:
    """Cores and memory this process may use, containers' limits included; GPUs unless `use_cpu`.

    `each`: the devices that one training takes. CUDA is not started: a worker is given its GPUs after this. Raises
    Refusal where there are some GPUs, but not so many.
    """
    import joblib
    import psutil

    gpus = 0
    if not use_cpu:
        import torch

        gpus = torch.cuda.device_count()
    if 0 < gpus < each:
        raise Refusal(
            f"worker.devices_per_trial is {each}, and torch finds {gpus} GPU{'s' * (gpus != 1)} here; give each trial "
            f"1 to {gpus}, or let processors do it (trainer=cpu)."
        )
    cores = max(1, joblib.cpu_count() // each)
    return Machine(cores, psutil.virtual_memory().available / 1e9 / each, gpus // each, each=each)


def with_memory(machine: Machine) -> Machine:
    """The machine with its GPUs' memory. Not for a process that trains: it starts CUDA, on all of them."""
    import torch

    every = range(machine.gpus * machine.each)
    memory = min((torch.cuda.get_device_properties(i).total_memory / 1e6 for i in every), default=0.0)
    return replace(machine, gpu_megabytes=memory)


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

    A GPU without them gets fp16; a processor without them fp32. Units of a processor are Intel's AMX, or AVX-512's
    bf16 instructions, which AMD's have since Zen 4: without such, bf16 is slower than fp32 there.
    """
    import torch

    if torch.cuda.is_available() and not use_cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not tell
    return "bf16" if known.get("amx_bf16") or known.get("avx512_bf16") else "fp32"


def keep_freed_memory() -> None:
    """From now on this process keeps the memory that its tensors free, for the next ones; if the C library is GNU's.

    By itself malloc hands blocks of over 32 MiB back to the system at once: a word embedding's gradient goes and comes
    at every step, and the system fills each of its pages with zeros anew. Where address space is limited (ulimit -v),
    it stays so: what is kept would lack for the files and threads of an attempt with fewer examples at a time. The
    options are those of mallopt(3).
    """
    import ctypes

    most_mapped, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of <malloc.h>
    with suppress(AttributeError, ImportError, OSError, TypeError):  # another C library, another system
        import resource

        scarce = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        library = ctypes.CDLL(None)
        library.mallopt(most_mapped, 1 << 16 if scarce else 0)
        library.mallopt(trim_threshold, 1 << 17 if scarce else 2**31 - 1)
        library.malloc_trim(0)  # what was kept before may lie where this training cannot use it


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
    """The way to start processes: they fork from one that imports `preload` now, and nothing else; elsewhere anew.

    That process, what forks from it, and Python's tracker of semaphores do not hear of a closed terminal: whoever
    started them does, and asks them to stop.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(preload)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, drain.HANG_UP)
    try:
        forkserver.ensure_running()  # it starts the tracker as well; both keep the mask for life
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return made
