"""What a trial costs beyond its arithmetic.

    python -m benchmarks.trial --data <folder of SST-2's parquet files>

Three ways to train MiniLM on 1,000 SST-2 sentences, in processes of their own, in turn: Trialbook's whole trials
(training, evaluations, tracking, checkpoints); `benchmarks.bare` on the same batches with the same evaluations, saves,
precision and allocator; and the Trainer as a notebook sets it up. Each loads its model anew for each training. A second
run of Trialbook's trials has its parts timed, and the time from the command to the first step is taken on caches and
stores that exist.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks import common

EPOCHS, TRIALS = 2, 3
BATCH, EVAL_BATCH, RATE = 16, 64, 1e-4


# --- one process each ---


def bare(data: str | None, place: Path) -> dict[str, Any]:
    """PyTorch alone."""
    from benchmarks.bare import Setting, load, train
    from src.training import devices

    bf16 = devices.fast_precision(use_cpu=True) == "bf16"
    devices.keep_freed_memory()
    rows = common.tokenised(common.sentences(data), common.minilm())
    seconds, parts, tokens = [], [], 0
    for number in range(TRIALS):
        began = time.perf_counter()
        setting = Setting(RATE, EPOCHS, 0.01, 0.1, BATCH, EVAL_BATCH)
        model, judged = load(common.minilm(), 0.1, 42), [rows["validation"]] * 2
        result = train(model, setting, *rows["train"], judged, bf16=bf16, keep=place / str(number))
        seconds.append(time.perf_counter() - began)
        parts.append(result.clock.seconds)
        tokens = result.tokens
    return {"seconds": seconds, "parts": parts, "tokens": tokens}


def notebook(data: str | None, place: Path) -> dict[str, Any]:
    """Random order, texts padded to the longest of a map batch, an evaluation and a checkpoint each epoch."""
    import numpy as np
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    splits = common.sentences(data)
    tokenizer = AutoTokenizer.from_pretrained(common.minilm())
    cut = {
        name: Dataset.from_pandas(splits[name]).map(
            lambda rows: tokenizer(rows["sentence"], padding=True, truncation=True), batched=True
        )
        for name in ("train", "validation")
    }
    seconds = []
    for number in range(TRIALS):
        began = time.perf_counter()
        arguments = TrainingArguments(
            str(place / f"notebook-{number}"), num_train_epochs=EPOCHS, learning_rate=RATE, weight_decay=0.01,
            per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, eval_strategy="epoch",
            save_strategy="epoch", load_best_model_at_end=True, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            AutoModelForSequenceClassification.from_pretrained(common.minilm(), num_labels=2),
            arguments,
            train_dataset=cut["train"],
            eval_dataset=cut["validation"],
            compute_metrics=lambda p: {"accuracy": float((np.argmax(p.predictions, 1) == p.label_ids).mean())},
        )
        trainer.train()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def trialbook(data: str | None, place: Path, timed: bool = False) -> dict[str, Any]:
    """Whole trials of a study in this process."""
    from src.workers import timeline

    os.chdir(place)
    clock = Parts() if timed else None
    _study(overrides(data, "trials"), place)
    sheet = timeline.read_timeline(place / "mlruns" / "studies" / "trials")
    seconds = [entry.ended - entry.began for entry in sheet if entry.what.startswith("trial")]
    return {"seconds": seconds, **({"parts": clock.seconds} if clock else {})}


def parts(data: str | None, place: Path) -> dict[str, Any]:
    """Trialbook's trials with their parts timed."""
    return trialbook(data, place, timed=True)


KINDS: dict[str, Callable[[str | None, Path], dict[str, Any]]] = {
    "bare": bare, "trialbook": trialbook, "notebook": notebook, "parts": parts,
}  # fmt: skip


