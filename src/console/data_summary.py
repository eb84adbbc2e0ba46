"""Shows what was read of a data set: its rows, accounted for, and its labels with their counts."""

from src.console.output import Column, Console
from src.core.formatting import plural
from src.data.dataset import PreparedDataset
from src.data.numbers import describe

SHOWN_LABELS = 12  # rows of the table of labels, unless all are asked for
_NOT_USED = ("_dropped_", "_left_out_")  # in the names of notes that count rows which are in no split


def rows(dataset: PreparedDataset) -> dict[str, str]:
    """The lines about the data's size, and about rows that are not used, by name."""
    sizes = ", ".join(f"{n} {split}" for split, n in dataset.sizes.items() if split != "test")
    pairs = f"; pairs of {' and '.join(dataset.text_columns)}" if dataset.task.has_pairs else ""
    lines = {"data": f"{dataset.name}: {sizes}; {dataset.sizes['test']} test examples stay sealed{pairs}"}
    if dataset.rows_read:
        read, used, dropped = sum(dataset.rows_read.values()), sum(dataset.sizes.values()), not_used(dataset)
        lines["rows"] = f"{read} read, {used} used" + (f", {read - used} not: {dropped}" if dropped else "")
    noticed = {
        key: n
        for key, n in dataset.notes.items()
        if n and (not dataset.rows_read or not any(part in key for part in _NOT_USED))
    }
    if noticed:
        lines["in the data"] = _in_words(noticed)
    return lines


def not_used(dataset: PreparedDataset) -> str:
    """The rows that are in no split, counted by reason, in words; empty if every row is used."""
    return _in_words({key: n for key, n in dataset.notes.items() if n and any(part in key for part in _NOT_USED)})


def remarks(dataset: PreparedDataset) -> list[str]:
    """What was not obvious when the data were read, and labels that no model can learn."""
    counts = dataset.label_counts.get("train")
    without = [name for name, n in zip(dataset.label_names, counts or [], strict=False) if not n]
    if not without:
        return list(dataset.remarks)
    shown = ", ".join(map(repr, without[:5])) + (" ..." if len(without) > 5 else "")
    return [*dataset.remarks, f"train has no text with the {plural(len(without), 'label')} {shown}: no model learns it"]


def print_labels(dataset: PreparedDataset, console: Console, every: bool = False) -> None:
    """Print each label's name, what the source writes for it, and its rows and their share in each split.

    Args:
        dataset: the data.
        console: prints it.
        every: print all labels, instead of the most frequent ones if there are many.
    """
    counts = dataset.label_counts
    if dataset.task.is_regression:
        console.print(f"  numbers     {dataset.label_names[0]}: {describe(dataset.labels('train'))} (train)")
        return
    if not counts:
        return
    order = list(range(len(dataset.label_names)))
    if not every and len(order) > SHOWN_LABELS:
        order = sorted(sorted(order, key=lambda i: -counts["train"][i])[:SHOWN_LABELS])
    columns = [Column("  label"), Column("in the source"), *(Column(split, right=True) for split in counts)]
    cells = [
        (
            f"  {dataset.label_names[i]}",
            dataset.label_values[i],
            *(f"{counts[split][i]} ({counts[split][i] / dataset.sizes[split]:.1%})" for split in counts),
        )
        for i in order
    ]
    console.table(columns, cells)
    if len(order) < len(dataset.label_names):
        console.print(f"  and {len(dataset.label_names) - len(order)} rarer labels; study.plan_only=true lists all")


def _in_words(notes: dict[str, int]) -> str:
    return "; ".join(f"{n} {key.replace('_', ' ')}" for key, n in notes.items())
