"""Promotion: from a comparison's verdict to the registry's aliases. It is decided by records alone."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from filelock import FileLock

from src import mirror
from src.errors import Declined, Refusal
from src.evidence import delivered, registry
from src.evidence.registry import CHALLENGER, CHAMPION, REPEAT, Version
from src.evidence.store import Store, existing_store, open_store, tracking_uri
from src.learning.checkpoints import BEST
from src.paths import Paths
from src.runner import contenders, judging, reporting, studies
from src.runner.contenders import TRAINING
from src.runner.studies import Studied
from src.search.account import Account
from src.settings import PromotionSettings, TrackingSettings
from src.verdict import tables
from src.verdict.record import BETTER, WORSE, Against, Verdict, recorded


@dataclass(frozen=True)
class Decision:
    """What the records say is to be done with the alias `champion`."""

    moves: bool
    why: str
    against: Against | None


def promote(asked: PromotionSettings, paths: Paths) -> None:
    """Register the winner as `challenger`, and let `champion` point to it if the verdict carries that.

    Raises Declined (exit code 3) when it does not: the winner is registered all the same.
    """
    if asked.rollback:
        _roll_back(asked, paths)
        return
    studied = studies.load(asked.study, paths)
    account = Account(studied.settings)
    verdict = _verdict(asked, studied)
    store = open_store(studied.settings.tracking, paths.root)
    champion = registry.by_alias(store, verdict.registry, CHAMPION)
    if champion and champion.tags.get(REPEAT) == judging.registered_name(verdict):
        account.say(
            f"Version {champion.number} of {verdict.registry} is this verdict's winner, and the champion already."
        )
        uri = delivered.logged_model(store, champion.run_id)
        if uri and (problem := reporting.attach(studied, verdict, store, uri)):
            account.say(f"  note: {problem}")
        return
    decision = decide(verdict, champion, registry.of_repeat(store, verdict.registry, judging.registered_name(verdict)),
                      asked.again)  # fmt: skip
    winner = verdict.contender(verdict.winner)
    own, mean = winner.registered.test[verdict.metric], winner.test[verdict.metric]
    seeds = f"seed {winner.registered_seed}, the median of {len(verdict.seeds)} fresh seeds on validation"
    account.say(f"{verdict.winner} of {studied.name}, {seeds}")
    shown = f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]"
    account.say(f"  test {verdict.metric} {own:.4f}; mean over the seeds {shown}")
    if asked.dry_run:
        moves = "would become" if decision.moves else "would not become"
        account.say(f"  would be registered as a version of {verdict.registry}, alias {CHALLENGER}")
        account.say(f"  {moves} {CHAMPION}: {decision.why}\n  promote.dry_run=true: nothing was changed")
        if not decision.moves:
            raise Declined(f"It would not be promoted: {decision.why}.")
        return
    with FileLock(paths.root / "mlruns" / ".promote.lock"):
        version = _register(studied, verdict, decision, store, account)
        registry.point(store, version, CHALLENGER)
        account.say(f"  version {version.number} of {version.model}, alias {CHALLENGER}")
        decision = decide(verdict, registry.by_alias(store, verdict.registry, CHAMPION), version, asked.again)
        if not decision.moves:
            raise Declined(f"{CHAMPION} was not moved: {decision.why}.")
        registry.point(store, version, CHAMPION)
    account.say(f"  alias {CHAMPION}: {decision.why}")
    uri = f"models:/{version.model}@{CHAMPION}"
    account.say(f'  load it     {mirror.how_to_load(uri)}\n  predict     python -m src.predict "a warm, funny film"\n'
                f"  serve it    mlflow models serve -m {uri} --env-manager local")  # fmt: skip
    if store.uri != tracking_uri(TrackingSettings(None, ""), paths.root):
        account.say(f"  with MLFLOW_TRACKING_URI={store.address} in the environment")


def decide(verdict: Verdict, champion: Version | None, own: Version | None = None, again: bool = False) -> Decision:
    """The gate: better than the champion there is, or, where there is none, than the best baseline.

    Whoever is shown to be worse than the default recipe does not pass it, and `own`, the verdict's version if there is
    one, not after it was rolled back, unless `again`.
    """
    if own is not None and registry.ROLLED_BACK in own.tags and not again:
        when = own.tags[registry.ROLLED_BACK]
        why = f"version {own.number} was the champion and was rolled back on {when}"
        return Decision(False, f"{why}; promote.again=true moves the alias all the same", None)
    if (champion.key if champion else "") != verdict.champion_key:
        now = f"version {champion.number}" if champion else "nobody"
        then = f"version {verdict.champion}" if verdict.champion else "nobody"
        return Decision(False, f"the champion of {verdict.registry} is {now} now, and was {then} when the verdict was "
                        f"made; compare again: python -m src.compare study.name={verdict.study}", None)  # fmt: skip
    other = "champion" if champion else verdict.best_baseline
    against = verdict.versus(other)
    named = f"the champion, version {champion.number}" if champion else f"the best baseline, {other or 'none'}"
    if against is None:
        return Decision(False, f"there is no verdict against {named}", None)
    said = f"{against.metric} {tables.signed(against.difference)}"
    default = verdict.versus("default")
    if default is not None and default.verdict == WORSE:
        shown = f"it is worse than the default recipe, {default.metric} {tables.signed(default.difference)}"
        return Decision(False, f"{shown} on {verdict.test_examples} test examples", against)
    if against.verdict == BETTER:
        return Decision(True, f"better than {named}, {said}", against)
    margin = f" by more than {verdict.margin:g}" if verdict.margin else ""
    what = "worse than" if against.verdict == WORSE else f"not shown to be better{margin} than"
    return Decision(False, f"it is {what} {named}: {said} on {verdict.test_examples} test examples", against)


def evidence(verdict: Verdict, decision: Decision, config: str, run_ids: Mapping[str, str]) -> dict[str, str]:
    """A version's tags: what it is, and what is known of it. `config`: of the training, as it stands on its run."""
    winner = verdict.contender(verdict.winner)
    mean = winner.test[verdict.metric]
    against = decision.against
    shown = {
        f"verdict.against.{a.other}": f"{a.verdict}: {a.metric} {tables.signed(a.difference)}, McNemar p {a.p:.3g}"
        for a in verdict.against
    }
    return {
        REPEAT: judging.registered_name(verdict),
        "study": verdict.study,
        "verdict": against.verdict if against else "none",
        "verdict.against": against.other if against else "",
        "verdict.margin": f"{verdict.margin:g}",
        **shown,
        f"test.{verdict.metric}": f"{winner.registered.test[verdict.metric]:.4f}",
        f"test.{verdict.metric}.mean_over_seeds": f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        "test.examples": str(verdict.test_examples),
        "test.openings": str(verdict.openings),
        "seed": str(winner.registered_seed),
        "seeds": ", ".join(map(str, verdict.seeds)),
        **{f"data.fingerprint.{split}": value for split, value in verdict.fingerprints.items()},
        "config.sha256": hashlib.sha256(config.encode()).hexdigest(),
        **run_ids,
        "promoted.at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _verdict(asked: PromotionSettings, studied: Studied) -> Verdict:
    verdict = recorded(studied.folder)
    command = f"python -m src.compare study.name={studied.name}"
    if verdict is None:
        raise Refusal(
            f"There is no verdict on the study {studied.name}, and nothing is registered without evidence. Compare "
            f"first: {command}"
        )
    if asked.registry not in (None, verdict.registry):
        raise Refusal(
            f"registry.model is {asked.registry}, and the verdict on {studied.name} is about the registered model "
            f"{verdict.registry}. Compare with that model's champion first: {command} registry.model={asked.registry}"
        )
    return verdict


def _register(studied: Studied, verdict: Verdict, decision: Decision, store: Store, account: Account) -> Version:
    """Log the median repeat's weights as a model, once, and make it a version with its evidence."""
    winner = verdict.contender(verdict.winner)
    assert winner.registered_seed is not None
    folder = contenders.repeat_folder(winner.key, winner.registered_seed, studied.folder)
    run = mirror.repeat_run(studied.book, studied.folder, winner.key, winner.name, winner.registered_seed)
    run_id = run.run_id(store)
    uri = delivered.logged_model(store, run_id)
    if uri is None:
        if not (folder / TRAINING / BEST).is_dir():
            raise Refusal(
                f"The winner's weights are gone from {folder / TRAINING}, so they cannot be registered. Delete "
                f"{studied.folder} and compare again: the same seeds train the same weights."
            )
        uri = mirror.deliver_model(store, run, folder / TRAINING)
    if problem := reporting.attach(studied, verdict, store, uri):
        account.say(f"  note: {problem}")
    ids = {"run.repeat": run_id, "run.study": mirror.study_run(studied.book).run_id(store)}
    tags = evidence(verdict, decision, run.read_text("config.yaml") or "", ids)
    return registry.register(store, verdict.registry, uri, run_id, tags, tables.as_markdown(verdict))


def _roll_back(asked: PromotionSettings, paths: Paths) -> None:
    """Go back to the champion before. A registered model's name is enough; else the study says which it is."""
    if asked.registry and not asked.study:
        store, model = existing_store(None, paths.root), asked.registry
    else:
        studied = studies.load(asked.study, paths)
        verdict = recorded(studied.folder)
        store = open_store(studied.settings.tracking, paths.root)
        model = asked.registry or (verdict.registry if verdict else studied.registry)
    now = registry.by_alias(store, model, CHAMPION)
    before = registry.version(store, model, now.tags.get(registry.BEFORE, "")) if now else None
    if now is None or before is None:
        what = f"version {now.number} was its first one" if now else "it has none"
        raise Declined(f"There is no earlier champion of {model} to go back to: {what}.")
    if asked.dry_run:
        print(f"Would go back from version {now.number} of {model} to version {before.number}; nothing was changed.")
        return
    registry.roll_back(store, now, before)
    print(f"The champion of {model} is version {before.number} again; it was version {now.number}.")
