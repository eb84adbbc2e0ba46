"""Who stands in a comparison (baselines, default recipe, the study's best settings, champion), and on which seeds."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from src import config, mirror
from src.errors import Refusal
from src.learning.checkpoints import BEST
from src.paths import write_whole
from src.records import Outcome, Point, Record, TrialRecord
from src.runner.studies import CONFIG, Studied
from src.search import stopping
from src.search.study import DEFAULT_RECIPE
from src.settings import ComparisonSettings, Settings
from src.text.corpus import content_key

BASELINE, DEFAULT, TUNED, CHAMPION = "baseline", "default", "tuned", "champion"
LINE_UP, LAUNCH = "line-up.json", "launch.lock"
ROW = 2007  # keeps the row of fresh seeds apart from other uses of the study's seed
TRAINING = "training"  # in a repeat's folder: checkpoints and best weights


@dataclass(frozen=True)
class Contender(Record):
    """One of them. `key` names its folder: of a recipe, everything its training depends on but the seed."""

    name: str
    kind: str
    key: str
    about: str
    yaml: str = ""  # of a recipe: the whole config of the training
    trial: int | None = None
    search_score: float | None = None
    version: str = ""  # of the champion, in the registry
    uri: str = ""  # of the champion's model
    note: str = ""

    @property
    def trained(self) -> bool:
        """Whether it is a recipe, to be trained on fresh seeds."""
        return self.kind in (DEFAULT, TUNED)

    def settings(self, seed: int | None = None) -> Settings:
        return config.restored(self.yaml, seed)


@dataclass(frozen=True)
class LineUp:
    """The contenders and the fresh seeds."""

    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def with_champion(self, champion: Contender) -> "LineUp":
        """And the current champion against them."""
        notes = (f"the champion ({champion.about}) {champion.note}",) if champion.note else ()
        return replace(self, contenders=(*self.contenders, champion), notes=(*self.notes, *notes))

    @property
    def candidates(self) -> list[Contender]:
        """Among whom the winner is chosen: the tuned settings, best in the search first, and the default recipe."""
        return [*self.tuned, *(c for c in self.contenders if c.kind == DEFAULT)]

    @property
    def tuned(self) -> list[Contender]:
        return [c for c in self.contenders if c.kind == TUNED]

    @property
    def recipes(self) -> list[Contender]:
        return [c for c in self.contenders if c.trained]

    @property
    def fixed(self) -> list[Contender]:
        """Those that are judged as they stand."""
        return [c for c in self.contenders if not c.trained]

    @property
    def champion(self) -> Contender | None:
        return next((c for c in self.contenders if c.kind == CHAMPION), None)

    @property
    def key(self) -> str:
        """Changes with whatever changes what is compared."""
        return content_key(*(f"{c.name} {c.key}" for c in self.contenders), *map(str, self.seeds))

    @property
    def base(self) -> str:
        """The key as it would be without the champion."""
        return replace(self, contenders=tuple(c for c in self.contenders if c.kind != CHAMPION)).key

    def write(self, folder: Path) -> None:
        whole = {**asdict(self), "contenders": [asdict(c) for c in self.contenders]}
        write_whole(folder / LINE_UP, json.dumps(whole, indent=1))

    @staticmethod
    def read(folder: Path) -> "LineUp":
        found = json.loads((folder / LINE_UP).read_text())
        contenders = tuple(Contender(**c) for c in found["contenders"])
        return LineUp(contenders, tuple(found["seeds"]), tuple(found["notes"]))


@dataclass(frozen=True)
class Repeat:
    """A recipe on one seed: its folder below the comparison's."""

    contender: Contender
    seed: int
    folder: Path

    @property
    def training(self) -> Path:
        return self.folder / TRAINING

    @property
    def weights(self) -> Path:
        """There once the training has ended, until the comparison lets go of them."""
        return self.training / BEST

    @property
    def answers(self) -> Path:
        """Chances for the test split, [n_examples, n_labels]."""
        return self.folder / "test.npy"

    def outcome(self) -> Outcome | None:
        file = self.folder / "outcome.json"
        return Outcome.from_json(file.read_text()) if file.exists() else None


def repeats(line_up: LineUp, folder: Path) -> Iterator[Repeat]:
    """Every training there is to do or done, seed by seed, so that all recipes get on alike."""
    for seed in line_up.seeds:
        for contender in line_up.recipes:
            yield repeat(contender, seed, folder)


def launch_lock(folder: Path) -> FileLock:
    """Held by the process that compares. Who looks whether it is held has it for a moment: it is waited for so long."""
    return FileLock(folder / LAUNCH, timeout=1)


