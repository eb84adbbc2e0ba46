"""Plans a comparison: checks the input, lists contenders and seeds, and estimates the cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.comparison import contenders, saved_study
from src.comparison.contenders import CHAMPION, DEFAULT, TUNED, Contender, Contenders, SeedRun
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection, is_complete
from src.config.settings import FOUR_BIT, ComparisonSettings
from src.console.output import StudyConsole
from src.core import own_code
from src.core.errors import InvalidInput, first_line
from src.core.formatting import plural
from src.core.metric import MAXIMIZE, METRICS, direction_of
from src.core.paths import Paths
from src.core.records import Calibration
from src.core.task import MULTI_LABEL, REGRESSION, SINGLE_LABEL, kind_in, pair_columns
from src.tracking import registry, run_tree
from src.tracking.registry import ModelVersion
from src.tracking.store import TrackingStore, open_store
from src.training import inference, label_mapping, pretrained
from src.verdict.power import Power, deciding_examples
from src.verdict.records import REFIT, STUDENT
from src.verdict.threshold import deciding_metric
from src.workers import worker_count
from src.workers.cost import Speed
from src.workflows.compare import evaluate
from src.workflows.sweep.plan import machine_for


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison that has passed every check. Nothing has been trained for it."""

    settings: ComparisonSettings
    saved_study: SavedStudy
    contenders: Contenders
    workers: int
    store: TrackingStore
    registry: str

    @property
    def folder(self) -> Path:
        """The comparison's folder."""
        return self.saved_study.comparison_dir

    def remaining(self) -> list[SeedRun]:
        """Seed runs that have not ended. A failed one is tried again until the winner is selected."""
        if Selection.read(self.folder, self.contenders) is not None:
            return []
        every = list(contenders.seed_runs(self.contenders, self.folder))
        return [r for r in every if not is_complete(r.result())]


def plan_comparison(settings: ComparisonSettings, paths: Paths) -> ComparisonPlan:
    """Everything that can be refused is refused here, before anything is trained."""
    saved = saved_study.load_study(settings.study, paths)
    own_code.load(settings.code, paths.root)
    own_code.check_recorded(saved.code, saved.settings.code, f"The study {saved.name}")
    if settings.deliver.temperature != 1 and saved.settings.data.is_regression:
        raise InvalidInput(
            f"deliver.temperature is {settings.deliver.temperature:g}, which is of probabilities; the students of "
            f"{saved.name} learn numbers. Leave it out."
        )
    _check_margin(settings.margin, saved.settings.study.metric)
    comparison = contenders.select_contenders(saved, settings)
    _check_adapters(saved, comparison)
    store = open_store(saved.settings.tracking, paths.root, run_tree.known_experiment(saved.study.folder))
    model = settings.registry or saved.registered_model
    if now := registry.by_alias(store, model, registry.CHAMPION):
        comparison = comparison.with_champion(_champion(store, now, saved))
    _check_checkpoints(saved, comparison)
    machine = machine_for(saved.settings)
    trainings = len(comparison.recipes) * len(comparison.seeds)
    workers = settings.workers or worker_count.choose_worker_count(
        saved.settings, saved.paths, saved.dataset, machine, trainings
    )
    return ComparisonPlan(settings, saved, comparison, workers, store, model)


def _check_margin(margin: float, metric: str) -> None:
    """Raise InvalidInput if no difference of the metric can exceed the margin."""
    low, high = METRICS[metric].low, METRICS[metric].high
    if margin >= high - low:
        raise InvalidInput(
            f"compare.margin is {margin:g}, and {metric} lies between {low:g} and {high:g}: no difference can exceed "
            f"the margin. It is a number from 0 to below {high - low:g}."
        )


