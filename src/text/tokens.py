"""Tokenised splits, once per (texts, tokenizer, max_tokens)."""

import json
from pathlib import Path
from typing import Any

from src.text.corpus import Corpus, content_key, once


def tokenised(corpus: Corpus, split: str, tokenizer: Any, max_tokens: int, cache: Path) -> Any:
    """A datasets.Dataset with input_ids, attention_mask, labels and length, memory-mapped from the cache.

    Texts are cut at `max_tokens`, special tokens included.
    """
    import datasets

    key = content_key(corpus.fingerprints[split], tokenizer_key(tokenizer), str(max_tokens))

    def make(folder: Path) -> None:
        frame = corpus.frame(split)
        columns = {"input_ids": [], "attention_mask": []} | tokenizer(
            frame["text"].tolist(), truncation=True, max_length=max_tokens, return_token_type_ids=False
        )
        lengths = [len(ids) for ids in columns["input_ids"]]
        made = datasets.Dataset.from_dict({**columns, "labels": frame["label"].tolist(), "length": lengths})
        made.save_to_disk(str(folder))

    was_on = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_from_disk(str(once(cache / "tokens" / key, make)))
    finally:
        if was_on:
            datasets.enable_progress_bars()


def tokenizer_key(tokenizer: Any) -> str:
    """Hash of everything that decides how a text is cut: vocabulary, normalisation, special tokens."""
    if not tokenizer.is_fast:
        return content_key(type(tokenizer).__name__, str(sorted(tokenizer.get_vocab().items())))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.update(truncation=None, padding=None)  # set by use, not by the tokenizer's making
    return content_key(type(tokenizer).__name__, json.dumps(state, sort_keys=True))
