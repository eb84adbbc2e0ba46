"""Checkpoints, metrics, fine-tuning and baselines. Knows no study and no tracker: what happens goes to a Watcher."""

import os

# Read by the libraries when they are imported: no bars and no advice on the terminal, no forked tokenizer threads.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Counting GPUs must not start CUDA: a worker chooses its own one afterwards.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
