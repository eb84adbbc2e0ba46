"""Processors, memory and GPUs of this machine, and each worker's share of them."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from src.core import shutdown
from src.core.errors import InvalidInput
from src.core.formatting import plural

WORKER_GIGABYTES = 2.0  # memory of a worker with a small model, including libraries and batches
MAX_WORKERS = 16  # with more, memory bandwidth limits the speed, not cores
TRIALS_PER_WORKER = 4  # trials per worker from which it pays that all wait for the default recipe's trial
SAFE_GPU_FRACTION = 0.85  # fraction of a GPU's memory that trainings on it may take together


@dataclass(frozen=True)
class Machine:
    """What trainings can share. If a training takes several devices, a core or GPU here stands for that many."""

    cores: int
    free_gigabytes: float
    gpus: int
    gpu_megabytes: float = 0.0  # memory of the smallest GPU, 10**6 bytes; 0 if not measured
    devices_per_trial: int = 1  # devices that one training takes


def compute_units(use_cpu: bool) -> int:
    """Processor threads, or GPUs, that this process and its ranks compute with."""
    import torch

    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return ranks * (1 if torch.accelerator.is_available() and not use_cpu else torch.get_num_threads())


def detect_machine(use_cpu: bool, each: int = 1) -> Machine:
    """Cores and free memory that this process may use (containers' limits included), and GPUs.

    CUDA is not started, because a worker is assigned its GPUs afterwards.

    Args:
        use_cpu: ignore GPUs.
        each: devices that one training takes.

    Raises:
        InvalidInput: if there are GPUs, but fewer than `each`.
    """
    import joblib
    import psutil

    gpus = 0
    if not use_cpu:
        import torch

        gpus = torch.cuda.device_count()
    if 0 < gpus < each:
        raise InvalidInput(
            f"worker.devices_per_trial is {each}, and torch finds {plural(gpus, 'GPU')} here; give each trial "
            f"1 to {gpus}, or let processors do it (trainer=cpu)."
        )
    cores = max(1, joblib.cpu_count() // each)
    return Machine(cores, psutil.virtual_memory().available / 1e9 / each, gpus // each, devices_per_trial=each)


def with_gpu_memory(machine: Machine) -> Machine:
    """The machine with its GPUs' memory. It starts CUDA on all of them, so no training process may call it."""
    import torch

    every = range(machine.gpus * machine.devices_per_trial)
    memory = min((torch.cuda.get_device_properties(i).total_memory / 1e6 for i in every), default=0.0)
    return replace(machine, gpu_megabytes=memory)


def default_worker_count(machine: Machine, n_trials: int) -> int:
    """Without measurements: one worker per GPU, or as many one-thread workers as cores and memory allow."""
    return max(1, min(machine.gpus or _max_workers(machine), n_trials))


def default_recipe_runs_alone(machine: Machine, workers: int, n_trials: int) -> bool:
    """Whether the default recipe's trial goes first, with all cores: if each worker has TRIALS_PER_WORKER trials."""
    return 1 < workers <= machine.cores and not machine.gpus and n_trials >= TRIALS_PER_WORKER * workers


def worker_counts_to_try(machine: Machine, n_trials: int) -> tuple[int, ...]:
    """Counts of workers worth measuring: 1, 2, 4, ... (per GPU), as cores, memory and trials allow."""
    most = max(1, min(_max_workers(machine), n_trials))
    first = min(max(1, machine.gpus), most)
    counts = [1, *(first << k for k in range(most.bit_length()) if first << k < most), most]
    return tuple(sorted(set(counts)))


def _max_workers(machine: Machine) -> int:
    return max(1, min(machine.cores, MAX_WORKERS, int(machine.free_gigabytes / WORKER_GIGABYTES)))


def fast_precision(use_cpu: bool) -> str:
    """The fastest precision of this machine that loses no accuracy: bf16 if its GPU or processor computes in it.

    Other GPUs get fp16, other processors fp32. A processor computes in bf16 if it has Intel's AMX, or AVX-512's bf16
    instructions (AMD since Zen 4). Without these, bf16 is slower than fp32.
    """
    import torch

    if torch.cuda.is_available() and not use_cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # older releases of torch do not have it
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if known.get("amx_bf16") or known.get("avx512_bf16") else "fp32"


def keep_freed_memory() -> None:
    """Keep memory that tensors free in this process, for the next tensors (GNU C library only).

    By default malloc returns blocks above 32 MiB to the system at once. The gradient of a word embedding is such a
    block: at every step the system would fill its pages with zeros again. If address space is limited (ulimit -v),
    malloc's default stays, because kept memory would be missing for a second attempt. Source: mallopt(3).
    """
    import ctypes

    most_mapped, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of <malloc.h>
    with suppress(AttributeError, ImportError, OSError, TypeError):  # another C library or operating system
        import resource

        scarce = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        library = ctypes.CDLL(None)
        library.mallopt(most_mapped, 1 << 16 if scarce else 0)
        library.mallopt(trim_threshold, 1 << 17 if scarce else 2**31 - 1)
        library.malloc_trim(0)  # memory kept by an earlier training may be too fragmented for this one


def set_threads(threads: int | None) -> int:
    """Use so many threads; None leaves them unchanged. Returns the number of threads."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread in the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_worker_share(index: int, of: int, machine: Machine, cpus: int | None = None) -> int:
    """Set the threads and GPUs of worker `index`. Returns its threads, per device if a training takes several.

    Args:
        index: of the worker, from 0.
        of: number of workers.
        machine: that they share.
        cpus: threads of this worker, instead of its share.
    """
    import torch

    threads = max(1, cpus // machine.devices_per_trial if cpus else machine.cores // of)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    if machine.gpus > 1:
        every = range(machine.gpus * machine.devices_per_trial)
        visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, every))).split(",")
        first = index % machine.gpus * machine.devices_per_trial
        # CUDA has not started yet
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[first : first + machine.devices_per_trial])
    return threads


def forkserver_context(preload: list[str]) -> Any:
    """The multiprocessing context that forks processes from one with `preload` imported; spawn where there is none.

    The fork server, its children and Python's resource tracker block SIGINT and SIGHUP: the process that started them
    handles Ctrl-C and a closed terminal.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, shutdown.LAUNCHER_SIGNALS)
    try:
        resource_tracker.ensure_running()  # it keeps the signal mask; starting it unblocks SIGINT here
        signal.pthread_sigmask(signal.SIG_BLOCK, shutdown.LAUNCHER_SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def four_bit_arguments(use_cpu: bool, precision: str, whole: Sequence[str]) -> dict[str, Any]:
    """Arguments of transformers' from_pretrained to hold weights in 4 bits, on a GPU or a processor.

    Args:
        use_cpu: also where there is a GPU.
        precision: of all that is not quantized, and of what is computed: bf16, fp16 or fp32.
        whole: modules that are not quantized.

    Source: Dettmers and others 2023, arXiv:2305.14314 (QLoRA).
    """
    import torch
    from transformers import BitsAndBytesConfig

    on_gpu = torch.cuda.is_available() and not use_cpu
    compute = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(whole),
    )
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    device = f"cuda:{rank}" if on_gpu else "cpu"
    return {"quantization_config": config, "dtype": compute, "device_map": {"": device}}
