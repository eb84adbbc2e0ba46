"""Predicts texts with a fine-tuned classifier."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.config.settings import ModelSettings
from src.core.task import Task, labels_in
from src.core.texts import TEXT, TEXT_PAIR, Text, joined
from src.training import classifiers
from src.training.classifiers import build_classifier
from src.training.number_scale import NumberScale
from src.training.pretrained import PretrainedModel, load_tokenizer

Classifier = Any  # a transformers text-classification pipeline
BATCH_SIZE = 32


def load_classifier(folder: Path, use_cpu: bool = False) -> Classifier:
    """The classifier whose weights and tokenizer are in `folder`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return _pipeline(classifiers.load_finetuned(folder), tokenizer, use_cpu)


def untuned_classifier(
    checkpoint: PretrainedModel, model: ModelSettings, task: Task, seed: int, labels: np.ndarray
) -> Classifier:
    """The pretrained model as a classifier without fine-tuning; a head that it lacks is random, from `seed`.

    `labels`: of train; where they are numbers, the model predicts on their scale.
    """
    tokenizer = load_tokenizer(checkpoint)
    tokenizer.model_max_length = model.max_tokens
    classifier = build_classifier(checkpoint, model, task, seed)
    if task.is_regression:
        NumberScale.of(labels).put_into(classifier)
    return _pipeline(classifier, tokenizer, use_cpu=False)


def label_names(classifier: Classifier) -> tuple[str, ...]:
    """The classifier's labels, by index."""
    return labels_in(classifier.model.config)


def predict_probabilities(
    classifier: Classifier, texts: Sequence[Text], batch: int = BATCH_SIZE, done: Callable[[], object] = lambda: None
) -> np.ndarray:
    """Probabilities of every label for every text, [n_texts, n_labels].

    Texts are truncated at the tokenizer's model_max_length. The longest are predicted first, so that a batch that does
    not fit into memory fails at once.

    Args:
        classifier: a text-classification pipeline.
        texts: in any order; pairs for a classifier of pairs.
        batch: texts at a time.
        done: called once per text.
    """
    names = label_names(classifier)
    probabilities = np.zeros((len(texts), len(names)), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: (-len(joined(texts[i])), i))

    def stream() -> Iterator[str | dict[str, str]]:
        for i in order:
            text = texts[i]
            yield text if isinstance(text, str) else {TEXT: text[0], TEXT_PAIR: text[1]}

    answers = classifier(stream(), batch_size=batch, top_k=None, truncation=True) if texts else []
    for i, answer in zip(order, answers, strict=True):
        scores = {a["label"]: a["score"] for a in answer}
        probabilities[i] = [scores[name] for name in names]
        done()
    return probabilities


def _pipeline(model: Any, tokenizer: Any, use_cpu: bool) -> Classifier:
    import torch
    from transformers import pipeline

    device = "cuda:0" if torch.cuda.is_available() and not use_cpu else "cpu"
    return pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, device=device)
