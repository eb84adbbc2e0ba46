"""Features of pairs of texts for the TF-IDF baseline."""

from collections.abc import Sequence
from typing import Any

from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone


class PairFeatures(TransformerMixin, BaseEstimator):
    """TF-IDF of the first text, of the second, of what both have in common, and the cosine of the angle between them.

    Args:
        vectorizer: makes a text's TF-IDF, of length 1; it learns its vocabulary from both texts of all pairs.
    """

    def __init__(self, vectorizer: Any) -> None:
        self.vectorizer = vectorizer

    def fit(self, pairs: Sequence[tuple[str, str]], _labels: Any = None) -> "PairFeatures":
        """Learn the vocabulary."""
        self.fitted_ = clone(self.vectorizer).fit([text for pair in pairs for text in pair])
        return self

    def transform(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """A sparse matrix [n_pairs, 3 * n_terms + 1]."""
        first, second = (self.fitted_.transform([pair[i] for pair in pairs]) for i in range(2))
        common = first.multiply(second)
        return sparse.hstack([first, second, common, sparse.csr_array(common.sum(axis=1).reshape(-1, 1))], "csr")
