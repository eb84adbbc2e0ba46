"""Checkpoints, metrics, fine-tuning and baselines. Reports to a TrainingCallback; knows neither study nor MLflow."""

import logging
import os
from pathlib import Path

from src.core import environment

environment.clear_variables()
environment.use_writable_caches(Path.cwd() / "mlruns" / "cache")
# Read by the libraries when they are imported: no progress bars, no advice, no threads in forked tokenizers.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)  # it warns of kernels that only make it faster
# Counting GPUs must not start CUDA, because a worker is assigned its GPU afterwards.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
