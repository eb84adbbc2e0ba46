"""Explains overrides that Hydra cannot compose: what is wrong, where it is written, what is allowed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from src.core.errors import did_you_mean, first_line, mask_secrets, with_full_stop

Options = Mapping[str, Collection[str]]  # of each config group
OPEN_GROUPS = {  # groups that accept keys which the config does not have
    "optimizer": "A further field of transformers.TrainingArguments",
    "schedule": "A further field of transformers.TrainingArguments",
    "trainer": "A further field of transformers.TrainingArguments",
    "space": "A further setting to search",
}


@dataclass(frozen=True)
class ConfigSources:
    """What a command composes its config from."""

    folder: Path  # of the project's configs
    primary: str  # the config that the command composes
    options: Options
    search_path: Sequence[Path] = ()  # folders of the user's own configs


def explain(error: HydraException, sources: ConfigSources, words: Iterable[str]) -> str:
    """All problems of the overrides in `words`; if none is found, Hydra's own `error` in short.

    Args:
        error: what Hydra raised.
        sources: of the command.
        words: of the command line.
    """
    if isinstance(error, OverrideParseException):
        return mask_secrets(_unparsable(error))
    problems: list[str | None] = []
    with suppress(Exception):  # the problem is elsewhere, and Hydra's own error says where
        overrides = list(_read(words))
        keys, groups = _keys_and_groups(sources, overrides)
        options = {group: sources.options[group] for group in groups}
        problems = [_problem(override, keys, options) for override in overrides]
    return mask_secrets("\n".join(line for line in problems if line) or _in_short(error))


def _read(words: Iterable[str]) -> Iterable[Override]:
    parser = OverridesParser.create()
    for word in words:
        if not word.startswith("-") and ("=" in word or word.startswith("~")):
            with suppress(OverrideParseException):  # not an override, but the value of a flag
                yield parser.parse_override(word)


def _keys_and_groups(sources: ConfigSources, overrides: Sequence[Override]) -> tuple[set[str], list[str]]:
    """Keys and groups of the config with the options that are given and exist."""
    options, primary = sources.options, sources.primary
    chosen = [
        f"{group}={values[0]}"
        for each in overrides
        if (group := each.key_or_group) in options and len(values := _values(each)) == 1
        if values[0] in options[group] and not each.is_add()
    ]
    if sources.search_path:
        chosen.append(f"hydra.searchpath=[{','.join(repr(f'file://{folder}') for folder in sources.search_path)}]")
    with hydra.initialize_config_dir(str(sources.folder), version_base="1.3"):
        try:
            composed = hydra.compose(primary, chosen, return_hydra_config=True)
        except HydraException:  # a group that this command does not have
            composed = hydra.compose(primary, return_hydra_config=True)
    keys = {key for key in _dotted(OmegaConf.to_container(composed, resolve=False)) if key.partition(".")[0] != "hydra"}
    return keys, [group for group in composed.hydra.runtime.choices if group in options]


def _problem(words: Override, keys: Collection[str], options: Options) -> str | None:
    """The problem of one override, if it has one."""
    key, word = words.key_or_group, words.input_line
    if key.startswith("hydra"):
        return None
    if key in options:
        return _unknown_option(words, options[key])
    if words.is_delete():
        return None if key in keys else f"{word}: {_unknown_key(key, keys, options)}"
    if words.is_add() and key in keys:
        return f"{word}: the config has {key} already; leave out the +."
    value = words.value()
    is_mapping_here = any(known.startswith(f"{key}.") for known in keys)
    if key in keys and not words.is_add() and isinstance(value, dict if not is_mapping_here else list) and value:
        kinds = ("a mapping", "a list") if is_mapping_here else ("a list", "a mapping")
        return (
            f"{word}: {key} is {kinds[0]} in this config, and {kinds[1]} cannot be merged with it. Take the old value "
            f"out first: '~{key}' '+{word}'."
        )
    inside = [f"{key}.{name}" for name in value] if isinstance(value, dict) else []
    unknown = next((name for name in inside if name not in keys), None) if key in keys else key
    if words.is_add() or words.is_force_add() or unknown is None:
        return None
    key, group = unknown, key.partition(".")[0]
    more = f" {OPEN_GROUPS[group]} needs a + in front: +{word}." if group in OPEN_GROUPS else ""
    return _unknown_key(key, keys, options) + more


def _unknown_option(words: Override, names: Collection[str]) -> str | None:
    group, word = words.key_or_group, words.input_line
    wrong = [value for value in _values(words) if value not in names]
    if wrong:
        allowed = f"{group} has no option {wrong[0]}; it has {', '.join(sorted(names))}."
        return allowed + did_you_mean(wrong[0], names, f"{group}=")
    return f"{word}: {group} is a group of this command already; leave out the +." if words.is_add() else None


def _unknown_key(key: str, keys: Collection[str], options: Options) -> str:
    above = key.rpartition(".")[0]
    beside = sorted(k.rpartition(".")[2] for k in keys if above and k.rpartition(".")[0] == above)
    allowed = f"{above} has {', '.join(beside)}" if beside else "--help lists those there are"
    what = "not in the config" if key.partition(".")[0] in OPEN_GROUPS else "not a setting"
    return f"{key} is {what}; {allowed}.{did_you_mean(key, [*keys, *options])}"


def _values(words: Override) -> list[str]:
    """The options that an override of a group names."""
    value: Any = words.value()
    several = value.list if isinstance(value, ChoiceSweep) else [value]
    return [str(each) for each in several if each is not None]


def _dotted(node: object, above: str = "") -> set[str]:
    """Every key of a config, with its groups."""
    if not isinstance(node, dict):
        return set()
    keys = {f"{above}{key}" for key in node}
    return keys.union(*(_dotted(value, f"{above}{key}.") for key, value in node.items()))


def _unparsable(error: OverrideParseException) -> str:
    if "=" not in error.override:
        return f"{error.override} is not an override; an override is KEY=VALUE."
    first = first_line(error)
    why = "" if first.startswith("LexerNoViableAlt") else f" {with_full_stop(first)}"  # it only repeats the override
    return (
        f"{error.override} cannot be read.{why} A value with spaces, commas, colons, brackets, braces or letters other "
        "than a to z is quoted twice, for the shell and for Hydra: 'KEY=\"VALUE\"'."
    )


def _in_short(error: HydraException) -> str:
    if isinstance(error, MissingConfigException) and error.options:
        return f"{with_full_stop(first_line(error))} There is {', '.join(sorted(error.options))}."
    parts = [error, *([error.__cause__] if error.__cause__ else [])]
    return " ".join(with_full_stop(" ".join(str(part).split())) for part in parts)
