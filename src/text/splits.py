"""From raw splits to the three that a study lives on: cleaned, subset, carved, free of overlap, capped."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from src.errors import Refusal
from src.settings import DataSettings
from src.text import overlap
from src.text.sources import Frames

SPLITS = ("train", "validation", "test")
HIDDEN = -1  # the label that GLUE and the Hub write where the labels are kept secret


@dataclass(frozen=True)
class Splits:
    """Three frames with the columns text, label (index into the names), row (in the source) and any extra ones."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    notes: dict[str, int] = field(default_factory=dict)  # what was dropped or noticed, counted

    def fingerprint(self, split: str) -> str:
        """Hash of the split's texts and labels, in order."""
        frame: pd.DataFrame = getattr(self, split)
        digest = hashlib.sha256()
        for text, label in zip(frame["text"], frame["label"], strict=True):
            digest.update(f"{label}\t{text}\n".encode())
        return digest.hexdigest()[:16]


def make_splits(raw: Frames, data: DataSettings) -> Splits:
    """Clean -> subset -> carve -> drop overlap -> cap; the order in which the config reads.

    Raises Refusal for labels that are hidden or outside the names, texts that are empty, and splits that are
    missing without a rule to carve them.
    """
    frames = {split: _clean(frame, split, data) for split, frame in raw.items()}
    notes: dict[str, int] = {}
    missing = [s for s in SPLITS if s not in frames and s not in data.carve]
    if missing:
        raise Refusal(
            f"{data.path or data.hub_id} has no split for {' and '.join(missing)} (data.splits is {data.splits}), and "
            f"data.carve does not say what to cut out; for example "
            f"+data.carve.{missing[0]}='{{source: train, size: 0.2}}'."
        )
    if "test" in frames:
        frames["test"] = _subset(frames["test"], "test", data)
        frames["train"] = _without(frames["train"], frames["test"], data, notes, "train", "test")
    frames["train"] = _subset(frames["train"], "train", data)
    whole = "test" in frames or data.carve["test"].source in frames
    order = ("test", "validation") if whole else ("validation", "test")  # test first: what is left decides the rest
    for split in order:
        if split not in frames:
            _carve(frames, split, data, notes)
    if "validation" in raw:
        frames["validation"] = _subset(frames["validation"], "validation", data)
    frames["validation"] = _without(frames["validation"], frames["test"], data, notes, "validation", "test")
    frames["train"] = _without(frames["train"], frames["test"], data, notes, "train", "test")
    frames["train"] = _without(frames["train"], frames["validation"], data, notes, "train", "validation")
    final = {split: _cap(frames[split], split, data) for split in SPLITS}
    _report(final, notes)
    _check_classes(final, data)
    return Splits(**final, notes=notes)


def made_from(split: str, data: DataSettings, there: bool) -> str:
    """What of the source `split` was made from, in words; `there`: the source has it."""
    rule = data.carve.get(split)
    if not there and rule:
        size = f"{rule.size:.0%}" if rule.size < 1 else f"{rule.size:g} examples"
        return f"{size} of {data.splits.get(rule.source, rule.source)}"
    subset = data.subset.get(split)
    few = f", {subset}{' balanced' if data.balance else ''} examples of it" if subset else ""
    return f"{data.splits[split]}{few}"


def _clean(frame: pd.DataFrame, split: str, data: DataSettings) -> pd.DataFrame:
    """Uniform columns; labels as indices; refuses what cannot be learned from."""
    where = f"the {split} split of {data.path or data.hub_id}"
    text, label = frame[data.text_column], frame[data.label_column]
    blank = text.isna() | (text.astype(str).str.strip() == "")
    if blank.any():
        rows = ", ".join(str(i) for i in np.flatnonzero(blank)[:5])
        raise Refusal(f"{where} has {int(blank.sum())} rows without a text (rows {rows} ...); every row needs one.")
    if data.id_column and (twice := frame[data.id_column].duplicated(keep=False)).any():
        ids = ", ".join(str(i) for i in frame.loc[twice, data.id_column].unique()[:5])
        raise Refusal(
            f"{where} has {int(twice.sum())} rows that share an id with another ({ids} ...); data.id_column is "
            f"{data.id_column!r}, and an id stands for one text. Take the copies out, or set data.id_column=null."
        )
    clean = pd.DataFrame({"text": text.astype(str), "label": _indices(label, where, data), "row": range(len(frame))})
    extra = [c for c in frame.columns if c not in (data.text_column, data.label_column, "text", "label", "row")]
    return pd.concat([clean, frame[extra].reset_index(drop=True)], axis=1) if extra else clean


