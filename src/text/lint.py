"""What is wrong with the data's settings, found before a file is read."""

from src.errors import Refusal
from src.settings import DataSettings
from src.text.splits import SPLITS


def check(data: DataSettings) -> None:
    """Raises Refusal with all problems of the data group together."""
    problems = _labels(data)
    for key, given in (("splits", data.splits), ("carve", data.carve), ("subset", data.subset)):
        if unknown := sorted(set(given) - set(SPLITS)):
            problems.append(f"data.{key} names {', '.join(unknown)}; the splits are {', '.join(SPLITS)}.")
    if data.split_seed < 0:
        problems.append(f"data.split_seed is {data.split_seed}; it is a whole number from 0.")
    Refusal.when_any([*problems, *_carving(data), *_sizes(data)])


def _labels(data: DataSettings) -> list[str]:
    """What is wrong with the labels' names and the columns."""
    names, problems = data.label_names, []
    if len(names) < 2:
        problems.append(f"data.label_names is {names}; learning needs at least two labels.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"data.label_names has {', '.join(twice)} twice; every label has a name of its own.")
    if any(not name.strip() for name in names):
        problems.append(f"data.label_names is {names}; a label's name is not empty.")
    if data.text_column == data.label_column:
        problems.append(f"data.text_column and data.label_column are both {data.text_column}; they are two columns.")
    return problems


def _carving(data: DataSettings) -> list[str]:
    """What is wrong with the rules by which splits are cut out of others."""
    problems = []
    for split, rule in data.carve.items():
        if rule.source not in SPLITS or rule.source == split:
            problems.append(f"data.carve.{split}.source is {rule.source}; it is another split to cut {split} out of.")
        if not rule.size > 0:
            problems.append(f"data.carve.{split}.size is {rule.size:g}; it is a share below 1, or a number of texts.")
    return problems


def _sizes(data: DataSettings) -> list[str]:
    """What is wrong with the sizes that splits are cut down to."""
    given = data.max_examples
    problems = [
        f"data.subset.{split} is {size}; a split needs at least 2 examples."
        for split, size in data.subset.items()
        if size < 2
    ]
    if isinstance(given, dict) and (unknown := sorted(set(given) - set(SPLITS))):
        problems.append(f"data.max_examples names {', '.join(unknown)}; the splits are {', '.join(SPLITS)}.")
    sizes = list(given.values()) if isinstance(given, dict) else [] if given is None else [given]
    if bad := [size for size in sizes if isinstance(size, bool) or not isinstance(size, int) or size < 2]:
        problems.append(
            f"data.max_examples has {bad[0]!r}; it is null, a whole number from 2, or such a number for each split."
        )
    return problems
