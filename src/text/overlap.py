"""What splits share: equal texts, parts of sentences, near-duplicates, conflicting labels."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

_WORD = re.compile(r"\w+(?:'\w+)?")
NEAR = 0.5  # share of common word triples (Jaccard) from which two texts count as near-duplicates
COMMON = 50  # a triple in more texts than this says nothing about one pair, and costs the most


def words(text: str) -> tuple[str, ...]:
    """The text's words, lower-cased, without punctuation: what overlap is judged on."""
    return tuple(_WORD.findall(text.lower()))


def keys(texts: Iterable[str]) -> pd.Series:
    """One key per text; texts that differ in case, spaces or punctuation only have the same. A text without a
    word (an emoticon) is its own key."""
    return pd.Series([" ".join(words(t)) or t for t in texts], dtype=object)


def parts(texts: Iterable[str]) -> set[int]:
    """Hashes of all runs of words in `texts`, the whole texts included."""
    found: set[int] = set()
    for text in texts:
        tokens = words(text)
        found.update(hash(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1))
    return found


def is_part(texts: Iterable[str], of: set[int]) -> np.ndarray:
    """Boolean [n_texts]: the whole text is one of the runs in `of` (see `parts`)."""
    return np.array([hash(words(t)) in of for t in texts], dtype=bool)


def whole_texts(texts: pd.Series) -> np.ndarray:
    """Boolean [n_texts]: False where a text is a proper part of another one (a phrase of a sentence)."""
    inner: set[int] = set()
    for text in texts:
        tokens = words(text)
        n = len(tokens)
        inner.update(hash(tokens[i:j]) for i in range(n) for j in range(i + 1, n + 1) if j - i < n)
    return ~is_part(texts, inner)


def conflicting(frame: pd.DataFrame) -> int:
    """How many different texts of `frame` (columns text, label) occur with more than one label."""
    labels = frame.assign(key=keys(frame["text"]).to_numpy()).groupby("key")["label"].nunique()
    return int((labels > 1).sum())


def near_duplicates(held_out: pd.Series, train: pd.Series) -> int:
    """How many of `held_out` share at least half of their word triples with one text of `train`."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    if held_out.empty or train.empty:
        return 0
    vectorise = HashingVectorizer(
        ngram_range=(3, 3),
        token_pattern=_WORD.pattern,
        n_features=2**22,
        binary=True,
        norm=None,
        alternate_sign=False,
    )
    a, b = vectorise.transform(held_out), vectorise.transform(train)
    seen = np.asarray(a.sum(axis=0)).ravel() + np.asarray(b.sum(axis=0)).ravel()
    rare = sparse.diags_array(((seen > 1) & (seen <= COMMON)).astype(np.float32))
    common = (a @ rare @ b.T).tocoo()
    size_a, size_b = np.asarray(a.sum(axis=1)).ravel(), np.asarray(b.sum(axis=1)).ravel()
    union = size_a[common.row] + size_b[common.col] - common.data
    return len(np.unique(common.row[common.data >= NEAR * np.maximum(union, 1)]))
