"""Checkpoints of an architecture in small: random weights, a vocabulary of characters, some kilobytes."""

import io
from pathlib import Path

import datasets
import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from src.data import split_files
from src.training import pretrained
from tests.support.data import settings_of

SIZES = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 512},
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}


def stand_in(folder: Path, kind: str, *labels: str) -> Path:
    """A checkpoint of `kind` in `folder`; with `labels` it has a head of its own that answers with them."""
    tiny = pretrained.resolve(settings_of("model=tiny").recipe.model, folder.parent / "cache").folder
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny, model_max_length=512)
    head = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **SIZES[kind], **head)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def as_on_the_hub(name: str, rows: int) -> dict[str, bytes]:
    """The starter reviews in the files and columns of sst2 or imdb: `rows` training examples, a third of them tests."""
    frames = {s: pd.read_csv(split_files.locate(f"pkg://src.data/starter/{s}.csv")) for s in ("train", "test")}
    train, test = frames["train"].head(rows)[["text", "label"]], frames["test"].head(rows // 3)[["text", "label"]]
    if name == "imdb":
        result = {"plain_text/train": train, "plain_text/test": test, "plain_text/unsupervised": test.assign(label=-1)}
    else:
        split = {"train": train, "validation": test, "test": test.assign(label=-1)}
        result = {f"data/{n}": _numbered(frame.rename(columns={"text": "sentence"})) for n, frame in split.items()}
    names = ["neg", "pos"] if name == "imdb" else ["negative", "positive"]
    return {f"{path}-00000-of-00001.parquet": _parquet(frame, names) for path, frame in result.items()}


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index(drop=True).reset_index(names="idx")


def _parquet(frame: pd.DataFrame, label_names: list[str]) -> bytes:
    """A parquet file that names its labels, as those of the Hub do."""
    stream = io.BytesIO()
    table = datasets.Dataset.from_pandas(frame, preserve_index=False)
    features = datasets.Features({**table.features, "label": datasets.ClassLabel(names=label_names)})
    table.cast(features).to_parquet(stream)
    return stream.getvalue()
