"""Makes train, validation and test from raw splits: cleans, subsets, carves, removes overlap, caps."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from src.config.settings import DataSettings
from src.core.errors import InvalidInput
from src.core.task import are_numbers, has_several, labels_of, present
from src.core.texts import TEXT, TEXT_PAIR, parts, texts_of
from src.data import leakage, numbers, several_labels
from src.data.labels import Labels, find_labels
from src.data.loading import Frames, RawSplits
from src.data.split_files import SPLITS

KEY = "\0key"  # column, while splits are made: by which texts of different splits are the same


@dataclass(frozen=True)
class Splits:
    """Three frames: the columns text, label (index into the names, or a number), row (in the source) and extra ones.

    Pairs of texts have a column text_pair, too.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    labels: Labels
    notes: dict[str, int] = field(default_factory=dict)  # counts of what was dropped or noticed
    rows_read: dict[str, int] = field(default_factory=dict)  # split -> rows that the source has of it

    def fingerprint(self, split: str) -> str:
        """Hash of the split's texts and labels, in order."""
        frame: pd.DataFrame = getattr(self, split)
        digest = hashlib.sha256()
        for text, label in zip(texts_of(frame), frame["label"], strict=True):
            shown = ",".join(map(str, label)) if isinstance(label, list) else str(label)
            digest.update(("\t".join((shown, *parts(text))) + "\n").encode())
        return digest.hexdigest()[:16]


def make_splits(raw: RawSplits, data: DataSettings) -> Splits:
    """Clean -> subset -> carve -> drop overlap -> cap; the order in which the config reads.

    Every row of the source is in a split, or counted in the notes by the reason for which it is not.

    Raises InvalidInput for labels that are hidden or outside the names, texts that are empty, and splits that are
    missing without a rule to carve them.
    """
    where = data.source
    for split, frame in raw.frames.items():
        _check_rows(frame, split, data)
    notes: dict[str, int] = {}
    of_rows: Mapping[str, Any]
    if data.is_regression:
        labels = Labels(data.label_columns, ())
        of_rows = numbers.read_numbers(raw.frames, data, where)
    elif data.has_several_labels:
        labels, of_rows = several_labels.read_labels(raw.frames, data, raw.class_names, where)
        for split, rows in of_rows.items():
            _count(notes, f"{split}_texts_without_labels", sum(not any(row) for row in rows))
    else:
        columns = {split: frame[data.label_columns[0]] for split, frame in raw.frames.items()}
        labels = find_labels(columns, data, raw.class_names, where)
        of_rows = {split: labels.indices(column) for split, column in columns.items()}
    frames = {split: _clean(frame, of_rows[split], data) for split, frame in raw.frames.items()}
    missing = [s for s in SPLITS if s not in frames and s not in data.carve]
    if missing:
        raise InvalidInput(
            f"{where} has no split for {' and '.join(missing)} (data.splits is {data.splits}), and "
            f"data.carve does not say what to cut out; for example "
            f"+data.carve.{missing[0]}='{{source: train, size: 0.2}}'."
        )
    if "test" in frames:
        frames["test"] = _subset(frames["test"], "test", data, notes)
        frames["train"] = _without_texts_of(frames["train"], frames["test"], data, notes, "train", "test")
    frames["train"] = _subset(frames["train"], "train", data, notes)
    has_test = "test" in frames or data.carve["test"].source in frames
    # test first, so that other splits are made from what is left
    order = ("test", "validation") if has_test else ("validation", "test")
    for split in order:
        if split not in frames:
            _carve(frames, split, data, notes)
    if "validation" in raw.frames:
        frames["validation"] = _subset(frames["validation"], "validation", data, notes)
    frames["validation"] = _without_texts_of(frames["validation"], frames["test"], data, notes, "validation", "test")
    frames["train"] = _without_texts_of(frames["train"], frames["test"], data, notes, "train", "test")
    frames["train"] = _without_texts_of(frames["train"], frames["validation"], data, notes, "train", "validation")
    final = {split: _cap(frames[split].drop(columns=KEY), split, data, notes) for split in SPLITS}
    _count_overlaps(final, notes)
    _check_classes(final, data)
    return Splits(**final, labels=labels, notes=notes, rows_read={s: len(f) for s, f in raw.frames.items()})


def label_counts(frame: pd.DataFrame, n_labels: int) -> list[int]:
    """The number of rows of each label, by label index; of a regression there are none."""
    if are_numbers(labels_of(frame)):
        return []
    return np.asarray(present(labels_of(frame), n_labels).sum(axis=0)).tolist()


