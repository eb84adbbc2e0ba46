"""`--help` of the commands: a page for people, made from the configs themselves, so that it is always true."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src import commands

ROOT = Path(__file__).resolve().parents[1]
CONF, SWEEPS = ROOT / "conf", ROOT / "sweeps"
HELP = ("--help", "-h")
WIDTH = 116
GROUPS = {
    "data": "what is learned", "model": "what is fine-tuned", "optimizer": "TrainingArguments, verbatim",
    "schedule": "TrainingArguments, verbatim", "trainer": "TrainingArguments, verbatim",
    "space": "what is searched", "sampler": "who proposes settings", "pruner": "who ends trials early",
    "storage": "where the study lives", "tracking": "where its runs go", "launcher": "where its workers run",
}  # fmt: skip
"""The config groups, in the order of the page."""


@dataclass(frozen=True)
class Page:
    """One command's: `config` is the primary config that its options come from; examples with what they do."""

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
    """For a command whose words are no Hydra overrides; `epilog` is kept as it is written."""
    return argparse.ArgumentParser(
        command, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(name: str, main: Callable[[], Any], arguments: Sequence[str] | None = None) -> None:
    """Run a command that Hydra starts; --help is answered here, and what Hydra cannot compose."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in HELP for word in given):
        print(page(PAGES[name]), end="")
        return
    with commands.held_back() as said:
        try:
            main()
        except SystemExit as end:
            from hydra.errors import HydraException

            from src import mistyped

            if commands.begun() or not isinstance(end.__context__, HydraException):
                raise
            said.clear()  # Hydra's words
            print(mistyped.answer(end.__context__, CONF, PAGES[name].config, groups(), given), file=sys.stderr)
            raise SystemExit(2) from None


def page(about: Page) -> str:
    """The whole page, as text."""
    parts = [about.does, "", f"  {about.command}{' [GROUP=OPTION ...]' * about.groups} [KEY=VALUE ...]"]
    parts += ["", "Examples", *_columns([(f"{about.command} {given}".strip(), what) for given, what in about.examples])]
    if about.groups:
        groups = [(group, options(group), what) for group, what in GROUPS.items()]
        parts += ["", "Groups (GROUP=OPTION), each option a file in conf/GROUP/"]
        parts += _columns([(f"{group:<10} {', '.join(names)}", what) for group, names, what in groups])
        parts += ["", "Sweeps (sweeps=NAME), each a file in sweeps/"]
        parts += _columns([(file.stem, first_words(file)) for file in sorted(SWEEPS.glob("*.yaml"))])
    parts += [
        "",
        f"Keys and their defaults{'; those of a group stand in its files' * about.groups}",
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


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def groups() -> dict[str, list[str]]:
    """Every group with its options."""
    return {group: options(group) for group in GROUPS} | {"sweeps": sorted(f.stem for f in SWEEPS.glob("*.yaml"))}


def first_words(file: Path) -> str:
    """What a YAML says it is: its comment, up to the first stop or colon."""
    lines = [line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("# ")]
    return re.split(r"[.:] |\.$", " ".join(line for line in lines if "@package" not in line))[0]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns; what does not fit beside its name goes below it."""
    width = max((len(name) for name, _ in rows if len(name) <= 64), default=0)
    return [
        line
        for name, what in rows
        for line in (
            [f"  {name:<{width}}  {what}"] if len(name) <= width and width + len(what) + 4 <= WIDTH
            else [f"  {name}", f"      {what}"]
        )
    ]  # fmt: skip


def _keys(primary: str) -> list[str]:
    """The primary config as it is written, without Hydra's own part."""
    kept: list[str] = []
    skipping = True
    for line in (CONF / f"{primary}.yaml").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            skipping = line.startswith(("defaults:", "hydra:", "worker: {"))
        if not skipping:
            kept.append(f"  {line}".rstrip())
    while kept and not kept[-1]:
        kept.pop()
    return kept
