"""Finds leakage between splits: equal texts, parts of sentences, near-duplicates, conflicting labels."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import regex

from src.core.task import labels_of
from src.core.texts import Text, every_part, joined, parts, texts_of

# a word has letters, digits and the marks that belong to them, such as vowel signs
WORD = r"[\w\p{M}]+(?:'[\w\p{M}]+)?"
_WORD = regex.compile(WORD)
_QUOTES = regex.compile(r"(?<![\w\p{M}])\p{Quotation_Mark}|\p{Quotation_Mark}(?![\w\p{M}])")  # no apostrophe in a word
# punctuation of sentences in every script: not inside a number or word, and no part of an emoticon such as :)
_SENTENCE_MARKS = regex.compile(
    r"[.,!?\u2026]+(?![\w\p{M}(\[{:;=<@#$%^&*_~/\\|+-])|[:;]+(?=\s|$)|[\p{Terminal_Punctuation}--\p{ASCII}]", regex.V1
)
MIN_JACCARD = 0.5  # Jaccard similarity of word triples from which two texts count as near-duplicates
# a triple in more texts than this is ignored: it does not distinguish pairs, and takes the most time
MAX_TEXTS_PER_TRIPLE = 50


def words(text: str) -> tuple[str, ...]:
    """The text's words in lower case without punctuation, by which parts of texts are found."""
    return tuple(_WORD.findall(text.lower()))


def identity(text: str) -> str:
    """The same for texts that are the same: case, white space and Unicode's compositions do not count, signs do."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def without_sentence_marks(text: str) -> str:
    """`identity`, also without the punctuation of sentences and quotation marks; a text of nothing else is itself.

    Signs, emoticons, emoji and combining marks stay.
    """
    same = identity(text)
    return " ".join(_SENTENCE_MARKS.sub("", _QUOTES.sub("", same)).split()) or same


def text_keys(texts: Iterable[Text]) -> pd.Series:
    """One key per text, by which splits are compared (see without_sentence_marks).

    The order of the texts of a pair does not count: who has learned one order may know the answer to the other.
    """
    return pd.Series(["\0".join(sorted(map(without_sentence_marks, parts(text)))) for text in texts], dtype=object)


def phrase_hashes(texts: Iterable[str]) -> set[int]:
    """Hashes of all word sequences in `texts`, including the texts themselves."""
    hashes: set[int] = set()
    for text in texts:
        tokens = words(text)
        hashes.update(hash(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1))
    return hashes


def is_phrase_of(texts: Iterable[str], of: set[int]) -> np.ndarray:
    """Boolean [n_texts]: whether the text is one of the word sequences in `of` (see phrase_hashes)."""
    return np.array([hash(words(t)) in of for t in texts], dtype=bool)


def is_no_phrase_of_another(texts: pd.Series) -> np.ndarray:
    """Boolean [n_texts]: False for a text that is a part of another one (a phrase of a sentence)."""
    inner: set[int] = set()
    for text in texts:
        tokens = words(text)
        n = len(tokens)
        inner.update(hash(tokens[i:j]) for i in range(n) for j in range(i + 1, n + 1) if j - i < n)
    return ~is_phrase_of(texts, inner)


def count_conflicting_labels(frame: pd.DataFrame) -> int:
    """The number of different texts or pairs of `frame` that have more than one label (see identity)."""
    keys = ["\0".join(map(identity, parts(text))) for text in texts_of(frame)]
    labels = pd.Series([str(row) for row in labels_of(frame)], dtype=object)
    return int((labels.groupby(np.array(keys, dtype=object)).nunique() > 1).sum())


def count_known_parts(held_out: Sequence[Text], train: Sequence[Text]) -> int:
    """The number of pairs of `held_out` of which a text is in a pair of `train`, too."""
    known = set(text_keys(every_part(train)))
    return sum(any(without_sentence_marks(part) in known for part in parts(text)) for text in held_out)


def count_near_duplicates(held_out: Sequence[Text], train: Sequence[Text]) -> int:
    """The number of texts of `held_out` that share at least half of their word triples with a text of `train`."""
    from sklearn.feature_extraction.text import HashingVectorizer

    if not held_out or not train:
        return 0
    vectorise = HashingVectorizer(
        ngram_range=(3, 3),
        tokenizer=_WORD.findall,
        token_pattern=None,
        n_features=2**22,
        binary=True,
        norm=None,
        alternate_sign=False,
    )
    a, b = vectorise.transform(map(joined, held_out)), vectorise.transform(map(joined, train))
    triples, seen = np.unique(np.concatenate([a.indices, b.indices]), return_counts=True)
    rare = triples[(seen > 1) & (seen <= MAX_TEXTS_PER_TRIPLE)]
    common = (_columns(a, rare) @ _columns(b, rare).T).tocoo()
    size_a, size_b = np.asarray(a.sum(axis=1)).ravel(), np.asarray(b.sum(axis=1)).ravel()
    union = size_a[common.row] + size_b[common.col] - common.data
    return len(np.unique(common.row[common.data >= MIN_JACCARD * np.maximum(union, 1)]))


def _columns(matrix: Any, columns: np.ndarray) -> Any:
    """The sorted `columns` of a sparse matrix [n_texts, n_features], as [n_texts, n_columns]."""
    from scipy import sparse

    matrix = matrix.tocoo()
    kept = np.isin(matrix.col, columns)
    place = np.searchsorted(columns, matrix.col[kept])
    shape = (matrix.shape[0], len(columns))
    return sparse.csr_array((matrix.data[kept], (matrix.row[kept], place)), shape=shape)
