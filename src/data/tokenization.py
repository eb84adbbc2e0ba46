"""Tokenizes splits, once per (texts, tokenizer, max_tokens)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.core.cache import content_key, make_once
from src.core.task import are_numbers, has_several, labels_of
from src.core.texts import TEXT_PAIR, Text, columns_of, texts_of
from src.data.dataset import PreparedDataset


def tokenize_split(dataset: PreparedDataset, split: str, tokenizer: Any, max_tokens: int, cache: Path) -> Any:
    """A datasets.Dataset with what `encode` gives, labels and length, memory-mapped from the cache.

    Texts are truncated to `max_tokens`, including special tokens.
    """
    import datasets

    key = content_key(dataset.fingerprints[split], tokenizer_key(tokenizer), str(max_tokens))

    def make(folder: Path) -> None:
        frame = dataset.frame(split)
        columns = encode(tokenizer, texts_of(frame), max_tokens)
        labels = labels_of(frame)
        if has_several(labels) or are_numbers(labels):  # several labels are 0.0 and 1.0, as a loss reads them
            labels = labels.astype(np.float32)
        lengths = [len(ids) for ids in columns["input_ids"]]
        tokenized = datasets.Dataset.from_dict({**columns, "labels": labels, "length": lengths})
        tokenized.save_to_disk(str(folder))

    was_on = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_from_disk(str(make_once(cache / "tokens" / key, make)))
    finally:
        if was_on:
            datasets.enable_progress_bars()


def encode(tokenizer: Any, texts: Sequence[Text], max_tokens: int) -> dict[str, list[list[int]]]:
    """Token ids and attention mask of each text; of pairs also segment ids, if the tokenizer makes any.

    Args:
        tokenizer: of transformers.
        texts: all single texts, or all pairs. Of a pair the longer text is cut first.
        max_tokens: per text or pair, including special tokens.
    """
    wanted, columns = ["input_ids", "attention_mask"], columns_of(texts)
    if TEXT_PAIR in columns and "token_type_ids" in tokenizer.model_input_names:
        wanted.append("token_type_ids")
    if not texts:
        return {name: [] for name in wanted}
    encoded = tokenizer(
        **columns, truncation=True, max_length=max_tokens, return_token_type_ids="token_type_ids" in wanted
    )
    return {name: encoded[name] for name in wanted}


def tokenizer_key(tokenizer: Any) -> str:
    """Hash of everything that tokenization depends on: vocabulary, normalisation, special tokens."""
    if not tokenizer.is_fast:
        return content_key(type(tokenizer).__name__, str(sorted(tokenizer.get_vocab().items())))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.update(truncation=None, padding=None)  # changes when the tokenizer is used
    return content_key(type(tokenizer).__name__, json.dumps(state, sort_keys=True))
