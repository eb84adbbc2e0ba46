"""What a command line says that Hydra cannot compose, answered in a paragraph: what is wrong, where, what there is."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from src.errors import first_line, masked, near, sentence

Options = Mapping[str, Collection[str]]  # of each config group
OPEN = {  # groups that take more than the config names, and what
    "optimizer": "A further field of transformers.TrainingArguments",
    "schedule": "A further field of transformers.TrainingArguments",
    "trainer": "A further field of transformers.TrainingArguments",
    "space": "A further setting to search",
}


def answer(error: HydraException, folder: Path, primary: str, options: Options, given: Iterable[str]) -> str:
    """What is wrong with the overrides in `given`, all of it; where nothing is, Hydra's own `error` in short.

    `primary` is the config that the command composes, in `folder`.
    """
    if isinstance(error, OverrideParseException):
        return masked(_unread(error))
    found: list[str | None] = []
    with suppress(Exception):  # then it is not the command line's words alone, and Hydra says it
        overrides = list(_read(given))
        keys, groups = _known(folder, primary, options, overrides)
        found = [_wrong(override, keys, {group: options[group] for group in groups}) for override in overrides]
    return masked("\n".join(line for line in found if line) or _in_short(error))


def _read(given: Iterable[str]) -> Iterable[Override]:
    parser = OverridesParser.create()
    for word in given:
        if not word.startswith("-") and ("=" in word or word.startswith("~")):
            with suppress(OverrideParseException):  # the value of a flag
                yield parser.parse_override(word)


def _known(folder: Path, primary: str, options: Options, overrides: Sequence[Override]) -> tuple[set[str], list[str]]:
    """Keys and groups of the config with the options that are given and exist."""
    chosen = [
        f"{group}={values[0]}"
        for each in overrides
        if (group := each.key_or_group) in options and len(values := _values(each)) == 1
        if values[0] in options[group] and not each.is_add()
    ]
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        try:
            made = hydra.compose(primary, chosen, return_hydra_config=True)
        except HydraException:  # a group that this command has not
            made = hydra.compose(primary, return_hydra_config=True)
    keys = {key for key in _dotted(OmegaConf.to_container(made, resolve=False)) if key.partition(".")[0] != "hydra"}
    return keys, [group for group in made.hydra.runtime.choices if group in options]


def _wrong(given: Override, keys: Collection[str], options: Options) -> str | None:
    """A sentence or two, or nothing."""
    key, word = given.key_or_group, given.input_line
    if key.startswith("hydra"):
        return None
    if key in options:
        return _wrong_option(given, options[key])
    if given.is_delete():
        return None if key in keys else f"{word}: {_no_setting(key, keys, options)}"
    if given.is_add() and key in keys:
        return f"{word}: the config has {key} already; leave out the +."
    if given.is_add() or given.is_force_add() or key in keys:
        return None
    group = key.partition(".")[0]
    more = f" {OPEN[group]} takes a + in front: +{word}." if group in OPEN else ""
    return _no_setting(key, keys, options) + more


def _wrong_option(given: Override, names: Collection[str]) -> str | None:
    group, word = given.key_or_group, given.input_line
    wrong = [value for value in _values(given) if value not in names]
    if wrong:
        there = f"{group} has no option {wrong[0]}; it has {', '.join(sorted(names))}."
        return there + near(wrong[0], names, f"{group}=")
    return f"{word}: {group} is a group of this command already; leave out the +." if given.is_add() else None


def _no_setting(key: str, keys: Collection[str], options: Options) -> str:
    above = key.rpartition(".")[0]
    beside = sorted(k.rpartition(".")[2] for k in keys if above and k.rpartition(".")[0] == above)
    there = f"{above} has {', '.join(beside)}" if beside else "--help lists those there are"
    what = "not in the config" if key.partition(".")[0] in OPEN else "no setting"
    return f"{key} is {what}; {there}.{near(key, [*keys, *options])}"


def _values(given: Override) -> list[str]:
    """The options that an override of a group names."""
    value: Any = given.value()
    several = value.list if isinstance(value, ChoiceSweep) else [value]
    return [str(each) for each in several if each is not None]


def _dotted(node: object, above: str = "") -> set[str]:
    """Every key of a config, with its groups."""
    if not isinstance(node, dict):
        return set()
    own = {f"{above}{key}" for key in node}
    return own.union(*(_dotted(value, f"{above}{key}.") for key, value in node.items()))


def _unread(error: OverrideParseException) -> str:
    if "=" not in error.override:
        return f"{error.override} is no override: those are KEY=VALUE."
    return (
        f"{error.override} cannot be read: {sentence(first_line(error))} A value with spaces, commas, colons, brackets "
        "or braces is quoted twice, for the shell and for Hydra: 'KEY=\"VALUE\"'."
    )


def _in_short(error: HydraException) -> str:
    if isinstance(error, MissingConfigException) and error.options:
        return f"{sentence(first_line(error))} There is {', '.join(sorted(error.options))}."
    parts = [error, *([error.__cause__] if error.__cause__ else [])]
    return " ".join(sentence(" ".join(str(part).split())) for part in parts)
