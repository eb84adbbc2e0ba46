"""A linear model on the features of a model that was not fine-tuned: logistic regression, or ridge of numbers."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from src.config.settings import Recipe
from src.training import metrics
from src.training.classifier_trainer import TokenizedData
from src.training.classifiers import build_classifier
from src.training.one_vs_rest import OneVsRest
from src.training.pretrained import PretrainedModel

BATCH_SIZE = 64


def evaluate_probe(recipe: Recipe, checkpoint: PretrainedModel, data: TokenizedData, metric: str) -> float:
    """The metric of the probe on validation. Features are the means of a text's last hidden states.

    A raw masked-language model probes badly and may still fine-tune well, so this is for information only.

    Args:
        recipe: says which model, and whether a GPU may be used.
        checkpoint: the pretrained model.
        data: tokenized; the probe is fitted on train.
        metric: of core.metric.
    """
    use_gpu = torch.cuda.is_available() and not recipe.trainer.get("use_cpu")
    classifier = build_classifier(checkpoint, recipe.model, data.task, seed=0)
    encoder = classifier.base_model.eval().to("cuda" if use_gpu else "cpu")
    train, validation = (_features(encoder, split, data.tokenizer) for split in (data.train, data.validation))
    labels = np.asarray(data.validation["labels"][:])
    if data.task.is_regression:
        ridge = Ridge().fit(train, np.asarray(data.train["labels"][:]))
        return metrics.score_of(metric, labels, ridge.predict(validation)[:, None])
    regression = LogisticRegression(max_iter=1000)
    probe = OneVsRest(regression) if data.task.has_several_labels else regression
    probe.fit(train, np.asarray(data.train["labels"][:]))
    probabilities = np.zeros((len(validation), len(data.label_names)))
    probabilities[:, probe.classes_] = probe.predict_proba(validation)
    return metrics.score_of(metric, labels, probabilities)


@torch.inference_mode()
def _features(encoder: Any, split: Any, tokenizer: Any) -> np.ndarray:
    """Mean of the last hidden states over each text's tokens, [n_texts, n_dimensions]."""
    rows = split.remove_columns(["labels", "length"])
    batches = DataLoader(rows, batch_size=BATCH_SIZE, collate_fn=DataCollatorWithPadding(tokenizer))
    parts = []
    for collated in batches:
        batch = collated.to(encoder.device)
        states = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        parts.append(((states * mask).sum(dim=1) / mask.sum(dim=1)).float().cpu().numpy())
    return np.concatenate(parts)
