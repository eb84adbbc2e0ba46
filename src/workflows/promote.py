"""Promotion: moves the registry's aliases according to a comparison's verdict. Only records decide."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from filelock import FileLock

from src.comparison import saved_study
from src.comparison.saved_study import SavedStudy
from src.config.settings import PromotionSettings, TrackingSettings
from src.console.output import Console, StudyConsole
from src.core.errors import InvalidInput, PromotionDeclined
from src.core.paths import Paths
from src.core.record_files import SCHEMA, SCHEMA_TAG
from src.core.task import threshold_text
from src.tracking import logged_model, recorders, registry, run_tree
from src.tracking.registry import CHALLENGER, CHAMPION, SEED_RUN_TAG, ModelVersion
from src.tracking.store import TrackingStore, open_existing_store, open_store, tracking_uri
from src.training.pretrained import BEST_DIR
from src.verdict import tables
from src.verdict.records import BETTER, SINGLE, WORSE, PairwiseResult, Verdict, load_verdict
from src.workflows.compare import record
from src.workflows.sweep import report


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the alias `champion` moves, and why."""

    moves: bool
    why: str
    against: PairwiseResult | None


def promote(settings: PromotionSettings, paths: Paths) -> None:
    """Register the winner as `challenger`, and move `champion` to it if the verdict justifies that.

    Raises:
        PromotionDeclined: the verdict does not justify it (exit code 3). The winner is registered all the same.
    """
    if settings.rollback:
        _roll_back(settings, paths)
        return
    saved = saved_study.load_study(settings.study, paths)
    console = StudyConsole(saved.settings)
    verdict = _verdict(settings, saved)
    store = open_store(saved.settings.tracking, paths.root, run_tree.known_experiment(saved.study.folder))
    if not settings.dry_run:
        run_tree.forget_lost_runs(saved.study, store)
    champion = registry.by_alias(store, verdict.registry, CHAMPION)
    if _is_winner(champion, verdict):
        console.print(_already(champion))
        uri = logged_model.find_logged_model(
            store, champion.run_id, threshold=verdict.contender(verdict.winner).threshold, merge=verdict.merge
        )
        if uri and (problem := report.attach_card(saved, verdict, store, uri)):
            console.print(f"  note: {problem}")
        return
    own_version = registry.version_of_seed_run(store, verdict.registry, record.registered_name(verdict))
    decision = decide(verdict, champion, own_version, settings.again, settings.without)
    _print_winner(verdict, console)
    if settings.dry_run:
        moves = "would become" if decision.moves else "would not become"
        console.print(f"  would be registered as a version of {verdict.registry}, alias {CHALLENGER}")
        console.print(f"  {moves} {CHAMPION}: {decision.why}\n  promote.dry_run=true: nothing was changed")
        if not decision.moves:
            raise PromotionDeclined(f"It would not be promoted: {decision.why}.")
        return
    with FileLock(paths.root / "mlruns" / ".promote.lock"):
        version = _register(saved, verdict, decision, store, console)
        registry.set_alias(store, version, CHALLENGER)
        console.print(f"  version {version.number} of {version.model}, alias {CHALLENGER}")
        champion = registry.by_alias(store, verdict.registry, CHAMPION)
        if _is_winner(champion, verdict):  # another command has promoted it meanwhile
            console.print(_already(champion))
            return
        decision = decide(verdict, champion, version, settings.again, settings.without)
        if not decision.moves:
            raise PromotionDeclined(f"{CHAMPION} was not moved: {decision.why}.")
        registry.set_alias(store, version, CHAMPION)
    console.print(f"  alias {CHAMPION}: {decision.why}")
    uri = f"models:/{version.model}@{CHAMPION}"
    console.print(f"  load it     {recorders.load_snippet(uri, saved.dataset.task, verdict.merge)}")
    console.print(f"  predict     {recorders.predict_snippet(saved.dataset.task)}")
    console.print(f"  serve it    mlflow models serve -m {uri} --env-manager local")
    if store.uri != tracking_uri(TrackingSettings(None, ""), paths.root):
        console.print(f"  with MLFLOW_TRACKING_URI={store.address} in the environment")