class Parts:
    """Seconds within the named calls, those of calls inside them taken out."""

    def __init__(self) -> None:
        import torch
        from accelerate import Accelerator
        from accelerate.optimizer import AcceleratedOptimizer
        from transformers import Trainer
        from transformers.trainer_callback import CallbackHandler

        from src.config import compose as config
        from src.search import trial_lifecycle
        from src.tracking.run_log import RunLog
        from src.training import callbacks, classifier_trainer
        from src.workers import search_worker

        self.seconds: dict[str, float] = {}
        self._inner = [0.0]
        for name, owner, call in (
            ("trial", search_worker.SearchWorker, "_run_trial"),
            ("compose", config, "compose_trial"),
            ("load", classifier_trainer, "build_classifier"),
            ("load", Trainer, "__init__"),
            ("data", Trainer, "get_batch_samples"),
            ("data", Trainer, "_prepare_inputs"),
            ("forward", Trainer, "compute_loss"),
            ("backward", Accelerator, "backward"),
            ("clip", Accelerator, "clip_grad_norm_"),
            ("optimizer", AcceleratedOptimizer, "step"),
            ("optimizer", torch.optim.lr_scheduler.LambdaLR, "step"),
            ("zero gradients", torch.nn.Module, "zero_grad"),
            ("judging", Trainer, "evaluate"),
            ("checkpoints", Trainer, "_save_checkpoint"),
            ("best weights", callbacks, "save_weights"),
            ("callbacks", CallbackHandler, "call_event"),
            ("study", trial_lifecycle, "report_score"),
            ("study", trial_lifecycle, "end_trial"),
            ("records", RunLog, "log_metrics"),
            ("records", RunLog, "set_tags"),
            ("records", RunLog, "log_params"),
            ("records", RunLog, "log_text"),
            ("MLflow", RunLog, "send_to"),
        ):
            setattr(owner, call, self._timed(name, getattr(owner, call)))

    def _timed(self, name: str, call: Any) -> Any:
        @wraps(call)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inner.pop()
                self._inner[-1] += took

        return wrapper


# --- Trialbook's side ---


def overrides(data: str | None, name: str) -> list[str]:
    where = [f"data.path={data}"] if data else []
    return [
        "data=sst2", *where, f"data.max_examples={{train: {common.TRAIN}}}", "model=minilm", "trainer=cpu",
        "pruner=none",
        f"model.learning_rate={RATE}", f"trainer.num_train_epochs={EPOCHS}", "space=empty",
        f"+space.optimizer.learning_rate={{low: {RATE / 2}, high: {RATE * 2}, log: true}}", "study.baselines=[]",
        "study.rung_examples=null",
        f"study.n_trials={TRIALS}", "workers=1", f"study.name={name}", "study.report=false",
    ]  # fmt: skip


def _study(asked: list[str], place: Path) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    import hydra_plugins.trialbook as plugins
    from src.config.groups import CONF_DIR
    from src.config.reader import read_settings
    from src.core.paths import Paths
    from src.workers import search_worker
    from src.workflows.sweep import plan, run

    plugins.register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("sweep", overrides=asked, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        settings = read_settings(composed, asked)
        paths = Paths(place)
        run.search(plan.check(settings, paths), lambda workers: search_worker.run_worker(settings, 0, workers, paths))


def _to_the_first_step(data: str | None, place: Path) -> list[float]:
    """Seconds from the command to the first training step: stores and caches are there from a first call."""
    result = []
    for number in range(4):
        name = f"start-{number}"
        began = time.time()
        command = [sys.executable, "-m", "src.sweep", "-m", *overrides(data, name), "trainer.logging_steps=1"]
        child = subprocess.Popen(
            [*command, "workers=2", "study.n_trials=2", "trainer.num_train_epochs=0.05"], cwd=place,
            env={**os.environ, "PYTHONPATH": str(common.HERE.parent)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        child.wait()
        boxes = (place / "mlruns" / "studies" / name / "trials").glob("*/run/outbox.jsonl")
        events = [json.loads(line) for box in boxes for line in box.read_text().splitlines()]
        result.append(min(e["time"] for e in events if "train/loss" in e.get("metrics", {})) / 1000 - began)
    return result[1:]


# --- all of them ---


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.parquet and validation.parquet; default: the Hub")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=KINDS, help="run one process of one kind, and print what it took")
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as place:
            print("\n" + json.dumps(KINDS[arguments.one](arguments.data, Path(place))))
        return
    rounds = [
        {kind: _child(kind, arguments.data) for kind in ("bare", "trialbook", "notebook")}
        for _ in range(arguments.rounds)
    ]
    timed = _child("parts", arguments.data)
    with tempfile.TemporaryDirectory() as place:
        starts = _to_the_first_step(arguments.data, Path(place))
    medians = [{kind: statistics.median(result["seconds"]) for kind, result in each.items()} for each in rounds]
    file = common.write(
        "trial",
        {
            "rounds": rounds,
            "parts": timed,
            "to_the_first_step": starts,
            "over_bare": [m["bare"] / m["trialbook"] for m in medians],
            "over_notebook": [m["notebook"] / m["trialbook"] for m in medians],
        },
    )
    print(file.read_text())


def _child(kind: str, data: str | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.trial", "--one", kind, *(["--data", data] if data else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
