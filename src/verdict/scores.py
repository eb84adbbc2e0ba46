"""Metrics as sums over examples, so that thousands of resamples of them are a few matrix products."""

import numpy as np

Counts = np.ndarray  # [n_draws, n_examples]: how often each draw holds each example


def metric_names(n_labels: int) -> tuple[str, ...]:
    """What is computed: as in every evaluation of a training."""
    average = "" if n_labels == 2 else "_macro"
    return ("accuracy", *(f"{name}{average}" for name in ("f1", "precision", "recall")), "loss")


def weighted(labels: np.ndarray, chances: np.ndarray, counts: Counts) -> dict[str, np.ndarray]:
    """Each metric of each draw and repeat, [n_draws, n_repeats].

    `labels` [n_examples], `chances` [n_repeats, n_examples, n_labels]. Two labels: f1, precision and recall of label 1;
    more: macro averages over the labels that come; 0 where nothing can be divided by: as scikit-learn's with
    zero_division=0. Loss: mean negative log
    of the true label's chance.
    """
    n_labels = chances.shape[2]
    picked = chances.argmax(axis=2)
    total = counts.sum(axis=1, keepdims=True)
    true = np.take_along_axis(chances, np.broadcast_to(labels[None, :, None], (*picked.shape, 1)), axis=2)[..., 0]
    found = {
        "accuracy": _sums(counts, picked == labels) / total,
        "loss": _sums(counts, -np.log(np.clip(true, 1e-12, None))) / total,
    }
    if n_labels == 2:
        found |= _of_class(labels == 1, picked == 1, counts)[0]
    else:
        found |= _macro([_of_class(labels == c, picked == c, counts) for c in range(n_labels)])
    return {name: found[name] for name in metric_names(n_labels)}


def points(labels: np.ndarray, chances: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of each repeat on all examples, [n_repeats]."""
    whole = np.ones((1, len(labels)))
    return {name: values[0] for name, values in weighted(labels, chances, whole).items()}


def support(labels: np.ndarray, chances: np.ndarray) -> dict[str, int]:
    """How many examples each metric rests on, at least, over repeats: recall on those of its label, precision on those
    that are given it, f1 on either; macro averages on as many as their rarest label has. Shapes as in `weighted`."""
    n_labels, picked = chances.shape[2], chances.argmax(axis=2)
    each = [
        {
            "recall": int((labels == c).sum()),
            "precision": int((picked == c).sum(axis=1).min()),
            "f1": int(((picked == c) | (labels == c)).sum(axis=1).min()),
        }
        for c in ((1,) if n_labels == 2 else range(n_labels))
    ]
    least = {name: min((e[name] for e in each if e["f1"]), default=0) for name in ("f1", "precision", "recall")}
    average = "" if n_labels == 2 else "_macro"
    found = {"accuracy": len(labels), "loss": len(labels), **{f"{name}{average}": n for name, n in least.items()}}
    return {name: max(1, n) for name, n in found.items()}


def apart(metric: str, labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """On how many examples two contenders answer differently, as far as `metric` sees it.

    Of two predictors a count; with repeats, the difference of the shares of them that give each label. `first`,
    `second`: chances [n_repeats, n_examples, n_labels].
    """
    one, two = (
        np.eye(c.shape[2])[c.argmax(axis=2)].mean(axis=0) for c in (first, second)
    )  # [n_examples, n_labels]: share of repeats
    differ = np.abs(one - two).sum(axis=1) / 2
    if metric == "accuracy":
        rows = np.arange(len(labels))
        differ = np.abs(one[rows, labels] - two[rows, labels])
    return float(differ[labels == 1].sum() if metric == "recall" else differ.sum())


def _of_class(true: np.ndarray, picked: np.ndarray, counts: Counts) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """f1, precision and recall of one label, and whether the label comes at all in each draw and repeat."""
    hits, chosen = _sums(counts, picked & true), _sums(counts, picked)
    there = _sums(counts, np.broadcast_to(true, picked.shape))
    found = {"f1": _ratio(2 * hits, chosen + there), "precision": _ratio(hits, chosen), "recall": _ratio(hits, there)}
    return found, chosen + there > 0


def _macro(classes: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over the labels that come, in truth or answers."""
    there = np.sum([present for _, present in classes], axis=0)
    return {
        f"{name}_macro": np.sum([values[name] * present for values, present in classes], axis=0) / there
        for name in ("f1", "precision", "recall")
    }


def _sums(counts: Counts, values: np.ndarray) -> np.ndarray:
    """[n_draws, n_repeats] from values [n_repeats, n_examples]."""
    return counts @ values.T.astype(counts.dtype)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
