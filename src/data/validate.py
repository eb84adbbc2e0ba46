"""Checks the settings of the data before a file is read."""

from src.config.settings import DataSettings
from src.core.errors import InvalidInput
from src.core.formatting import plural
from src.core.task import TASKS
from src.data.files.delimited import NO_QUOTE
from src.data.files.text_stream import checked_encoding
from src.data.loading import read_options
from src.data.split_files import SPLITS


def check_data_settings(data: DataSettings) -> None:
    """Raises InvalidInput with all problems of the data group together."""
    problems = [*_labels(data), *_columns(data), *_several_labels(data), *_numbers(data)]
    for key, rules in (("splits", data.splits), ("carve", data.carve), ("subset", data.subset)):
        if unknown := sorted(set(rules) - set(SPLITS)):
            problems.append(f"data.{key} names {', '.join(unknown)}; the splits are {', '.join(SPLITS)}.")
    if data.split_seed < 0:
        problems.append(f"data.split_seed is {data.split_seed}; it is a whole number from 0.")
    if data.loader and data.hub_id:
        problems.append(f"data.loader is {data.loader}, and data.hub_id is {data.hub_id}; take one: data=loader.")
    InvalidInput.raise_if_any([*problems, *_carve_rules(data), *_sizes(data), *_reading(data)])


def _labels(data: DataSettings) -> list[str]:
    """Problems with the label names."""
    given, problems = data.label_names, list[str]()
    if given is not None:
        names = list(given.values()) if isinstance(given, dict) else given
        if len(names) < 2:
            problems.append(
                f"data.label_names is {given}; learning needs at least two labels. null takes those of the file."
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"data.label_names has {', '.join(twice)} twice; every label has a name of its own.")
        if any(not name.strip() for name in names):
            problems.append(f"data.label_names is {given}; a label's name is not empty.")
    return problems


def _columns(data: DataSettings) -> list[str]:
    """Problems with the columns of texts and labels."""
    columns, problems = data.text_columns, list[str]()
    if len(columns) not in (1, 2):
        problems.append(
            f"data.text_column has {plural(len(columns), 'column')}; it is one column, or two for pairs of texts, "
            "typed 'data.text_column=[premise,hypothesis]'."
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        problems.append(f"data.text_column has {', '.join(twice)} twice; the texts of a pair are in different columns.")
    if both := sorted(set(data.label_columns) & set(columns)):
        problems.append(f"data.text_column and data.label_column are both {both[0]}; they must be different columns.")
    if data.drop_parts and len(columns) > 1:
        problems.append(
            "data.drop_parts=true drops phrases of sentences, as in SST-2; pairs of texts have none. Leave it out."
        )
    return problems


def _numbers(data: DataSettings) -> list[str]:
    """Problems with settings of labels, where texts have numbers."""
    if not data.is_regression:
        return []
    given = {"label_names": data.label_names is not None, "balance": data.balance}
    return [
        f"data.{name} is about labels, and data.task is regression, where each text has a number. Leave it out."
        for name, is_given in given.items()
        if is_given
    ]


def _several_labels(data: DataSettings) -> list[str]:
    """Problems with how many labels a text has, and how they are written."""
    problems, columns = list[str](), data.label_columns
    several = "; where a text can have several labels, data.task=multi_label says so."
    if data.task not in TASKS:
        problems.append(f"data.task is {data.task!r}; it is {', '.join(TASKS[:-1])} or {TASKS[-1]}.")
    if not columns:
        problems.append("data.label_column is empty; name the column of labels.")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        problems.append(f"data.label_column has {', '.join(twice)} twice; each label has a column of its own.")
    if not data.has_several_labels:
        if not isinstance(data.label_column, str):
            advice = "; a regression has one." if data.is_regression else several
            problems.append(f"data.label_column has {plural(len(columns), 'column')}{advice}")
        if data.label_separator is not None:
            problems.append(f"data.label_separator is {data.label_separator!r}{several}")
        return problems
    if data.label_separator is not None and (not data.label_separator or len(columns) > 1):
        problems.append(
            f"data.label_separator is {data.label_separator!r}; it stands between the labels in one column, such as "
            "'data.label_separator=\",\"'. Labels in columns of 0 and 1 have none."
        )
    if data.balance:
        problems.append(
            "data.balance=true takes equally many texts of each label, and with data.task=multi_label a text can have "
            "several. Leave it out: subsets keep the labels' frequencies."
        )
    if isinstance(data.label_names, list) and len(columns) > 1 and len(data.label_names) != len(columns):
        problems.append(
            f"data.label_names has {len(data.label_names)} names for {len(columns)} columns of labels; give a name for "
            "each, or leave them out."
        )
    return problems


def _reading(data: DataSettings) -> list[str]:
    """Problems with how files are to be read."""
    problems, csv = list[str](), data.csv
    try:
        checked_encoding(read_options(data))
    except InvalidInput as error:
        problems += error.problems
    if csv.separator is not None and (len(csv.separator) != 1 or csv.separator in "\r\n"):
        problems.append(f"data.csv.separator is {csv.separator!r}; it is one character, such as ';' (a tab: '\\t').")
    if csv.quote is not None and csv.quote != NO_QUOTE and len(csv.quote) != 1:
        problems.append(f"data.csv.quote is {csv.quote!r}; it is one character, or {NO_QUOTE} if marks are letters.")
    if twice := sorted({name for name in csv.columns if csv.columns.count(name) > 1}):
        problems.append(f"data.csv.columns has {', '.join(twice)} twice; each column has a name of its own.")
    return problems


def _carve_rules(data: DataSettings) -> list[str]:
    """Problems with the rules by which splits are carved out of others."""
    problems = []
    for split, rule in data.carve.items():
        if rule.source not in SPLITS or rule.source == split:
            problems.append(f"data.carve.{split}.source is {rule.source}; it is another split to cut {split} out of.")
        if not rule.size > 0:
            problems.append(f"data.carve.{split}.size is {rule.size:g}; it is a share below 1, or a number of texts.")
    return problems


def _sizes(data: DataSettings) -> list[str]:
    """Problems with the sizes to which splits are reduced."""
    max_examples = data.max_examples
    problems = [
        f"data.subset.{split} is {size}; a split needs at least 2 examples."
        for split, size in data.subset.items()
        if size < 2
    ]
    if isinstance(max_examples, dict) and (unknown := sorted(set(max_examples) - set(SPLITS))):
        problems.append(f"data.max_examples names {', '.join(unknown)}; the splits are {', '.join(SPLITS)}.")
    sizes = (
        list(max_examples.values())
        if isinstance(max_examples, dict)
        else []
        if max_examples is None
        else [max_examples]
    )
    if bad := [size for size in sizes if isinstance(size, bool) or not isinstance(size, int) or size < 2]:
        problems.append(
            f"data.max_examples has {bad[0]!r}; it is null, a whole number from 2, or such a number for each split."
        )
    return problems