def _indices(label: pd.Series, where: str, data: DataSettings) -> np.ndarray:
    """Labels as indices into data.label_names; a column has names or indices, and where both fit, names."""
    names = list(data.label_names)
    numbers = pd.to_numeric(label, errors="coerce").astype(float)
    whole = numbers.notna() & (numbers % 1 == 0)
    written = label.astype(str).where(~whole | label.isin(names), numbers.map("{:.0f}".format))  # 3.0 is the name 3
    by_name = written.map({name: i for i, name in enumerate(names)}).astype(float)
    hidden = (numbers == HIDDEN) & by_name.isna()
    if hidden.any():
        raise Refusal(
            f"{where} has {int(hidden.sum())} hidden labels ({HIDDEN}). Hidden labels are no use here: "
            "let data.splits point to splits with labels, and data.carve say what to cut out of them."
        )
    index, bad = min(
        ((found, ~found.isin(range(len(names)))) for found in (by_name, numbers)), key=lambda pair: pair[1].sum()
    )
    if bad.any():
        found = ", ".join(repr(value) for value in label[bad].unique()[:5].tolist())
        raise Refusal(
            f"{where} has {int(bad.sum())} labels outside data.label_names: {found}. Allowed are {', '.join(names)}, "
            f"or their indices 0 to {len(names) - 1} in the whole column."
        )
    return index.astype(int).to_numpy()


def _subset(frame: pd.DataFrame, split: str, data: DataSettings) -> pd.DataFrame:
    size = data.subset.get(split)
    return frame if size is None else sample(frame, size, data.split_seed, data.balance, f"data.subset.{split}")


def _carve(frames: Frames, split: str, data: DataSettings, notes: dict[str, int]) -> None:
    """Cut `split` out of its source, stratified; with drop_parts, out of whole sentences only."""
    rule = data.carve[split]
    if rule.source not in frames:
        raise Refusal(
            f"data.carve.{split}.source is {rule.source}, and {rule.source} is itself to be cut out of {split}; cut "
            "one of them out of train."
        )
    source = frames[rule.source]
    size = round(rule.size * len(source)) if rule.size < 1 else int(rule.size)
    pool = source[overlap.whole_texts(source["text"])] if data.drop_parts else source
    if not 0 < size < len(pool):
        raise Refusal(
            f"data.carve.{split}.size is {rule.size:g}, which asks for {size} of {len(pool)} examples in "
            f"{rule.source}; leave some for both."
        )
    frames[split] = sample(pool, size, data.split_seed, data.balance, f"data.carve.{split}")
    frames[rule.source] = source.drop(frames[split].index)
    notes[f"{split}_carved_from_{rule.source}"] = size


def sample(frame: pd.DataFrame, size: int, seed: int, balance: bool, where: str) -> pd.DataFrame:
    """`size` rows in their old order: equally many per label with `balance`, else stratified."""
    from sklearn.model_selection import train_test_split

    if size > len(frame):
        raise Refusal(f"{where} asks for {size} examples; there are {len(frame)}.")
    if balance:
        labels = sorted(frame["label"].unique())
        counts = {label: size // len(labels) + (i < size % len(labels)) for i, label in enumerate(labels)}
        have = frame["label"].value_counts()
        if short := [label for label in labels if have[label] < counts[label]]:
            raise Refusal(
                f"{where} asks for {size} balanced examples, {counts[short[0]]} of each label; label {short[0]} has "
                f"only {have[short[0]]}."
            )
        picked = [frame[frame["label"] == label].sample(n, random_state=seed) for label, n in counts.items()]
        return pd.concat(picked).sort_index()
    if size == len(frame):
        return frame
    if frame["label"].value_counts().min() < 2 or min(size, len(frame) - size) < frame["label"].nunique():
        return frame.sample(size, random_state=seed).sort_index()  # too few to stratify
    chosen, _ = train_test_split(frame.index, train_size=size, stratify=frame["label"], random_state=seed)
    return frame.loc[sorted(chosen)]


def _without(
    frame: pd.DataFrame,
    other: pd.DataFrame,
    data: DataSettings,
    notes: dict[str, int],
    name: str,
    other_name: str,
) -> pd.DataFrame:
    """`frame` without the texts (and, with drop_parts, the phrases) of `other`; counts what it drops."""
    same = overlap.keys(frame["text"]).isin(set(overlap.keys(other["text"]))).to_numpy()
    part = np.zeros(len(frame), dtype=bool)
    if data.drop_parts and name == "train":
        part = overlap.is_part(frame["text"], overlap.parts(other["text"])) & ~same
    for kind, dropped in (("same_text", same), ("part_of_text", part)):
        if dropped.any():
            key = f"{name}_dropped_{kind}_as_{other_name}"
            notes[key] = notes.get(key, 0) + int(dropped.sum())
    return frame[~(same | part)]


def _cap(frame: pd.DataFrame, split: str, data: DataSettings) -> pd.DataFrame:
    cap = data.cap(split)
    if cap is not None and cap < len(frame):
        frame = sample(frame, cap, data.split_seed, data.balance, f"data.max_examples ({split})")
    return frame.reset_index(drop=True)


def _report(final: Frames, notes: dict[str, int]) -> None:
    notes["texts_with_conflicting_labels"] = overlap.conflicting(pd.concat(final.values()))
    for split in ("validation", "test"):
        notes[f"{split}_near_duplicates_in_train"] = overlap.near_duplicates(
            final[split]["text"], final["train"]["text"]
        )


def _check_classes(final: Frames, data: DataSettings) -> None:
    problems: Iterable[str] = (
        f"The {split} split of {data.name} has {len(frame)} examples of {frame['label'].nunique()} label; learning and "
        "judging need at least two labels."
        for split, frame in final.items()
        if frame["label"].nunique() < 2
    )
    Refusal.when_any(problems)
