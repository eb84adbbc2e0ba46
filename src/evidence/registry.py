"""The model registry: versions with their evidence, and the aliases `challenger` and `champion`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.errors import Refusal
from src.evidence.store import Store
from src.text.corpus import content_key

CHAMPION, CHALLENGER = "champion", "challenger"
REPEAT = "repeat"  # tag: which training of which comparison a version is
ROLLED_BACK = "champion.rolled_back"  # tag: when it was the champion no longer, by hand
BEFORE = "champion.before"  # tag: the version that was the champion before this one; empty: there was none


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    model: str
    number: str
    run_id: str
    tags: Mapping[str, str]
    source: str = ""  # where its files are

    @property
    def key(self) -> str:
        """Names this very model: a number may be given out anew, in another store or after a deletion."""
        return f"champion-{content_key(self.model, self.number, self.run_id, self.source)}"

    @property
    def uri(self) -> str:
        return f"models:/{self.model}/{self.number}"


def models(store: Store) -> list[str]:
    """The names of all registered models."""
    found: list[str] = []
    token = None
    while True:
        page = store.client.search_registered_models(page_token=token)
        found += [str(m.name) for m in page]
        token = page.token
        if not token:
            return sorted(found)


def only_model(store: Store, named_by: str) -> str:
    """The only registered model there is. Raises Refusal where there are others; `named_by`: how one is named."""
    known = models(store)
    if len(known) == 1:
        return known[0]
    if known:
        raise Refusal(f"{store.address} has {len(known)} registered models: {', '.join(known)}. Name one: {named_by}.")
    raise Refusal(
        f"{store.address} has no registered model yet. Compare and promote first (python -m src.compare, python -m "
        "src.promote); src.predict also takes a trial's run: --run <id>."
    )


def by_alias(store: Store, model: str, alias: str) -> Version | None:
    """The version that the alias points to, if there is one."""
    if model not in models(store):
        return None
    aliases = store.client.get_registered_model(model).aliases
    return version(store, model, str(aliases[alias])) if alias in aliases else None


def version(store: Store, model: str, number: str) -> Version | None:
    """One version by its number, if there is one."""
    return next((v for v in versions(store, model) if v.number == number), None)


def of_number(store: Store, model: str, number: str) -> Version:
    """Raises Refusal if there is no such version."""
    found = version(store, model, number)
    if found is None:
        known = ", ".join(v.number for v in versions(store, model)) or "none"
        raise Refusal(f"The version asked for is {number}; the registered model {model} has {known}.")
    return found


def note(store: Store, version: Version, tags: Mapping[str, str]) -> None:
    """Tags on a version."""
    for key, value in tags.items():
        store.client.set_model_version_tag(version.model, version.number, key, value)


def of_repeat(store: Store, model: str, repeat: str) -> Version | None:
    """The version that this training is, if it is one."""
    return next((v for v in versions(store, model) if v.tags.get(REPEAT) == repeat), None)


def versions(store: Store, model: str) -> list[Version]:
    found = store.client.search_model_versions(f"name = '{model}'") if model in models(store) else []
    return [Version(model, str(v.version), str(v.run_id or ""), dict(v.tags), str(v.source)) for v in found]


def register(store: Store, model: str, uri: str, run_id: str, tags: Mapping[str, str], description: str) -> Version:
    """The logged model at `uri` as a version of `model`, with its evidence; once per `tags[REPEAT]`.

    Registered again, a version keeps its number and gets the newer evidence.
    """
    known = of_repeat(store, model, tags[REPEAT])
    if known is None:
        if model not in models(store):
            store.client.create_registered_model(model)
        model_id = uri.removeprefix("models:/")
        logged = store.client.get_logged_model(model_id)
        made = store.client.create_model_version(
            model, logged.artifact_location, run_id=run_id, tags=dict(tags), description=description, model_id=model_id
        )
        known = Version(model, str(made.version), run_id, tags, str(made.source))
    note(store, known, tags)
    store.client.update_model_version(model, known.number, description=description)
    return known


def point(store: Store, version: Version, alias: str) -> None:
    """Let the alias point to this version; a new champion remembers the one before it."""
    if alias == CHAMPION:
        before = by_alias(store, version.model, CHAMPION)
        if before is None or before.number != version.number:
            number = before.number if before else ""
            store.client.set_model_version_tag(version.model, version.number, BEFORE, number)
            if ROLLED_BACK in version.tags:
                store.client.delete_model_version_tag(version.model, version.number, ROLLED_BACK)
    store.client.set_registered_model_alias(version.model, alias, version.number)


def roll_back(store: Store, now: Version, before: Version) -> None:
    """Let `champion` point to the version `before` again; the one that was keeps a note of it."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    store.client.set_model_version_tag(now.model, now.number, ROLLED_BACK, when)
    store.client.set_registered_model_alias(now.model, CHAMPION, before.number)


def load(store: Store, uri: str) -> Any:
    """The transformers pipeline behind a model's URI. Raises what MLflow raises if it is none."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    return mlflow.transformers.load_model(uri)