def describe_source(split: str, data: DataSettings, names: Mapping[str, str]) -> str:
    """The part of the source that `split` was made from, in words. `names`: split -> its name in the source."""
    rule = data.carve.get(split)
    if split not in names and rule:
        size = f"{rule.size:.0%}" if rule.size < 1 else f"{rule.size:g} examples"
        return f"{size} of {names.get(rule.source, rule.source)}"
    subset = data.subset.get(split)
    few = f", {subset}{' balanced' if data.balance else ''} examples of it" if subset else ""
    return f"{names[split]}{few}"


def _check_rows(frame: pd.DataFrame, split: str, data: DataSettings) -> None:
    """Raise InvalidInput for rows without a text or label, and for ids that are not unique."""
    where = f"the {split} split of {data.source}"
    needed = [(column, "a text") for column in data.text_columns]
    if not data.has_several_labels:
        needed.append((data.label_columns[0], "a number" if data.is_regression else "a label"))
    for column, what in needed:
        blank = frame[column].isna() | (frame[column].fillna("").str.strip() == "")
        if blank.any():
            rows = ", ".join(str(i + 1) for i in np.flatnonzero(blank)[:5])
            more = " ..." if int(blank.sum()) > 5 else ""
            raise InvalidInput(
                f"{where} has {int(blank.sum())} rows without {what} (rows {rows}{more}; the first is row 1); every "
                f"row needs one in the column {column!r}."
            )
    if data.id_column and (twice := frame[data.id_column].duplicated(keep=False)).any():
        ids = ", ".join(str(i) for i in frame.loc[twice, data.id_column].unique()[:5])
        raise InvalidInput(
            f"{where} has {int(twice.sum())} rows that share an id with another ({ids} ...); data.id_column is "
            f"{data.id_column!r}, and an id must be unique. Remove the copies, or set data.id_column=null."
        )


def _clean(frame: pd.DataFrame, labels: Any, data: DataSettings) -> pd.DataFrame:
    """The columns text, text_pair (of pairs), label, row and KEY, then the others.

    `labels`: of each row the index, or of texts with several labels a list of 0 and 1.
    """
    texts = {name: frame[column] for name, column in zip((TEXT, TEXT_PAIR), data.text_columns, strict=False)}
    clean = pd.DataFrame({**texts, "label": labels, "row": range(len(frame))})
    clean[KEY] = leakage.text_keys(texts_of(clean))
    read = (*data.text_columns, *data.label_columns, TEXT, TEXT_PAIR, "label", "row")
    extra = [c for c in frame.columns if c not in read]
    return pd.concat([clean, frame[extra]], axis=1) if extra else clean


def _subset(frame: pd.DataFrame, split: str, data: DataSettings, notes: dict[str, int]) -> pd.DataFrame:
    size = data.subset.get(split)
    if size is None:
        return frame
    _count(notes, f"{split}_left_out_by_subset", len(frame) - size)
    return stratified_sample(frame, size, data.split_seed, data.balance, f"data.subset.{split}")


def _count(notes: dict[str, int], key: str, n: int) -> None:
    if n > 0:
        notes[key] = notes.get(key, 0) + n


def _carve(frames: Frames, split: str, data: DataSettings, notes: dict[str, int]) -> None:
    """Carve `split` out of its source, stratified; with drop_parts, from whole sentences only."""
    rule = data.carve[split]
    if rule.source not in frames:
        raise InvalidInput(
            f"data.carve.{split}.source is {rule.source}, and {rule.source} is itself carved out of {split}; carve "
            "one of them out of train."
        )
    source = frames[rule.source]
    size = round(rule.size * len(source)) if rule.size < 1 else int(rule.size)
    pool = source[leakage.is_no_phrase_of_another(source["text"])] if data.drop_parts else source
    if not 0 < size < len(pool):
        raise InvalidInput(
            f"data.carve.{split}.size is {rule.size:g}, which asks for {size} of {len(pool)} examples in "
            f"{rule.source}; both splits need some."
        )
    frames[split] = stratified_sample(pool, size, data.split_seed, data.balance, f"data.carve.{split}")
    frames[rule.source] = source.drop(frames[split].index)
    notes[f"{split}_carved_from_{rule.source}"] = size