def _champion(store: TrackingStore, version: ModelVersion, saved: SavedStudy) -> Contender:
    """The champion as a contender. Raises InvalidInput if it answers with other labels than the study's data have."""
    try:
        champion = registry.load_pipeline(store, version.uri)
        labels, pairs = inference.label_names(champion), bool(pair_columns(champion.model.config))
        kind = kind_in(champion.model.config)
    except Exception as error:  # MLflow raises errors of any type; a model of another flavor cannot be a contender
        raise InvalidInput(
            f"The champion, version {version.number} of {version.model}, cannot be loaded as a transformers "
            f"classifier, so nothing can be compared with it: {first_line(error)}. Compare under another "
            "name: registry.model=<name>."
        ) from error
    if set(labels) != set(saved.dataset.label_names):
        raise InvalidInput(
            f"The champion, version {version.number} of {version.model}, answers with {', '.join(labels)}; the data of "
            f"{saved.name} have the labels {', '.join(saved.dataset.label_names)}. Compare under another name: "
            "registry.model=<name>."
        )
    if kind != saved.dataset.task.kind:
        kinds = {SINGLE_LABEL: "one label", MULTI_LABEL: "several labels", REGRESSION: "a number"}
        raise InvalidInput(
            f"The champion, version {version.number} of {version.model}, gives a text {kinds[kind]}; in the data of "
            f"{saved.name} it has {kinds[saved.dataset.task.kind]}. Compare under another name: registry.model=<name>."
        )
    if pairs != saved.dataset.task.has_pairs:
        what = ("single texts", "pairs of texts")
        raise InvalidInput(
            f"The champion, version {version.number} of {version.model}, classifies {what[pairs]}; the data of "
            f"{saved.name} are {what[not pairs]}. Compare under another name: registry.model=<name>."
        )
    before = version.tags.get("data.fingerprint.test")
    here = saved.dataset.fingerprints["test"]
    source = version.tags.get(registry.DATA_SOURCE_TAG, saved.data_source)
    if before != here and source != saved.data_source:
        raise InvalidInput(
            f"The champion, version {version.number} of {version.model}, was made from other data ({source}, here "
            f"{saved.data_source}), so it does not stand in this comparison. Compare under another name: "
            "registry.model=<name>."
        )
    note = "" if before == here else (
        f"was made with another test split ({before or 'none on record'}, here {here}): it may have been trained on "
        "these test examples, which would favour it"
    )  # fmt: skip
    about = f"{version.model} version {version.number}"
    return Contender(CHAMPION, CHAMPION, version.key, about, uri=version.uri, version=version.number, note=note)


def _check_checkpoints(saved: SavedStudy, comparison: Contenders) -> None:
    """Raise InvalidInput if a recipe's checkpoint is missing, or the study's has changed since the search."""
    if any(c.name == "ready_made" for c in comparison.without_training):
        label_mapping.check_ready_made(saved.settings, saved.dataset.label_names, saved.paths.cache_dir)
    for contender in comparison.recipes:
        checkpoint = pretrained.resolve(contender.settings().recipe.model, saved.paths.cache_dir)
        searched = saved.study.optuna_study.user_attrs["definition"]["weights"]
        if contender.kind == DEFAULT and checkpoint.fingerprint != searched:
            raise InvalidInput(
                f"The weights of {checkpoint.id} in {checkpoint.folder} have changed since {saved.name} was searched: "
                "their "
                f"fingerprint was {searched} and is {checkpoint.fingerprint}. Put the old ones back, or search again."
            )


def print_plan(plan: ComparisonPlan, console: StudyConsole) -> None:
    """Print contenders, seeds, and the differences that the comparison can detect."""
    comparison, dataset = plan.contenders, plan.saved_study.dataset
    names = [f"{c.name} ({c.about})" if c.about and c.kind != TUNED else c.name for c in comparison.contenders]
    candidates = ", ".join(c.name for c in comparison.candidates)
    trainings = len(comparison.recipes) * len(comparison.seeds)
    rows = {
        "contenders": ", ".join(names),
        "fresh seeds": f"{', '.join(map(str, comparison.seeds))}: {trainings} trainings, {len(plan.remaining())} to go",
        "choice": f"{candidates}, by {comparison.pick}"
        if comparison.pick
        else f"the best of {candidates} by mean validation {console.study.metric}{_others(plan)}",
        "forms": _forms(plan),
        **({"threshold": _threshold(plan)} if comparison.has_thresholds else {}),
        "then": f"the {dataset.sizes['test']} sealed test examples; a margin of {plan.settings.margin:g} is asked",
        "can show": _power(plan),
    }
    console.print(f"Comparison of {plan.saved_study.name}: {plural(plan.workers, 'worker')}")
    for name, text in rows.items():
        console.print(f"  {name:<11}  {text}")
    without = [f"the baseline {name} is not compared: it {why}" for name, why in comparison.not_judged]
    limits = evaluate.data_limits(dataset, console.study.metric)
    for note in (*comparison.notes, *without, *limits):
        console.print(f"  note: {note}")


def _others(plan: ComparisonPlan) -> str:
    """How to choose by the other objectives of the study, too; empty if it has one."""
    study = plan.saved_study.settings.study
    return f" alone; compare.pick=knee weighs {', '.join(study.objectives)}" if study.has_several_objectives else ""


def _forms(plan: ComparisonPlan) -> str:
    """In which forms the winner is judged, which of them is registered, and what a refit takes."""
    comparison, sizes = plan.contenders, plan.saved_study.dataset.sizes
    judged = "of the winner: one seed run, the average of its seed runs"
    if REFIT in comparison.forms:
        judged += (
            f", and a refit, the average of {len(comparison.seeds)} more trainings on train + validation "
            f"({sizes['train'] + sizes['validation']} texts), as of the default recipe"
        )
    if STUDENT in comparison.forms:
        judged += (
            f", and a student, the average of {len(comparison.seeds)} more trainings that learn from its answers to "
            f"{_describe_unlabelled(plan)}, too"
        )
    if comparison.deliver != "auto":
        return f"{judged}. Registered is deliver.form={comparison.deliver}"
    best = "the student" if STUDENT in comparison.forms else "the refit" if REFIT in comparison.forms else "the average"
    return f"{judged}. Registered is {best}, unless averaging is shown to be worse on validation"