def _print_winner(verdict: Verdict, console: StudyConsole) -> None:
    winner = verdict.contender(verdict.winner)
    score, mean = winner.registered_test[verdict.metric], winner.test[verdict.metric]
    console.print(f"{verdict.winner} of {verdict.study}, {tables.describe_weights(verdict)}")
    interval = f"[{mean.low:.4f}, {mean.high:.4f}]"
    over_seeds = f"; mean over the seeds {mean.value:.4f} {interval}" if winner.form == SINGLE else f" {interval}"
    console.print(f"  test {verdict.metric} {score:.4f}{over_seeds}")


def _is_winner(champion: ModelVersion | None, verdict: Verdict) -> TypeGuard[ModelVersion]:
    """Whether the champion is the model that the verdict registers."""
    return champion is not None and champion.tags.get(SEED_RUN_TAG) == record.registered_name(verdict)


def _already(champion: ModelVersion) -> str:
    return f"Version {champion.number} of {champion.model} is this verdict's winner, and the champion already."


def decide(
    verdict: Verdict,
    champion: ModelVersion | None,
    registered: ModelVersion | None = None,
    again: bool = False,
    without: Sequence[str] = (),
) -> PromotionDecision:
    """Decide whether the winner becomes the champion.

    It must be better than the current champion, or, if there is none, than the best baseline. It must not be worse
    than the default recipe.

    Args:
        verdict: of the comparison.
        champion: the current one.
        registered: the winner's version, if it is registered already.
        again: whether a version that was rolled back may become champion again.
        without: baselines that may be without a result.
    """
    if registered is not None and registry.ROLLED_BACK_TAG in registered.tags and not again:
        when = registered.tags[registry.ROLLED_BACK_TAG]
        why = f"version {registered.number} was the champion and was rolled back on {when}"
        return PromotionDecision(False, f"{why}; promote.again=true moves the alias all the same", None)
    if (champion.key if champion else "") != verdict.champion_key:
        now = f"version {champion.number}" if champion else "nobody"
        then = f"version {verdict.champion}" if verdict.champion else "nobody"
        why = (
            f"the champion of {verdict.registry} is {now} now, and was {then} when the verdict was made; compare "
            f"again: python -m src.compare study.name={verdict.study}"
        )
        return PromotionDecision(False, why, None)
    if left_out := [(name, why) for name, why in verdict.not_judged if name not in without]:
        name, why = left_out[0]
        names = ",".join(name for name, _ in left_out)
        return PromotionDecision(
            False,
            f"the baseline {name} {why}, so nothing shows that the winner is better than it. Mend it, search and "
            f"compare again, or leave it out on purpose: promote.without=[{names}]",
            None,
        )
    other = "champion" if champion else verdict.best_baseline
    against = verdict.result_against(other)
    named = f"the champion, version {champion.number}" if champion else f"the best baseline, {other or 'none'}"
    if against is None:
        return PromotionDecision(False, f"there is no verdict against {named}", None)
    difference = f"{against.metric} {tables.signed_interval(against.difference)}"
    default = verdict.result_against("default")
    if default is not None and default.verdict == WORSE:
        shown = f"it is worse than the default recipe, {default.metric} {tables.signed_interval(default.difference)}"
        return PromotionDecision(False, f"{shown} on {verdict.test_examples} test examples", against)
    if against.verdict == BETTER:
        return PromotionDecision(True, f"better than {named}, {difference}", against)
    margin = f" by more than {verdict.margin:g}" if verdict.margin else ""
    what = "worse than" if against.verdict == WORSE else f"not shown to be better{margin} than"
    return PromotionDecision(
        False, f"it is {what} {named}: {difference} on {verdict.test_examples} test examples", against
    )


