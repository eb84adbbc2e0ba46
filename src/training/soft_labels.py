"""Texts whose labels are probabilities: what a student learns of its teachers.

Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from src.core.paths import replacing
from src.core.task import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from src.core.texts import Text, columns_of, texts_of
from src.data.tokenization import encode
from src.training.classifier_trainer import TokenizedData

PROBABILITY_FLOOR = 1e-6


def write_soft_labels(
    file: Path, texts: Sequence[Text], probabilities: np.ndarray, temperature: float, kind: str = SINGLE_LABEL
) -> None:
    """Write texts with their soft labels.

    Args:
        file: Parquet, with the columns text, text_pair (of pairs) and label.
        texts: [n_texts].
        probabilities: of the teachers, [n_texts, n_labels].
        temperature: above 1 makes them softer, below 1 sharper: p ** (1 / temperature), scaled to a sum of 1; of
            several labels each for itself, p and 1 - p to a sum of 1.
        kind: of the task. The numbers of a regression are written as they are.
    """
    exact = probabilities.astype(np.float64)
    if kind == REGRESSION:
        _write(file, texts, exact)
        return
    soft = np.clip(exact, PROBABILITY_FLOOR, None) ** (1 / temperature)
    without = np.clip(1 - exact, PROBABILITY_FLOOR, None) ** (1 / temperature)
    soft /= soft + without if kind == MULTI_LABEL else soft.sum(axis=1, keepdims=True)
    _write(file, texts, soft)


def _write(file: Path, texts: Sequence[Text], labels: np.ndarray) -> None:
    with replacing(file) as scratch:
        frame = pd.DataFrame({**columns_of(texts), "label": [row.tolist() for row in labels]})
        frame.to_parquet(scratch, index=False)


def add_soft_labels(data: TokenizedData, file: Path) -> TokenizedData:
    """`data` with the texts of `file` in train. The labels of all texts of train are then probabilities, [n_labels]."""
    frame, n_labels = pd.read_parquet(file), len(data.label_names)
    columns = encode(data.tokenizer, texts_of(frame), data.tokenizer.model_max_length)
    soft = np.stack(frame["label"].to_list()).astype(np.float32)
    taught = _with_labels(columns, soft)
    known = {name: data.train[name][:] for name in columns}
    labels = np.asarray(data.train["labels"][:])
    if data.task.is_regression:
        return replace(
            data, train=datasets.concatenate_datasets([_with_labels(known, labels), _with_labels(columns, soft[:, 0])])
        )
    hard = labels.astype(np.float32) if data.task.has_several_labels else np.eye(n_labels, dtype=np.float32)[labels]
    return replace(data, train=datasets.concatenate_datasets([_with_labels(known, hard), taught]))


def _with_labels(columns: dict[str, list[list[int]]], labels: np.ndarray) -> datasets.Dataset:
    lengths = [len(ids) for ids in columns["input_ids"]]
    return datasets.Dataset.from_dict({**columns, "labels": labels.tolist(), "length": lengths})
