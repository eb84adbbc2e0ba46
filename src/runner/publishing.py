"""A registered version to the Hub: weights, tokenizer, and the card of the search that it came from."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src import mirror
from src.errors import Refusal, first_line
from src.evidence import delivered, hub, registry
from src.evidence.registry import Version
from src.evidence.store import Store, existing_store
from src.pages.findings import Findings
from src.paths import Paths
from src.settings import PublicationSettings


def publish(asked: PublicationSettings, paths: Paths) -> None:
    """Send, or list what would be sent. Raises Refusal for versions that are not there and repositories that refuse."""
    hub.check_name(asked.repo)
    store = existing_store(asked.tracking_uri, paths.root)
    with _readable(store):
        version = _version(asked, store)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "repository"
        with _readable(store):
            _gather(version, store, asked, folder, Path(scratch))
        for file, size in hub.files(folder):
            print(f"  {size / 1e6:>9.3f} MB  {file}")
        if not asked.license:
            print("  note: the card names no licence; publish.license=<the Hub's name of it>, such as apache-2.0")
        which = f"version {version.number} of {version.model}"
        if asked.dry_run:
            kind = "private" if asked.private else "public"
            print(f"Would publish {which} as {asked.repo}, {kind}; publish.dry_run=true: nothing was sent.")
            return
        sent = hub.send(folder, asked.repo, asked.private, f"{version.model} version {version.number}, by Trialbook")
    print(f"Published {which}: {sent.url} at commit {sent.commit}")
    try:
        registry.note(store, version, {"hub.repo": asked.repo, "hub.commit": sent.commit})
    except Exception as error:  # it is published all the same
        print(f"  note: the version does not tell so: {first_line(error)}")


@contextmanager
def _readable(store: Store) -> Iterator[None]:
    """A store that is down, or refuses, is said in one sentence."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:  # MLflow and the drivers raise what they like
        raise Refusal(f"The MLflow store at {store.address} cannot be read: {first_line(error)}") from error


def _version(asked: PublicationSettings, store: Store) -> Version:
    model = asked.registry or registry.only_model(store, "registry.model=<name>")
    if asked.version:
        return registry.of_number(store, model, asked.version)
    champion = registry.by_alias(store, model, registry.CHAMPION)
    if champion is None:
        challenger = registry.by_alias(store, model, registry.CHALLENGER)
        named = f", its challenger: publish.version={challenger.number}" if challenger else ": publish.version=<number>"
        raise Refusal(
            f"The registered model {model} has no champion in {store.address}: no version has passed the gate. Search, "
            f"compare and promote until one does, or name one{named}."
        )
    return champion


def _gather(version: Version, store: Store, asked: PublicationSettings, folder: Path, scratch: Path) -> None:
    """Everything that belongs into the repository, in `folder`."""
    file = delivered.attached(store, version.source, f"{mirror.CARD}/{mirror.FINDINGS}", scratch / "card")
    if file is None:
        raise Refusal(
            f"Version {version.number} of {version.model} has no card with it, and nothing is published without "
            "evidence. Promote it again: python -m src.promote study.name=" + version.tags.get("study", "<name>")
        )
    try:
        classifier = registry.load(store, version.uri)
    except Exception as error:  # MLflow raises what it likes
        raise Refusal(f"Version {version.number} of {version.model} cannot be loaded: {first_line(error)}") from error
    classifier.save_pretrained(str(folder))
    said = {"license": asked.license, "language": list(asked.language) or None}
    mirror.write_card(folder, Findings.from_json(file.read_text()), asked.repo, **said)
