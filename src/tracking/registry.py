"""The model registry: versions with their evidence, and the aliases `challenger` and `champion`."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.core.cache import content_key
from src.core.errors import InvalidInput
from src.tracking import logged_model
from src.tracking.store import TrackingStore
from src.training import inference

CHAMPION, CHALLENGER = "champion", "challenger"
SEED_RUN_TAG = "repeat"  # tag: the seed run that a version was registered from
DATA_SOURCE_TAG = "data.source"  # tag: the Hub id, file or folder that the data came from, as it was typed
ROLLED_BACK_TAG = "champion.rolled_back"  # tag: when the champion was rolled back
# tag: the version that was the champion before this one; empty if there was none
PREVIOUS_CHAMPION_TAG = "champion.before"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    model: str
    number: str
    run_id: str
    tags: Mapping[str, str]
    source: str = ""  # where its files are

    @property
    def key(self) -> str:
        """Identifies this model: a version number can be used again, in another store or after a deletion."""
        return f"champion-{content_key(self.model, self.number, self.run_id, self.source)}"

    @property
    def uri(self) -> str:
        """The address of this version."""
        return f"models:/{self.model}/{self.number}"


def model_names(store: TrackingStore) -> list[str]:
    """The names of all registered models."""
    names: list[str] = []
    token = None
    while True:
        page = store.client.search_registered_models(page_token=token)
        names += [str(m.name) for m in page]
        token = page.token
        if not token:
            return sorted(names)


def only_model(store: TrackingStore, named_by: str) -> str:
    """The only registered model. Raises InvalidInput if there are several; `named_by`: the setting that names one."""
    known = model_names(store)
    if len(known) == 1:
        return known[0]
    if known:
        raise InvalidInput(
            f"{store.address} has {len(known)} registered models: {', '.join(known)}. Name one: {named_by}."
        )
    raise InvalidInput(
        f"{store.address} has no registered model yet. Compare and promote first (python -m src.compare, python -m "
        "src.promote); src.predict also takes a trial's run: --run <id>."
    )


def by_alias(store: TrackingStore, model: str, alias: str) -> ModelVersion | None:
    """The version that the alias points to, if there is one."""
    if model not in model_names(store):
        return None
    aliases = store.client.get_registered_model(model).aliases
    return find_version(store, model, str(aliases[alias])) if alias in aliases else None


def find_version(store: TrackingStore, model: str, number: str) -> ModelVersion | None:
    """One version by its number, if there is one."""
    return next((v for v in list_versions(store, model) if v.number == number), None)


def get_version(store: TrackingStore, model: str, number: str) -> ModelVersion:
    """Raises InvalidInput if there is no such version."""
    version = find_version(store, model, number)
    if version is None:
        known = ", ".join(v.number for v in list_versions(store, model)) or "none"
        raise InvalidInput(f"The version asked for is {number}; the registered model {model} has {known}.")
    return version


def set_version_tags(store: TrackingStore, version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Tags on a version."""
    for key, value in tags.items():
        store.client.set_model_version_tag(version.model, version.number, key, value)


def version_of_seed_run(store: TrackingStore, model: str, seed_run: str) -> ModelVersion | None:
    """The version that was registered from this seed run, if there is one."""
    return next((v for v in list_versions(store, model) if v.tags.get(SEED_RUN_TAG) == seed_run), None)


def list_versions(store: TrackingStore, model: str) -> list[ModelVersion]:
    """All versions of a registered model; none if there is no such model."""
    versions = store.client.search_model_versions(f"name = '{model}'") if model in model_names(store) else []
    return [ModelVersion(model, str(v.version), str(v.run_id or ""), dict(v.tags), str(v.source)) for v in versions]


def register(
    store: TrackingStore, model: str, uri: str, run_id: str, tags: Mapping[str, str], description: str
) -> ModelVersion:
    """Register a logged model as a version of `model`, with its evidence, once per seed run.

    If it is registered again, the version keeps its number and gets the new evidence.

    Args:
        store: of the registry.
        model: name of the registered model.
        uri: of the logged model.
        run_id: of the run that logged it.
        tags: of the version; SEED_RUN_TAG identifies the seed run.
        description: Markdown.
    """
    version = version_of_seed_run(store, model, tags[SEED_RUN_TAG])
    if version is None:
        if model not in model_names(store):
            store.client.create_registered_model(model)
        model_id = uri.removeprefix("models:/")
        logged = store.client.get_logged_model(model_id)
        created = store.client.create_model_version(
            model, logged.artifact_location, run_id=run_id, tags=dict(tags), description=description, model_id=model_id
        )
        version = ModelVersion(model, str(created.version), run_id, tags, str(created.source))
    set_version_tags(store, version, tags)
    store.client.update_model_version(model, version.number, description=description)
    return version


def set_alias(store: TrackingStore, version: ModelVersion, alias: str) -> None:
    """Point the alias to this version. A new champion gets a tag with the one before it."""
    if alias == CHAMPION:
        before = by_alias(store, version.model, CHAMPION)
        if before is None or before.number != version.number:
            number = before.number if before else ""
            store.client.set_model_version_tag(version.model, version.number, PREVIOUS_CHAMPION_TAG, number)
            if ROLLED_BACK_TAG in version.tags:
                store.client.delete_model_version_tag(version.model, version.number, ROLLED_BACK_TAG)
    store.client.set_registered_model_alias(version.model, alias, version.number)


def roll_back(store: TrackingStore, now: ModelVersion, before: ModelVersion) -> None:
    """Point `champion` to the version `before` again. The current one gets a tag that says so."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    store.client.set_model_version_tag(now.model, now.number, ROLLED_BACK_TAG, when)
    store.client.set_registered_model_alias(now.model, CHAMPION, before.number)


def load_pipeline(store: TrackingStore, uri: str) -> Any:
    """The transformers pipeline at a model's URI. Raises MLflow's errors if it is none."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    with tempfile.TemporaryDirectory() as scratch:
        if adapter := download_adapter(store, uri, Path(scratch)):
            return inference.load_classifier(adapter)
    try:
        return mlflow.transformers.load_model(uri)
    except PermissionError:  # MLflow writes a version's name into its folder, which can only be read
        with tempfile.TemporaryDirectory() as scratch:
            return mlflow.transformers.load_model(mlflow.artifacts.download_artifacts(uri, dst_path=scratch))


def download_adapter(store: TrackingStore, uri: str, folder: Path) -> Path | None:
    """The adapter at a model's URI, downloaded into `folder`; None if it is a plain model of transformers."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    return logged_model.adapter_folder(uri, folder)
