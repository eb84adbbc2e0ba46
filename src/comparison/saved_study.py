"""Loads a study that was searched, by its name, with the settings it was searched with."""

import re
import unicodedata
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from src.config import compose
from src.config.settings import Settings
from src.core import own_code
from src.core.errors import InvalidInput, first_line, with_full_stop
from src.core.metric import METRICS, Metric, direction_of, register
from src.core.paths import Paths, atomic_write
from src.core.record_files import SCHEMA, SCHEMA_KEY, read_json, write_json
from src.core.records import TrialRecord
from src.data import dataset
from src.data.dataset import PreparedDataset
from src.data.files.formats import stem_of
from src.data.unlabelled import UnlabelledTexts, load_unlabelled
from src.search import space as spaces
from src.search.inheritance import Source
from src.search.study import CODE_PREFIX, Study

CONFIG_FILE = "config.yaml"  # of the study, in its folder
METRIC_FILE = "metric.json"  # what is declared of a metric of the user's own
MAX_MODEL_NAME = 100  # characters


@dataclass(frozen=True)
class SavedStudy:
    """A study with its settings, as stored in its folder."""

    settings: Settings
    study: Study
    paths: Paths

    @cached_property
    def dataset(self) -> PreparedDataset:
        """The data that it was searched on. Raises InvalidInput if they have changed."""
        searched = self.study.optuna_study.user_attrs["definition"]["data"]
        prepared = dataset.prepare_dataset(self.settings.data, self.paths.cache_dir, lambda: searched)
        if searched != prepared.fingerprint:
            data = self.settings.data
            raise InvalidInput(
                f"The data of the study {self.name} have changed since it was searched: their fingerprint was "
                f"{searched} and is {prepared.fingerprint} ({data.source}). Put the old data back, or "
                "search again under another study.name."
            )
        return prepared

    @cached_property
    def unlabelled(self) -> UnlabelledTexts | None:
        """The texts of data.unlabelled; None without any. Raises InvalidInput if they cannot be read."""
        data = self.settings.data
        return load_unlabelled(data, self.dataset) if data.unlabelled else None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.settings.study.name

    @property
    def uid(self) -> str:
        """The id that the study was given when it was created."""
        return str(self.study.optuna_study.user_attrs["uid"])

    def source_of(self, trial: TrialRecord) -> Source:
        """The trial for a study that builds on it: an inherited one is a trial of the study that trained it."""
        return self.study.sources.get(trial.number) or Source(self.name, self.uid, trial.number)

    @property
    def code(self) -> dict[str, str]:
        """The sha256 of each file of own code that it was searched with."""
        definition = self.study.optuna_study.user_attrs["definition"]
        return {key.removeprefix(CODE_PREFIX): v for key, v in definition.items() if key.startswith(CODE_PREFIX)}

    @property
    def registered_model(self) -> str:
        """The name of the registered model: the data's; for own files, the file's, in any script.

        For a loader of your own code, that of its module.
        """
        data = self.settings.data
        if data.loader:
            return data.loader.partition(own_code.BETWEEN)[0]
        if data.name != "files" or not data.path:
            return data.name
        stem = unicodedata.normalize("NFC", stem_of(Path(data.path).expanduser().absolute()))
        return re.sub(r"[/:'\"%\s]+", "-", stem).strip("-.")[:MAX_MODEL_NAME] or data.name

    @property
    def data_source(self) -> str:
        """Where the data come from, as it was typed: a Hub id, or a file or folder."""
        return self.settings.data.source

    @property
    def comparison_dir(self) -> Path:
        """The folder of its comparison."""
        return self.paths.comparison_dir(self.name)


def save_config(settings: Settings, folder: Path) -> None:
    """Save a study's config in its folder, so that later commands need its name only.

    What is declared of a metric of the user's own is saved beside it: who reads a score needs no code.
    """
    own = [asdict(METRICS[name]) for name in settings.study.measured if own_code.is_own(name)]
    if own:
        write_json(folder / METRIC_FILE, {**own[0], "further": own[1:]})
    atomic_write(folder / CONFIG_FILE, f"{SCHEMA_KEY}: {SCHEMA}\n{settings.yaml}")


def load_study(name: str | None, paths: Paths) -> SavedStudy:
    """The study `name`, or the only one. Raises InvalidInput if it does not exist."""
    folder = paths.study_dir(name or _only_study(paths))
    if not (folder / CONFIG_FILE).is_file():
        existing = ", ".join(study_names(paths)) or "none"
        raise InvalidInput(
            f"study.name is {folder.name}, and there is no such study in {folder.parent}; there is {existing}. Search "
            "first: python -m src.sweep -m"
        )
    settings = _saved_settings(folder)
    if declared := read_json(folder / METRIC_FILE, {}):
        for metric in (*declared.pop("further", []), declared):
            if metric["name"] not in METRICS:
                register(Metric(**{**metric, "tasks": tuple(metric["tasks"])}))
    space = spaces.build_space(settings)
    study = Study(settings, space, direction_of(settings.study.metric), folder)
    if not study.exists():
        raise InvalidInput(
            f"The study {folder.name} is not in its storage; only its config is in this folder. Run its sweep again."
        )
    return SavedStudy(settings, study, paths)


def _saved_settings(folder: Path) -> Settings:
    try:
        return compose.restore_settings((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except InvalidInput:
        raise
    except Exception as error:  # of YAML, OmegaConf and the settings' types
        raise InvalidInput(
            f"The config of the study {folder.name}, {folder / CONFIG_FILE}, is damaged: "
            f"{with_full_stop(first_line(error))} Run the study's sweep command again, which writes it anew."
        ) from error


def study_names(paths: Paths) -> list[str]:
    """Names of all studies in this folder."""
    return sorted(f.parent.name for f in paths.study_dir("x").parent.glob(f"*/{CONFIG_FILE}"))


def _only_study(paths: Paths) -> str:
    names = study_names(paths)
    if len(names) != 1:
        state = f"there are {len(names)}: {', '.join(names)}" if names else "there is none yet; search first"
        raise InvalidInput(
            f"No study was given, and in {paths.study_dir('x').parent} {state}. "
            + ("Name one: study.name=<name>." if names else "python -m src.sweep -m")
        )
    return names[0]