def stratified_sample(frame: pd.DataFrame, size: int, seed: int, balance: bool, where: str) -> pd.DataFrame:
    """A sample of the rows, in their old order, stratified by their labels.

    Of texts with several labels by iterative stratification, of numbers by ten parts of equal size.

    Args:
        frame: with a column label.
        size: number of rows.
        seed: of the sampling.
        balance: equally many rows per label, instead of a stratified sample.
        where: the setting's name, for the error.

    Raises:
        InvalidInput: there are too few rows.
    """
    from sklearn.model_selection import train_test_split

    if size > len(frame):
        raise InvalidInput(f"{where} asks for {size} examples; there are {len(frame)}.")
    if balance:
        labels = sorted(frame["label"].unique())
        counts = {label: size // len(labels) + (i < size % len(labels)) for i, label in enumerate(labels)}
        have = frame["label"].value_counts()
        if short := [label for label in labels if have[label] < counts[label]]:
            raise InvalidInput(
                f"{where} asks for {size} balanced examples, {counts[short[0]]} of each label; label {short[0]} has "
                f"only {have[short[0]]}."
            )
        picked = [frame[frame["label"] == label].sample(n, random_state=seed) for label, n in counts.items()]
        return pd.concat(picked).sort_index()
    if size == len(frame):
        return frame
    if has_several(labels_of(frame)):
        return _iteratively_stratified_sample(frame, size, seed)
    groups = numbers.strata(frame["label"]) if are_numbers(labels_of(frame)) else frame["label"]
    if groups.value_counts().min() < 2 or min(size, len(frame) - size) < groups.nunique():
        return frame.sample(size, random_state=seed).sort_index()  # too few examples to stratify
    chosen, _ = train_test_split(frame.index, train_size=size, stratify=groups, random_state=seed)
    return frame.loc[sorted(chosen)]


def _iteratively_stratified_sample(frame: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """A sample with about the frequency of every label. Source: Sechidis and others 2011, of the rarest label first."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    rest = len(frame) - size
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, train_size=size, test_size=rest, random_state=seed)
    chosen, others = next(splitter.split(np.zeros(len(frame)), labels_of(frame)))
    random = np.random.default_rng(seed)  # the splitter may be off by a few texts
    chosen, others = random.permutation(chosen), random.permutation(others)
    chosen = np.concatenate([chosen[:size], others[: max(0, size - len(chosen))]])
    return frame.iloc[np.sort(chosen)]


def _without_texts_of(
    frame: pd.DataFrame,
    other: pd.DataFrame,
    data: DataSettings,
    notes: dict[str, int],
    name: str,
    other_name: str,
) -> pd.DataFrame:
    """`frame` without the texts (and, with drop_parts, the phrases) of `other`; counts what it drops."""
    same = frame[KEY].isin(set(other[KEY])).to_numpy()
    part = np.zeros(len(frame), dtype=bool)
    if data.drop_parts and name == "train":
        part = leakage.is_phrase_of(frame["text"], leakage.phrase_hashes(other["text"])) & ~same
    for kind, dropped in (("same_text", same), ("part_of_text", part)):
        _count(notes, f"{name}_dropped_{kind}_as_{other_name}", int(dropped.sum()))
    return frame[~(same | part)]


def _cap(frame: pd.DataFrame, split: str, data: DataSettings, notes: dict[str, int]) -> pd.DataFrame:
    cap = data.max_examples_of(split)
    if cap is not None and cap < len(frame):
        _count(notes, f"{split}_left_out_by_max_examples", len(frame) - cap)
        frame = stratified_sample(frame, cap, data.split_seed, data.balance, f"data.max_examples ({split})")
    return frame.reset_index(drop=True)


def _count_overlaps(final: Frames, notes: dict[str, int]) -> None:
    notes["texts_with_conflicting_labels"] = leakage.count_conflicting_labels(pd.concat(final.values()))
    train = texts_of(final["train"])
    for split in ("validation", "test"):
        held_out = texts_of(final[split])
        notes[f"{split}_near_duplicates_in_train"] = leakage.count_near_duplicates(held_out, train)
        if TEXT_PAIR in final[split]:
            notes[f"{split}_pairs_with_a_text_of_train"] = leakage.count_known_parts(held_out, train)


def _check_classes(final: Frames, data: DataSettings) -> None:
    if data.is_regression:
        InvalidInput.raise_if_any(
            f"The {split} split of {data.name} has {len(frame)} texts, and all of them have the same number, "
            f"{frame['label'].iloc[0]:g}; learning and judging need different ones. If it stands for hidden numbers, "
            f"leave the split out: '~data.splits.{split}'."
            for split, frame in final.items()
            if frame["label"].nunique() < 2
        )
        return
    if data.has_several_labels:
        InvalidInput.raise_if_any(
            f"The {split} split of {data.name} has {len(frame)} texts, and all of them have the same labels; learning "
            "and judging need a label that some of them have, and some have not."
            for split, frame in final.items()
            if len(np.unique(labels_of(frame), axis=0)) < 2
        )
        return
    problems: Iterable[str] = (
        f"The {split} split of {data.name} has {len(frame)} examples of {frame['label'].nunique()} label; learning and "
        "judging need at least two labels."
        for split, frame in final.items()
        if frame["label"].nunique() < 2
    )
    InvalidInput.raise_if_any(problems)
