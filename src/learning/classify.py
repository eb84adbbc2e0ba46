"""Classifying texts with a fine-tuned model: chances for every label, like lengths together."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.learning.checkpoints import Checkpoint, build, load_tokenizer
from src.settings import ModelSettings

Classifier = Any  # a transformers text-classification pipeline
BATCH = 32


def from_folder(folder: Path, use_cpu: bool = False) -> Classifier:
    """The classifier that a training left in `folder` (weights and tokenizer)."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return _pipeline(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), use_cpu)


def untuned(checkpoint: Checkpoint, model: ModelSettings, label_names: tuple[str, ...], seed: int) -> Classifier:
    """The checkpoint without fine-tuning; a head that it lacks is random, from `seed`."""
    tokenizer = load_tokenizer(checkpoint)
    tokenizer.model_max_length = model.max_tokens
    return _pipeline(build(checkpoint, model, label_names, seed), tokenizer, use_cpu=False)


def label_names(classifier: Classifier) -> tuple[str, ...]:
    """The labels it answers with, by index."""
    return tuple(str(name) for _, name in sorted(classifier.model.config.id2label.items()))


def chances(
    classifier: Classifier, texts: Sequence[str], batch: int = BATCH, done: Callable[[], object] = lambda: None
) -> np.ndarray:
    """The chance of every label for every text, [n_texts, n_labels], labels by index. `done` is called per text.

    Texts are cut at the tokenizer's model_max_length. The longest come first, so that too large a batch fails at once.
    """
    names = label_names(classifier)
    found = np.zeros((len(texts), len(names)), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))

    def stream() -> Iterator[str]:
        yield from (texts[i] for i in order)

    answers = classifier(stream(), batch_size=batch, top_k=None, truncation=True) if texts else []
    for i, answer in zip(order, answers, strict=True):
        scores = {a["label"]: a["score"] for a in answer}
        found[i] = [scores[name] for name in names]
        done()
    return found


def _pipeline(model: Any, tokenizer: Any, use_cpu: bool) -> Classifier:
    import torch
    from transformers import pipeline

    device = "cuda:0" if torch.cuda.is_available() and not use_cpu else "cpu"
    return pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, device=device)
