"""The formulas of all metrics, over many weighted draws of the examples at once."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from src.core.task import decided, has_several, present
from src.verdict.ranking import average_precision, ratio, roc_auc

COUNTED = ("f1", "precision", "recall", "jaccard")
TOP = 2  # of top_k_accuracy, as in scikit-learn
PROBABILITY_FLOOR = 1e-12


class Draws:
    """The weighted sums that metrics are made of. Shapes are [n_draws, n_seeds] where nothing is said."""

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> None:
        self.labels, self.probabilities, self.counts = labels, probabilities, counts
        self.n_labels, self.several = probabilities.shape[2], has_several(labels)
        self.chosen = decided(probabilities, self.several)  # [n_seeds, n_examples, n_labels]
        self.present = present(labels, self.n_labels)  # [n_examples, n_labels]
        self.total = counts.sum(axis=1, keepdims=True)  # [n_draws, 1]
        self._by_label: dict[int, dict[str, np.ndarray]] = {}

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean over examples of values [n_seeds, n_examples]."""
        return self._sum(values) / self.total

    def of_label(self, label: int) -> dict[str, np.ndarray]:
        """Sums of one label (hits, chosen, present) and its f1, precision, recall and jaccard."""
        if label not in self._by_label:
            true, predicted = self.present[:, label], self.chosen[..., label]
            hits, chosen = self._sum(predicted & true), self._sum(predicted)
            present = self._sum(np.broadcast_to(true, predicted.shape))
            values = {name: _counted(name, hits, chosen, present) for name in COUNTED}
            self._by_label[label] = {"hits": hits, "chosen": chosen, "present": present, **values}
        return self._by_label[label]

    def by_label(self, name: str) -> np.ndarray:
        """One of the sums or metrics of `of_label`, of every label, [n_labels, n_draws, n_seeds]."""
        return np.stack([self.of_label(label)[name] for label in range(self.n_labels)])

    @cached_property
    def true_probabilities(self) -> np.ndarray:
        """The probability of the true label, [n_seeds, n_examples]."""
        index = np.broadcast_to(self.labels[None, :, None], (*self.probabilities.shape[:2], 1))
        return np.take_along_axis(self.probabilities, index, axis=2)[..., 0]

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return self.counts @ values.T.astype(self.counts.dtype)


def _positive(name: str) -> Callable[[Draws], np.ndarray]:
    """The metric of label 1."""
    return lambda draws: draws.of_label(1)[name]


def _macro(name: str) -> Callable[[Draws], np.ndarray]:
    """The mean over the labels, if each text has one over those that occur among true or predicted labels."""

    def formula(draws: Draws) -> np.ndarray:
        occurs = (draws.by_label("chosen") + draws.by_label("present") > 0) | draws.several
        total: np.ndarray = (draws.by_label(name) * occurs).sum(axis=0) / occurs.sum(axis=0)
        return total

    return formula


def _weighted(name: str) -> Callable[[Draws], np.ndarray]:
    """The mean over labels, each by its number of examples."""

    def formula(draws: Draws) -> np.ndarray:
        present = draws.by_label("present")
        return ratio((draws.by_label(name) * present).sum(axis=0), present.sum(axis=0))

    return formula


def _counted(name: str, hits: np.ndarray, chosen: np.ndarray, present: np.ndarray) -> np.ndarray:
    """f1, precision, recall or jaccard of numbers of labels that are given rightly, given at all, and there."""
    over, under = {
        "f1": (2 * hits, chosen + present),
        "precision": (hits, chosen),
        "recall": (hits, present),
        "jaccard": (hits, chosen + present - hits),
    }[name]
    return ratio(over, under)


def _micro(name: str) -> Callable[[Draws], np.ndarray]:
    """Over all decisions. Where each text has one label, f1, precision and recall are the accuracy."""

    def formula(draws: Draws) -> np.ndarray:
        hits, chosen, present = (draws.by_label(each).sum(axis=0) for each in ("hits", "chosen", "present"))
        return _counted(name, hits, chosen, present)

    return formula


def _samples(name: str) -> Callable[[Draws], np.ndarray]:
    """Of each text's labels, the mean over texts; 0 for a text that has no label and is given none."""

    def formula(draws: Draws) -> np.ndarray:
        hits = (draws.chosen & draws.present).sum(axis=2).astype(float)
        present = np.broadcast_to(draws.present.sum(axis=1), hits.shape)
        return draws.mean(_counted(name, hits, draws.chosen.sum(axis=2), present))

    return formula


def _accuracy(draws: Draws) -> np.ndarray:
    return draws.mean((draws.chosen == draws.present).all(axis=2))


def _top_k_accuracy(draws: Draws) -> np.ndarray:
    above = (draws.probabilities > draws.true_probabilities[..., None]).sum(axis=2)
    return draws.mean(above < TOP)


def _balanced_accuracy(draws: Draws) -> np.ndarray:
    """The mean recall of the labels that have examples."""
    present = draws.by_label("present") > 0
    total: np.ndarray = draws.by_label("recall").sum(axis=0) / present.sum(axis=0)
    return total


def _matthews_corrcoef(draws: Draws) -> np.ndarray:
    """Source: Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006, for any number of labels."""
    hits = draws.by_label("hits").sum(axis=0)
    chosen, present = draws.by_label("chosen"), draws.by_label("present")
    covariance = hits * draws.total - (chosen * present).sum(axis=0)
    spread_chosen = draws.total**2 - (chosen**2).sum(axis=0)
    spread_present = draws.total**2 - (present**2).sum(axis=0)
    return ratio(covariance, np.sqrt(spread_chosen * spread_present))


