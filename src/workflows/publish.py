"""Publishes a registered version to the Hub: weights, tokenizer, and the card of its search."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.config.settings import PublicationSettings
from src.console.output import Console
from src.core.errors import InvalidInput, first_line
from src.core.paths import Paths
from src.reports.search_record import JudgedSearch
from src.tracking import hub, logged_model, recorders, registry
from src.tracking.registry import ModelVersion
from src.tracking.store import TrackingStore, open_existing_store
from src.training import adapters


def publish(settings: PublicationSettings, paths: Paths) -> None:
    """Upload, or list what would be uploaded. Raises InvalidInput if the version is unknown or the Hub refuses."""
    console = Console()
    hub.check_repo_name(settings.repo)
    store = open_existing_store(settings.tracking_uri, paths.root)
    with _readable(store):
        version = _version(settings, store)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "repository"
        with _readable(store):
            _gather(version, store, settings, folder, Path(scratch))
        for file, size in hub.list_files(folder):
            console.print(f"  {size / 1e6:>9.3f} MB  {file}")
        if not settings.license:
            console.print(
                "  note: the card names no licence; publish.license=<the Hub's name of it>, such as apache-2.0"
            )
        which = f"version {version.number} of {version.model}"
        if settings.dry_run:
            kind = "private" if settings.private else "public"
            console.print(f"Would publish {which} as {settings.repo}, {kind}; publish.dry_run=true: nothing was sent.")
            return
        commit = hub.upload(
            folder, settings.repo, settings.private, f"{version.model} version {version.number}, by Trialbook"
        )
    console.print(f"Published {which}: {commit.url} at commit {commit.commit}")
    try:
        registry.set_version_tags(store, version, {"hub.repo": settings.repo, "hub.commit": commit.commit})
    except Exception as error:  # it is published all the same
        console.print(f"  note: the registered version could not be tagged with the commit: {first_line(error)}")


@contextmanager
def _readable(store: TrackingStore) -> Iterator[None]:
    """Turn an error of the MLflow store into InvalidInput."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # MLflow and database drivers raise errors of any type
        raise InvalidInput(f"The MLflow store at {store.address} cannot be read: {first_line(error)}") from error


def _version(settings: PublicationSettings, store: TrackingStore) -> ModelVersion:
    model = settings.registry or registry.only_model(store, "registry.model=<name>")
    if settings.version:
        return registry.get_version(store, model, settings.version)
    champion = registry.by_alias(store, model, registry.CHAMPION)
    if champion is None:
        challenger = registry.by_alias(store, model, registry.CHALLENGER)
        named = f", its challenger: publish.version={challenger.number}" if challenger else ": publish.version=<number>"
        raise InvalidInput(
            f"The registered model {model} has no champion in {store.address}: no version has passed the gate. Search, "
            f"compare and promote until one does, or name one{named}."
        )
    return champion


def _gather(
    version: ModelVersion, store: TrackingStore, settings: PublicationSettings, folder: Path, scratch: Path
) -> None:
    """Write all files of the repository to `folder`."""
    file = logged_model.download_attached(
        store, version.source, f"{recorders.CARD_DIR}/{recorders.FINDINGS_FILE}", scratch / "card"
    )
    if file is None:
        raise InvalidInput(
            f"Version {version.number} of {version.model} has no card with it, and nothing is published without "
            "evidence. Promote it again: python -m src.promote study.name=" + version.tags.get("study", "<name>")
        )
    try:
        if adapter := registry.download_adapter(store, version.uri, scratch / "adapter"):
            _check_base(adapter)
            adapters.write_for_others(adapter, folder)
        else:
            logged_model.save_without_code(registry.load_pipeline(store, version.uri), folder)
    except InvalidInput:
        raise
    except Exception as error:  # MLflow raises errors of any type
        raise InvalidInput(
            f"Version {version.number} of {version.model} cannot be loaded: {first_line(error)}"
        ) from error
    metadata = {"license": settings.license, "language": list(settings.language) or None}
    recorders.write_card(folder, JudgedSearch.from_json(file.read_text(encoding="utf-8")), settings.repo, **metadata)


def _check_base(adapter: Path) -> None:
    base = adapters.base_of(adapter)
    if not base.is_on_the_hub:
        raise InvalidInput(
            f"The version is an adapter of the weights in {base.checkpoint}, a folder of this machine, without which "
            "nobody could load it. Register the merged model: python -m src.compare without deliver.merge=false, and "
            "promote it."
        )