def version_tags(
    verdict: Verdict, decision: PromotionDecision, config: str, run_ids: Mapping[str, str]
) -> dict[str, str]:
    """The tags of a model version: its origin and its test metrics.

    Args:
        verdict: of the comparison.
        decision: about the champion.
        config: of the registered weights' training, as YAML.
        run_ids: of the study and of the registered weights, by tag.
    """
    winner = verdict.contender(verdict.winner)
    mean = winner.test[verdict.metric]
    over_seeds = ".mean_over_seeds" if winner.form == SINGLE else ".interval"
    against = decision.against
    verdict_tags = {
        f"verdict.against.{pair.other}": (
            f"{pair.verdict}: {pair.metric} {tables.signed_interval(pair.difference)}, McNemar p {pair.p:.3g}"
        )
        for pair in verdict.against
    }
    return {
        SEED_RUN_TAG: record.registered_name(verdict),
        "study": verdict.study,
        "verdict": against.verdict if against else "none",
        "verdict.against": against.other if against else "",
        "verdict.margin": f"{verdict.margin:g}",
        **verdict_tags,
        f"test.{verdict.metric}": f"{winner.registered_test[verdict.metric]:.4f}",
        f"test.{verdict.metric}{over_seeds}": f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        "test.examples": str(verdict.test_examples),
        "test.openings": str(verdict.openings),
        "form": winner.form,
        **({} if winner.threshold is None else {"decision.threshold": threshold_text(winner.threshold)}),
        **({"seed": str(winner.registered_seed)} if winner.form == SINGLE else {}),
        "seeds": ", ".join(map(str, verdict.seeds)),
        **{f"data.fingerprint.{split}": value for split, value in verdict.fingerprints.items()},
        "config.sha256": hashlib.sha256(config.encode()).hexdigest(),
        **run_ids,
        "promoted.at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _verdict(settings: PromotionSettings, saved: SavedStudy) -> Verdict:
    verdict = load_verdict(saved.comparison_dir)
    command = f"python -m src.compare study.name={saved.name}{saved.settings.code_argument}"
    if verdict is None:
        raise InvalidInput(
            f"There is no verdict on the study {saved.name}, and nothing is registered without evidence. Compare "
            f"first: {command}"
        )
    if settings.registry not in (None, verdict.registry):
        raise InvalidInput(
            f"registry.model is {settings.registry}, and the verdict on {saved.name} is about the registered model "
            f"{verdict.registry}. Compare with that model's champion first: {command} "
            f"registry.model={settings.registry}"
        )
    return verdict


def _register(
    saved: SavedStudy, verdict: Verdict, decision: PromotionDecision, store: TrackingStore, console: StudyConsole
) -> ModelVersion:
    """Log the weights that the verdict registers as a model, once, and register a version with its evidence."""
    folder = record.registered_training_dir(verdict, saved.comparison_dir)
    run = record.registered_run(saved, verdict)
    run_id = run.ensure_run_id(store)
    threshold = verdict.contender(verdict.winner).threshold
    uri = logged_model.find_logged_model(store, run_id, threshold=threshold, merge=verdict.merge)
    if uri is None:
        if not (folder / BEST_DIR).is_dir():
            raise InvalidInput(
                f"The winner's weights are gone from {folder}, so they cannot be registered. Delete "
                f"{saved.comparison_dir} and compare again: the same seeds train the same weights."
            )
        uri = recorders.log_best_model(store, run, folder, threshold=threshold, merge=verdict.merge)
    if problem := report.attach_card(saved, verdict, store, uri):
        console.print(f"  note: {problem}")
    ids = {"run.repeat": run_id, "run.study": run_tree.study_run(saved.study).ensure_run_id(store)}
    tags = version_tags(verdict, decision, run.read_text("config.yaml") or "", ids)
    tags |= {registry.DATA_SOURCE_TAG: saved.data_source, SCHEMA_TAG: str(SCHEMA)}
    return registry.register(store, verdict.registry, uri, run_id, tags, tables.to_markdown(verdict))


def _roll_back(settings: PromotionSettings, paths: Paths) -> None:
    """Move `champion` back to the version before. Needs the registered model's name or the study's."""
    if settings.registry and not settings.study:
        store, model = open_existing_store(None, paths.root), settings.registry
    else:
        saved = saved_study.load_study(settings.study, paths)
        verdict = load_verdict(saved.comparison_dir)
        store = open_store(saved.settings.tracking, paths.root)
        model = settings.registry or (verdict.registry if verdict else saved.registered_model)
    now = registry.by_alias(store, model, CHAMPION)
    before = registry.find_version(store, model, now.tags.get(registry.PREVIOUS_CHAMPION_TAG, "")) if now else None
    if now is None or before is None:
        what = f"version {now.number} was its first one" if now else "it has none"
        raise PromotionDeclined(f"There is no earlier champion of {model} to go back to: {what}.")
    if settings.dry_run:
        Console().print(
            f"Would go back from version {now.number} of {model} to version {before.number}; nothing was changed."
        )
        return
    registry.roll_back(store, now, before)
    Console().print(f"The champion of {model} is version {before.number} again; it was version {now.number}.")