def _average_precision(draws: Draws) -> np.ndarray:
    """Of label 1 of two; with more labels the mean over the labels that have examples, each against all others."""
    labels = (1,) if draws.n_labels == 2 and not draws.several else range(draws.n_labels)
    each = np.stack([average_precision(draws.present[:, c], draws.probabilities[..., c], draws.counts) for c in labels])
    present = np.stack([draws.of_label(c)["present"] > 0 for c in labels])
    return ratio((each * present).sum(axis=0), present.sum(axis=0).astype(float))


def _roc_auc(draws: Draws) -> np.ndarray:
    if draws.several:
        return _roc_auc_ovr(draws)
    return roc_auc(draws.present[:, 1], draws.probabilities[..., 1], draws.counts)


def _roc_auc_ovr(draws: Draws, weighted: bool = False) -> np.ndarray:
    """Each label against all others, the mean over the labels that some but not all examples have."""
    labels = range(draws.n_labels)
    each = np.stack([roc_auc(draws.present[:, c], draws.probabilities[..., c], draws.counts) for c in labels])
    present = draws.by_label("present")
    weights = np.where((present > 0) & (present < draws.total), present if weighted else 1.0, 0.0)
    return ratio((each * weights).sum(axis=0), weights.sum(axis=0))


def _roc_auc_ovo(draws: Draws, weighted: bool = False) -> np.ndarray:
    """Each pair of labels, the mean of both directions, over the pairs that have examples of both.

    Source: Hand and Till 2001, doi:10.1023/A:1010920819831.
    """
    total, weights = np.zeros((len(draws.counts), len(draws.probabilities))), np.zeros((len(draws.counts), 1))
    for one in range(draws.n_labels):
        for two in range(one + 1, draws.n_labels):
            rows = np.isin(draws.labels, (one, two))
            labels, counts = draws.labels[rows], draws.counts[:, rows]
            pair = draws.probabilities[:, rows]
            value = (
                roc_auc(labels == one, pair[..., one], counts) + roc_auc(labels == two, pair[..., two], counts)
            ) / 2
            of_one, of_two = (counts[:, labels == c].sum(axis=1, keepdims=True) for c in (one, two))
            weight = ((of_one > 0) & (of_two > 0)) * (of_one + of_two if weighted else 1.0)
            total, weights = total + value * weight, weights + weight
    return ratio(total, np.broadcast_to(weights, total.shape))


def _loss(draws: Draws) -> np.ndarray:
    """The mean negative log probability of the truth; of several labels, the mean over them, too."""
    if draws.several:
        of_truth = np.where(draws.present, draws.probabilities, 1 - draws.probabilities)
        return draws.mean(-np.log(np.clip(of_truth, PROBABILITY_FLOOR, None)).mean(axis=2))
    return draws.mean(-np.log(np.clip(draws.true_probabilities, PROBABILITY_FLOOR, None)))


def _squared_error(draws: Draws) -> np.ndarray:
    """The sum over labels of the squared difference between the probability and 1 or 0, the mean over examples."""
    true = np.eye(draws.n_labels)[draws.labels]
    return draws.mean(((draws.probabilities - true) ** 2).sum(axis=2))


def _brier_score(draws: Draws) -> np.ndarray:
    """With two labels half of it, which is the squared error of label 1's probability."""
    return _squared_error(draws) / (2 if draws.n_labels == 2 else 1)


def _label_shares(draws: Draws) -> np.ndarray:
    shares: np.ndarray = draws.by_label("present") / draws.total
    return shares


def _d2_log_loss_score(draws: Draws) -> np.ndarray:
    """The part of the loss of always answering the labels' frequencies that is saved."""
    shares = _label_shares(draws)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=0)
    return 1 - ratio(_loss(draws), entropy)


def _d2_brier_score(draws: Draws) -> np.ndarray:
    """The part of the squared error of always answering the labels' frequencies that is saved."""
    return 1 - ratio(_squared_error(draws), 1 - (_label_shares(draws) ** 2).sum(axis=0))


FORMULAS: dict[str, Callable[[Draws], np.ndarray]] = {
    "loss": _loss,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "matthews_corrcoef": _matthews_corrcoef,
    "top_k_accuracy": _top_k_accuracy,
    **{name: _positive(name) for name in COUNTED},
    **{f"{name}_macro": _macro(name) for name in COUNTED},
    **{f"{name}_micro": _micro(name) for name in COUNTED},
    **{f"{name}_weighted": _weighted(name) for name in COUNTED},
    **{f"{name}_samples": _samples(name) for name in COUNTED},
    "average_precision": _average_precision,
    "roc_auc": _roc_auc,
    "roc_auc_ovr": _roc_auc_ovr,
    "roc_auc_ovr_weighted": lambda draws: _roc_auc_ovr(draws, weighted=True),
    "roc_auc_ovo": _roc_auc_ovo,
    "roc_auc_ovo_weighted": lambda draws: _roc_auc_ovo(draws, weighted=True),
    "brier_score": _brier_score,
    "d2_log_loss_score": _d2_log_loss_score,
    "d2_brier_score": _d2_brier_score,
}
