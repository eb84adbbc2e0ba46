"""What the peers' scripts share; needs pandas, torch and transformers only, and knows nothing of Trialbook."""

import argparse
import ast
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RECIPE = json.loads(os.environ.get("PEER_RECIPE", "null"))  # in place of the space: one point, and its warm-up
RANGES = {"learning_rate": (1e-5, 1e-3), "weight_decay": (0.0, 0.1), "num_train_epochs": (1, 4), "dropout": (0.0, 0.3)}
if RECIPE:
    RANGES = {name: (RECIPE[name], RECIPE[name]) for name in RANGES}
BATCH, EVAL_BATCH = 16, 64
METRIC = "eval_accuracy"


def arguments() -> argparse.Namespace:
    """The command line that every script takes."""
    parser = argparse.ArgumentParser()
    for name in ("data", "model", "place", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--began", type=float, required=True, help="time.time() when the command was given")
    return parser.parse_args()


def note(asked: argparse.Namespace, value: float, settings: dict[str, Any]) -> None:
    """A finished trial: seconds since the command, its validation accuracy, its settings."""
    line = {"elapsed": time.time() - asked.began, "value": float(value), "settings": settings}
    with asked.out.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


class Listener(logging.Filter):
    """Where a peer keeps its Optuna study to itself: Optuna's log says when a trial ended, and how."""

    def __init__(self, asked: argparse.Namespace, **fixed: Any) -> None:
        super().__init__()
        self.asked, self.fixed = asked, fixed

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "finished with value: " in message:
            value = float(message.split("finished with value: ")[1].split(" ", 1)[0])
            parameters = ast.literal_eval(message.split("parameters: ")[1].split("}. ")[0].rstrip(".}") + "}")
            note(self.asked, value, plain({**parameters, **self.fixed}))
        return True


def listen(asked: argparse.Namespace, **fixed: Any) -> None:
    """Note every trial of this process's Optuna study; `fixed`: settings that it does not search."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.INFO)
    logging.getLogger("optuna.study.study").addFilter(Listener(asked, **fixed))


def data(asked: argparse.Namespace) -> dict[str, pd.DataFrame]:
    return {split: pd.read_parquet(asked.data / f"{split}.parquet") for split in ("train", "validation")}


def tokenised(asked: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The tokenizer, and the splits as the documentation's text classification guide makes them."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    cut = {
        split: Dataset.from_pandas(frame).map(lambda rows: tokenizer(rows["sentence"], truncation=True), batched=True)
        for split, frame in data(asked).items()
    }
    return tokenizer, cut


def model(asked: argparse.Namespace, dropout: float) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        asked.model,
        num_labels=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        classifier_dropout=dropout,
    )


def training_arguments(asked: argparse.Namespace, **more: Any) -> Any:
    """As the guide has them: an evaluation each epoch."""
    from transformers import TrainingArguments

    return TrainingArguments(
        str(asked.place),
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=EVAL_BATCH,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=asked.seed,
        **({"warmup_steps": RECIPE["warmup"]} if RECIPE else {}),
        **more,
    )


def accuracy(answers: Any) -> dict[str, float]:
    return {"accuracy": float((np.argmax(answers.predictions, 1) == answers.label_ids).mean())}


def plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """A trial's settings under the names of `benchmarks.bare.Setting`; peers have no warm-up unless told to."""
    names = ("learning_rate", "num_train_epochs", "weight_decay", "dropout")
    return {"warmup": RECIPE["warmup"] if RECIPE else 0.0, **{k: parameters[k] for k in names}}