def _threshold(plan: ComparisonPlan) -> str:
    """How decision thresholds are chosen."""
    dataset, comparison = plan.saved_study.dataset, plan.contenders
    several = dataset.task.has_several_labels
    metric = deciding_metric(plan.saved_study.settings.study.metric, several)
    whose = "of each label, one for all" if several else f"of {dataset.label_names[1]}"
    if comparison.thresholds_per_label:
        whose, metric = "of each label", "its f1"
    return f"{whose}: the best by {metric} on validation, for each contender's seed runs and for their average"


def _describe_unlabelled(plan: ComparisonPlan) -> str:
    texts = plan.saved_study.unlabelled
    assert texts is not None
    left_out = f"{texts.n_in_test} of them in the test split, {texts.n_repeated} known or repeated: left out"
    return f"{len(texts.texts)} unlabelled texts ({texts.n_read} read; {left_out})"


def print_price(plan: ComparisonPlan, console: StudyConsole, measured: Sequence[Calibration]) -> float | None:
    """Print what the rest will cost, estimated from the calibration. Returns the seconds; None if unknown."""
    if not measured:
        console.print("  expected: unknown, the speed could not be measured")
        return None
    sizes, n_rungs = plan.saved_study.dataset.sizes, len(plan.saved_study.settings.study.rungs)
    speed, n_seeds = Speed.of(measured), len(plan.contenders.seeds)
    recipes = [seed_run.contender.settings().recipe for seed_run in plan.remaining()]
    seconds = sum(speed.training_seconds(sizes, recipe.epochs, n_rungs) for recipe in recipes)
    saved = len(plan.contenders.recipes) * n_seeds  # until the winner is selected
    forms = [form for form in plan.contenders.forms if form in (REFIT, STUDENT)]
    for form in [*forms, *([REFIT] if REFIT in forms else [])]:  # the default recipe is refitted, too
        epochs = [candidate.settings().recipe.epochs for candidate in plan.contenders.candidates]
        n_texts = sizes["train"] + (sizes["validation"] if REFIT in forms else 0)
        n_texts += len(plan.saved_study.unlabelled.texts) if form == STUDENT and plan.saved_study.unlabelled else 0
        seconds += n_seeds * speed.training_seconds({**sizes, "train": n_texts}, sum(epochs) / len(epochs), 0)
        saved += n_seeds
    but = "less if the default recipe wins, which is refitted, too" if REFIT in forms else ""
    # of two recipes, and of each form, and the default recipe's refit; each with n_seeds averages without one member
    averages = 2 + len(forms) + (REFIT in forms)
    predictions = 2 * n_seeds + averages * (n_seeds + 1) + len(plan.contenders.without_training)
    seconds += predictions * sizes["test"] * speed.evaluation + 2 * sizes["validation"] * speed.evaluation
    console.price(measured, seconds / plan.workers, speed.disk_gigabytes(saved, plan.workers), but)
    return seconds / plan.workers


def _power(plan: ComparisonPlan) -> str:
    """Which difference these examples and seeds can detect, and how many would detect half of it."""
    metric = plan.saved_study.settings.study.metric
    if (METRICS[metric].low, METRICS[metric].high) != (0.0, 1.0):
        return f"not known beforehand for {'the loss' if metric == 'loss' else metric}"
    found = [c.search_score for c in plan.contenders.candidates if c.search_score is not None]
    scores = [score if direction_of(metric) == MAXIMIZE else 1 - score for score in found]
    near = min(max([*scores, 0.55]), 0.95)
    dataset = plan.saved_study.dataset
    counts, several = dataset.label_counts.get("test", []), dataset.task.has_several_labels
    examples = deciding_examples(metric, dataset.sizes["test"], counts, several)
    power = Power(examples, len(plan.contenders.seeds), near, len(plan.contenders.candidates))
    told = power.describe(plan.settings.margin)
    if examples == dataset.sizes["test"]:
        return told
    return f"{told}. It is {metric} that counts, which rests on as few examples as its rarest label has"


def _check_adapters(saved: SavedStudy, comparison: Contenders) -> None:
    """Raise InvalidInput if an adapter is to be registered, and a recipe has none."""
    recipes = {r.name: r.settings().recipe for r in comparison.recipes}
    without = [name for name, recipe in recipes.items() if not recipe.has_adapter]
    in_four_bits = [name for name, recipe in recipes.items() if recipe.model.dtype == FOUR_BIT]
    if comparison.merge or not (without or in_four_bits):
        return
    if without:
        why = f"{without[0]} of the study {saved.name} has none"
    else:
        why = f"{in_four_bits[0]} of the study {saved.name} has one for weights in 4 bits, which the merged model keeps"
    raise InvalidInput(
        f"deliver.merge=false registers an adapter, so every compared recipe must have one, and {why}. Leave it out."
    )
