"""Finding a study that was searched, by name, with the settings it was searched with."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from src import config
from src.errors import Refusal
from src.learning import names
from src.paths import Paths, write_whole
from src.search import space as spaces
from src.search.study import Book
from src.settings import Settings
from src.text import corpus as corpora
from src.text.corpus import Corpus

CONFIG = "config.yaml"  # of the study, in its folder


@dataclass(frozen=True)
class Studied:
    """A study as its folder tells it."""

    settings: Settings
    book: Book
    paths: Paths

    @cached_property
    def corpus(self) -> Corpus:
        """The data it was searched on. Raises Refusal if they are not what they were."""
        found = corpora.prepare(self.settings.data, self.paths.cache)
        searched = self.book.study.user_attrs["definition"]["data"]
        if searched != found.fingerprint:
            data = self.settings.data
            raise Refusal(
                f"The data of the study {self.name} have changed since it was searched: their fingerprint was "
                f"{searched} and is {found.fingerprint} ({data.path or data.hub_id}). Put the old data back, or search "
                "again under another study.name."
            )
        return found

    @property
    def name(self) -> str:
        return self.settings.study.name

    @property
    def uid(self) -> str:
        return str(self.book.study.user_attrs["uid"])

    @property
    def registry(self) -> str:
        """The registered model that its winner becomes a version of: named like the data, own files like the file."""
        data = self.settings.data
        if data.name != "files" or not data.path:
            return data.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(data.path).stem).strip("-.") or data.name

    @property
    def folder(self) -> Path:
        """Of its comparison."""
        return self.paths.comparison(self.name)


def remember(settings: Settings, folder: Path) -> None:
    """Store a study's config with it, so that its name is enough from then on."""
    write_whole(folder / CONFIG, settings.yaml)


def load(name: str | None, paths: Paths) -> Studied:
    """The study `name`, or the only one there is. Raises Refusal if it is not there."""
    folder = paths.study(name or _only(paths))
    if not (folder / CONFIG).is_file():
        there = ", ".join(known(paths)) or "none"
        raise Refusal(
            f"study.name is {folder.name}, and there is no such study in {folder.parent}; there is {there}. Search "
            "first: python -m src.sweep -m"
        )
    settings = config.restored((folder / CONFIG).read_text())
    space = spaces.of(settings)
    metric = settings.study.metric
    direction = names.direction_of(metric, settings.study.direction, len(settings.data.label_names))
    book = Book(settings, space, direction, folder)
    if not book.created():
        raise Refusal(f"The study {folder.name} was never begun: its plan is all there is. Run its sweep first.")
    return Studied(settings, book, paths)


def known(paths: Paths) -> list[str]:
    """Names of the studies whose folders are here."""
    return sorted(f.parent.name for f in paths.study("x").parent.glob(f"*/{CONFIG}"))


def _only(paths: Paths) -> str:
    there = known(paths)
    if len(there) != 1:
        found = f"there are {len(there)}: {', '.join(there)}" if there else "there is none yet; search first"
        raise Refusal(
            f"Which study is meant is not said, and in {paths.study('x').parent} {found}. "
            + ("Name one: study.name=<name>." if there else "python -m src.sweep -m")
        )
    return there[0]
