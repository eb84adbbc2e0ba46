"""`--help` of the commands, made from the configs, so that it is always true."""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from src.cli import entry
from src.config.groups import CONF_DIR, group_options, sweep_files
from src.core import messages
from src.core.paths import can_write, check_writable

HELP = ("--help", "-h")
WIDTH = 116
GROUPS = {
    "data": "what is learned", "model": "what is fine-tuned", "adapter": "how much of it is trained",
    "optimizer": "TrainingArguments, verbatim",
    "schedule": "TrainingArguments, verbatim", "trainer": "TrainingArguments, verbatim",
    "space": "what is searched", "sampler": "who proposes settings", "pruner": "who ends trials early",
    "storage": "where the study lives", "tracking": "where its runs go", "launcher": "where its workers run",
}  # fmt: skip
"""The config groups, in the order of the page."""


@dataclass(frozen=True)
class Page:
    """The help page of one command. `config` is the primary config that its options come from."""

    command: str
    does: str
    config: str
    examples: tuple[tuple[str, str], ...]
    groups: bool = False


SWEEP = Page(
    "python -m src.sweep -m",
    "Search for the best settings. The same command again continues the study; python -m src.compare judges it.",
    "config",
    (
        ("", "the shipped reviews, MiniLM, eight trials; offline"),
        ("sweeps=sst2_distilbert", "a whole recipe from sweeps/"),
        ("data=sst2 model=distilbert study.n_trials=20", "other data, another model, more trials"),
        ("data=files data.path=reviews.csv 'data.label_names=[bad,good]' study.name=mine", "your own csv"),
        ("space.optimizer.learning_rate.high=1e-3 '~space.optimizer.weight_decay'", "another space"),
        ("pruner=asha sampler=gp workers=2", "other schedulers, two workers"),
        ("study.budget_minutes=30 study.patience=8", "ends early"),
        ("study.plan_only=true", "what it would cost, and how many workers pay; nothing is trained"),
        ("seed=1,2,3 'study.name=starter-${seed}'", "three studies, one after the other"),
        ("study.join=starter-minilm workers=2", "more workers for a study that is being searched"),
    ),
    groups=True,
)
TRAIN = Page(
    "python -m src.train",
    "Train one configuration, tracked; no study.",
    "config",
    (
        ("optimizer.learning_rate=1e-4", "the default recipe with another learning rate"),
        ("data=sst2 model=distilbert trainer.num_train_epochs=2", "other data, another model"),
    ),
    groups=True,
)
COMPARE = Page(
    "python -m src.compare",
    "The verdict on a study: its best settings and the default recipe on fresh seeds, then the sealed test split.",
    "compare",
    (
        ("", "the only study there is"),
        ("study.name=starter-minilm compare.seeds=10 compare.top_k=2", "more seeds, fewer candidates"),
        ("compare.margin=0.01 compare.plan_only=true", "what it costs and what it can show; nothing is opened"),
    ),
)
PROMOTE = Page(
    "python -m src.promote",
    "Register the winner of a comparison; the alias champion moves to it if the verdict carries that.",
    "promote",
    (
        ("promote.dry_run=true", "the decision, and nothing changed"),
        ("study.name=starter-minilm", "the study, where there are several"),
        ("promote.rollback=true", "the champion before"),
    ),
)
REPRODUCE = Page(
    "python -m src.reproduce",
    "Train a run again from its MLflow record, and compare every recorded number.",
    "reproduce",
    (("run=0123456789abcdef", "the id of a trial, a fresh-seed training or a run of src.train"),),
)
PUBLISH = Page(
    "python -m src.publish",
    "Publish the champion to the Hugging Face Hub: weights, tokenizer, card.",
    "publish",
    (
        ("repo=me/starter-minilm publish.dry_run=true", "what would go there"),
        ("repo=me/starter-minilm", "private, until you say otherwise"),
    ),
)
PAGES = {
    "sweep": SWEEP, "train": TRAIN, "compare": COMPARE, "promote": PROMOTE, "reproduce": REPRODUCE, "publish": PUBLISH,
}  # fmt: skip


def parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The argument parser of a command without Hydra. `epilog` is printed as it is."""
    return argparse.ArgumentParser(
        command, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(name: str, main: Callable[[], Any], arguments: Sequence[str] | None = None) -> None:
    """Run a Hydra command. Prints the help page for --help, and the error of overrides that Hydra cannot compose."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in HELP for word in argv):
        messages.print_page(page(PAGES[name]))
        return
    if not can_write(Path.cwd() / "mlruns"):  # Hydra would print a traceback
        with entry.handle_errors():
            check_writable(Path.cwd())
    with entry.hold_stderr() as held:
        try:
            main()
        except SystemExit as end:
            from hydra.errors import HydraException

            from src.cli import override_errors

            if entry.has_started() or not isinstance(end.__context__, HydraException):
                raise
            held.clear()  # Hydra's words
            dirs = config_dirs(argv)
            context = override_errors.ConfigSources(CONF_DIR, PAGES[name].config, groups(dirs), dirs)
            messages.print_error(override_errors.explain(end.__context__, context, argv))
            raise SystemExit(2) from None


def page(about: Page) -> str:
    """The page as text."""
    parts = [about.does, "", f"  {about.command}{' [GROUP=OPTION ...]' * about.groups} [KEY=VALUE ...]"]
    parts += ["", "Examples", *_columns([(f"{about.command} {argv}".strip(), what) for argv, what in about.examples])]
    if about.groups:
        options = group_options()
        groups = [(group, options[group], what) for group, what in GROUPS.items()]
        parts += ["", "Groups (GROUP=OPTION), each option a file in conf/GROUP/"]
        parts += _columns([(f"{group:<10} {', '.join(names)}", what) for group, names, what in groups])
        parts += ["", "Sweeps (sweeps=NAME), each a file in sweeps/"]
        parts += _columns([(file.stem, first_comment(file)) for file in sweep_files()])
    parts += [
        "",
        f"Keys and their defaults{'; those of a group are in its files' * about.groups}",
        *_keys(about.config),
    ]
    parts += [
        "", "Also", *_columns([
            ("--cfg job", "print the composed config"),
            ("--info defaults", "which file each part of it comes from"),
            ("--hydra-help", "Hydra's own flags; --multirun is -m"),
        ]),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def groups(config_dirs: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Every group of the page with its options, and the sweeps. `config_dirs`: folders of configs of one's own."""
    options = group_options()
    known = {group: options[group] for group in GROUPS} | {"sweeps": [file.stem for file in sweep_files()]}
    return {
        group: sorted({*names, *(file.stem for folder in config_dirs for file in (folder / group).glob("*.yaml"))})
        for group, names in known.items()
    }


def config_dirs(words: Sequence[str]) -> list[Path]:
    """The folders that a command line names with --config-dir or hydra.searchpath."""
    named = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    named += [after for word, after in pairwise(words) if word in ("--config-dir", "-cd")]
    for word in words:
        if word.startswith("hydra.searchpath="):
            named += re.split(r"[\[\],\s'\"]+", word.partition("=")[2])
    folders = [Path(name.removeprefix("file://")) for name in named if name]
    return [folder.absolute() for folder in folders if folder.is_dir()]


def first_comment(file: Path) -> str:
    """The first comment of a YAML file, up to the first full stop or colon."""
    lines = [line.removeprefix("# ") for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return re.split(r"[.:] |\.$", " ".join(line for line in lines if "@package" not in line))[0]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of two columns, which are wrapped. The second one begins on the next line after a long first one."""
    width = max((len(name) for name, _ in rows if len(name) <= 64), default=0)
    lines = []
    for name, what in rows:
        if len(name) > width:
            lines += textwrap.wrap(name, WIDTH, initial_indent="  ", subsequent_indent=" " * 13, break_on_hyphens=False)
            lines += textwrap.wrap(what, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
            continue
        first, *others = textwrap.wrap(what, WIDTH - width - 4) or [""]
        lines += [f"  {name:<{width}}  {first}".rstrip(), *(" " * (width + 4) + line for line in others)]
    return lines


def _keys(primary: str) -> list[str]:
    """The lines of the primary config, without Hydra's part."""
    kept: list[str] = []
    skipping = True
    for line in (CONF_DIR / f"{primary}.yaml").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            skipping = line.startswith(("defaults:", "hydra:", "worker: {"))
        if not skipping:
            kept.append(f"  {line}".rstrip())
    while kept and not kept[-1]:
        kept.pop()
    return kept