def launched(folder: Path) -> bool:
    """Whether a living process compares the study whose comparison is kept in `folder`."""
    if not (folder / LAUNCH).exists():
        return False
    try:
        with launch_lock(folder).acquire(blocking=False):
            return False
    except Timeout:
        return True


def repeat(contender: Contender, seed: int, folder: Path) -> Repeat:
    return Repeat(contender, seed, repeat_folder(contender.key, seed, folder))


def repeat_folder(key: str, seed: int, folder: Path) -> Path:
    """Of one training in a comparison's folder."""
    return folder / "repeats" / key / str(seed)


def fixed_answers(contender: Contender, folder: Path) -> Path:
    """Where the answers of a contender without seeds are kept."""
    return folder / "fixed" / contender.key / "test.npy"


def line_up(studied: Studied, asked: ComparisonSettings) -> LineUp:
    """Choose the study's own contenders. Raises Refusal if the study has no tuned settings to judge."""
    book = studied.book
    if held := book.in_work():
        raise Refusal(
            f"The study {studied.name} is being searched: trials {', '.join(map(str, held))} are in work. Compare when "
            "it is over."
        )
    done = book.baselines()
    baselines = [
        Contender(name, BASELINE, f"baseline-{name}", "", search_score=done[name].score)
        for name in book.rules.baselines
        if name in done and done[name].score is not None
    ]
    ranked = stopping.ranked(book.trials(), book.direction)
    tried = next((t for t in ranked if t.origin == DEFAULT_RECIPE), None)
    # The config may have changed since: values of what is searched change nothing in a study that has begun.
    yaml = _yaml_of(studied, tried) if tried else (book.folder / CONFIG).read_text()
    default = _recipe(studied, "default", DEFAULT, yaml, tried)
    tuned: list[Contender] = []
    for trial in ranked:
        if len(tuned) == asked.top_k:
            break
        made = _recipe(studied, f"trial-{trial.number}", TUNED, _yaml_of(studied, trial), trial)
        if made.key not in {c.key for c in (default, *tuned)}:
            tuned.append(made)
    if not tuned and not book.enough():
        raise Refusal(
            f"The study {studied.name} is not over, and no trial with tuned settings is COMPLETE yet: "
            f"{len(book.ended())} of {book.rules.n_trials} trials have ended. Go on with the command that began it, "
            "and compare then."
        )
    if not tuned:
        raise Refusal(
            f"The study {studied.name} has no COMPLETE trial with tuned settings: there is nothing to judge beside the "
            "default recipe. Search on: python -m src.sweep -m study.n_trials=<more>."
        )
    notes = [] if book.enough() else ["the study is not over; its search may find other settings yet"]
    return LineUp((*baselines, default, *tuned), fresh_seeds(studied, asked.seeds), tuple(notes))


def fresh_seeds(studied: Studied, n: int) -> tuple[int, ...]:
    """The first `n` of a row of seeds that the study's own seed begins, without those the search used."""
    settings = studied.settings
    used = {settings.recipe.seed, settings.study.seed}
    row = np.random.default_rng([settings.study.seed, ROW]).permutation(np.arange(1, 100_000))
    return tuple(int(seed) for seed in row[: n + len(used)] if int(seed) not in used)[:n]


def params_of(contender: Contender, keys: Sequence[str]) -> Point:
    """The searched settings of a recipe, by dotted key."""
    if not contender.yaml:
        return {}
    settings = contender.settings()
    values = {**settings.choices, **settings.recipe.flat()}
    return {key: values[key] for key in keys if key in values}


def _recipe(studied: Studied, name: str, kind: str, yaml: str, trial: TrialRecord | None) -> Contender:
    settings = config.restored(yaml)
    goal = (settings.study.metric, settings.study.rungs, settings.study.rung_examples)
    recipe = {k: v for k, v in settings.recipe.flat().items() if k not in ("seed", "model.name")}
    key = content_key(json.dumps([recipe, goal], sort_keys=True, default=str), studied.corpus.fingerprint)
    about = "" if trial is None else f"trial {trial.number}"
    return Contender(name, kind, key, about, yaml, trial.number if trial else None, trial.score if trial else None)


def _yaml_of(studied: Studied, trial: TrialRecord) -> str:
    found = mirror.trial_run(studied.book, trial.number).read_text("config.yaml")
    if found is None:
        raise Refusal(
            f"Trial {trial.number} of {studied.name} has no config on record: {studied.book.folder} is damaged."
        )
    return found
