"""Plans a study: checks the input and estimates the cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from src.config import compose
from src.config.settings import EPOCHS_KEY, ModelSettings, Settings, StudySettings
from src.console import data_summary
from src.console.output import StudyConsole
from src.core import environment, own_code
from src.core.errors import InvalidInput, mask_secrets
from src.core.metric import direction_of
from src.core.paths import Paths, check_writable
from src.core.records import DEFAULT_RECIPE, MemoryEstimate, TrialRecord
from src.data import dataset, unlabelled
from src.data.dataset import PreparedDataset
from src.search import space as spaces
from src.search import stopping, validate
from src.search.inheritance import LearnedTrial
from src.search.space import Space
from src.search.storages import connect
from src.search.study import Study, data_fingerprint, refuse_foreign_study, study_definition
from src.tracking import store
from src.training import arguments, classification_head, devices, label_mapping, objectives, pretrained
from src.training.pretrained import PretrainedModel
from src.workers import recipe_check, worker_count
from src.workers import remote as remote_workers
from src.workers.cost import Speed
from src.workers.recipe_check import Candidate
from src.workflows.sweep import inheritance, learning, memory_plan, recipes
from src.workflows.sweep.inheritance import Inheritance

REMOTE_LAUNCHERS = ("ray", "slurm")  # whose workers may have other devices and packages than this machine
SPEED = "of a trial's model, on one thread or GPU while other trainings wait: the least of five times"
MIN_CUT_SHOWN = 0.01  # fraction of training texts that are truncated


@dataclass(frozen=True)
class SweepPlan:
    """A study that has passed every check. Nothing has been trained for it."""

    settings: Settings
    paths: Paths
    space: Space
    direction: str
    dataset: PreparedDataset
    pretrained: PretrainedModel
    workers: int
    warnings: tuple[str, ...]
    inheritance: Inheritance | None = None  # what a new study takes over from another one
    memory: MemoryEstimate | None = None  # of a new study's largest training on this machine
    learned: tuple[LearnedTrial, ...] = ()  # settings of other studies that a new study tries first

    @property
    def definition(self) -> dict[str, Any]:
        """The settings that must not change, or trials could not be compared."""
        fingerprint, names = self.dataset.fingerprint, self.dataset.label_names
        values = study_definition(self.settings, self.space, fingerprint, names, self.pretrained.fingerprint)
        if "ready_made" in self.settings.study.baselines:
            values["study.ready_made"] = label_mapping.check_ready_made(
                self.settings, names, self.paths.cache_dir
            ).fingerprint
        return values

    @property
    def models(self) -> list[tuple[ModelSettings, PretrainedModel]]:
        """Every model that a worker may need, and its local folder."""
        models, cache = list(recipes.searched_models(self.settings, self.space)), self.paths.cache_dir
        if other := self.settings.study.ready_made:
            models.append(replace(self.settings.recipe.model, checkpoint=other))
        return [(model, pretrained.find(model, cache)) for model in models]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.paths.study_dir(self.settings.study.name)

    def existing_study(self) -> Study | None:
        """The study that an earlier command created; None if there is none."""
        study = self.open_study() if self.folder.exists() else None
        return study if study and study.exists() else None

    def open_study(self) -> Study:
        """The study, whether or not it was created yet."""
        return Study(self.settings, self.space, self.direction, self.folder)


def plan_sweep(settings: Settings, paths: Paths) -> SweepPlan:
    """Check all input, the cheapest checks first. Writes caches, but no study and no run."""
    own_code.load(settings.code, paths.root)
    arguments.check_arguments(settings.recipe, settings.worker.devices_per_trial)
    space = spaces.build_space(settings)
    warnings = validate.check_study(settings, space, compose.group_options())
    warnings += recipes.check_searched_groups(settings, space)
    machine = machine_for(settings)
    check_writable(paths.root)
    remote_workers.check_remote(settings, paths.root)
    store.check_store(settings.tracking, paths.root)
    connect.check_storage(settings.storage)
    refuse_foreign_study(settings.storage, settings.study.name, paths.study_dir(settings.study.name))
    checkpoint = pretrained.resolve(settings.recipe.model, paths.cache_dir)
    for model in recipes.searched_models(settings, space):
        if model != settings.recipe.model:
            pretrained.resolve(model, paths.cache_dir)
    begun_with = partial(data_fingerprint, settings, paths.study_dir(settings.study.name))
    prepared = dataset.prepare_dataset(settings.data, paths.cache_dir, begun_with)
    study_settings = settings.study
    unlabelled.check_unlabelled(settings.data)
    if "ready_made" in study_settings.baselines:
        label_mapping.check_ready_made(settings, prepared.label_names, paths.cache_dir)
    direction = validate.check_task(settings, prepared.task)
    validate.try_own_code(settings, prepared.frame("train"), len(prepared.label_names))
    workers = settings.workers or worker_count.choose_worker_count(
        settings, paths, prepared, machine, study_settings.n_trials
    )
    if checkpoint.source != "random":
        own = classification_head.head_labels(pretrained.own_config(checkpoint))
        names = () if prepared.task.is_regression else prepared.label_names  # a head for numbers is always new
        note = classification_head.note_on_head(checkpoint.id, own, names)
        warnings += [note] if note else []
    counts = prepared.label_counts.get("train", [])
    if note := objectives.note_on_metric(study_settings.metric, counts, prepared.task):
        warnings.append(note)
    plan = SweepPlan(
        settings,
        paths,
        space,
        direction,
        prepared,
        checkpoint,
        workers,
        (*warnings, *environment.cleared_variables(), *data_summary.remarks(prepared)),
    )
    elsewhere = settings.choices.get("launcher") in REMOTE_LAUNCHERS
    if study := plan.existing_study():  # what it trains with was tried out when it began
        study.check_definition(plan.definition, partial(_advice, plan))
        study.check_beginning()
        known = None if elsewhere else memory_plan.load_estimate(plan.folder, machine)
        return _with_fitting_workers(plan, known, machine)
    if any(plan.folder.glob("trials/*")):
        raise InvalidInput(
            f"The folder {plan.folder} has trials of a study {study_settings.name} whose records are kept elsewhere: "
            f"storage.url is {mask_secrets(settings.storage.url or 'null')} now (null: the journal in that folder). "
            "Name the storage that it was searched with, or begin another study: study.name=<another>."
        )
    candidates = [
        (name, r, pretrained.find(r.model, paths.cache_dir)) for name, r in recipes.recipes_to_try(settings, space)
    ]
    plan = _with_other_studies(plan)
    notes = recipe_check.check_recipes(candidates, prepared.task, elsewhere, study_settings.has_tuned_threshold)
    plan = replace(plan, warnings=(*plan.warnings, *notes))
    return plan if elsewhere else _with_memory(plan, candidates, machine)


def _with_memory(plan: SweepPlan, candidates: Sequence[Candidate], machine: devices.Machine) -> SweepPlan:
    """The plan with the memory of its trainings, and no more workers than fit into it unless they are set."""
    settings = plan.settings
    largest = list(memory_plan.largest_recipes(settings, plan.space, candidates))
    longest = memory_plan.longest_texts(plan.dataset)
    estimate = recipe_check.estimate_memory(largest, plan.dataset.task, longest, machine.devices_per_trial)
    memory_plan.check_fit(estimate, machine)
    return _with_fitting_workers(plan, estimate, machine)


def _with_fitting_workers(plan: SweepPlan, estimate: MemoryEstimate | None, machine: devices.Machine) -> SweepPlan:
    workers = plan.settings.workers or memory_plan.workers_that_fit(estimate, machine, plan.workers)
    return replace(plan, memory=estimate, workers=workers)


def _with_other_studies(plan: SweepPlan) -> SweepPlan:
    """The plan of a new study with what it has from others (study.inherit and study.learn_from)."""
    settings, space, paths = plan.settings, plan.space, plan.paths
    if settings.study.inherit is not None:
        plan = replace(plan, inheritance=inheritance.plan_inheritance(settings, space, plan.definition, paths))
        if "NSGA" in str(settings.sampler.get("_target_")):
            note = "NSGA breeds its generations from the study's own trials: inherited ones do not count for it"
            plan = replace(plan, warnings=(*plan.warnings, note))
    if settings.study.learn_from:
        plan = replace(plan, learned=learning.plan_learning(settings, space, paths))
    return plan


def _advice(plan: SweepPlan, before: Mapping[str, Any]) -> tuple[str, str]:
    """How to go on with a study that has the definition `before`, which is not that of the plan."""
    first = _advice_on_space(plan.settings, before["space"])
    return first, inheritance.way_out(plan.settings, before, plan.definition, plan.paths)


def _advice_on_space(settings: Settings, before: Mapping[str, Any]) -> str:
    """How a study is continued that began when today's space=wide was the default."""
    if settings.choices.get("space") != "default" or spaces.build_space(settings).describe() == before:
        return ""
    wide = spaces.build_space(compose.compose_settings([*settings.overrides, "space=wide"])).describe()
    return "That space is space=wide now: with it, this command continues the study. " if before == wide else ""


def refuse_shared_names(plans: Sequence[SweepPlan]) -> None:
    """Raise InvalidInput if two studies of one command have the same name."""
    for name, n in Counter(plan.settings.study.name for plan in plans).items():
        if n > 1:
            raise InvalidInput(
                f"{n} of the studies on the command line are called {name}; let study.name say what differs, for "
                "example study.name='${data.name}-${model.name}-${seed}'."
            )
    if len({plan.settings.code for plan in plans}) > 1:
        raise InvalidInput("The studies on the command line have different code; start them one by one.")


def machine_for(settings: Settings) -> devices.Machine:
    """The machine's resources, as trainings with these settings share them."""
    machine = devices.detect_machine(bool(settings.recipe.trainer.get("use_cpu")), settings.worker.devices_per_trial)
    if settings.recipe.trainer.get("require_gpu") and not machine.gpus:
        raise InvalidInput("trainer=gpu asks for a GPU, but torch finds none; use trainer=cpu or trainer=auto.")
    return machine


def plan_rows(plan: SweepPlan) -> dict[str, str]:
    """The lines of the plan about data and model."""
    model = plan.settings.recipe.model
    sampler, pruner = (str(n["_target_"]).rsplit(".", 1)[-1] for n in (plan.settings.sampler, plan.settings.pruner))
    study = plan.settings.study
    machine, trials = machine_for(plan.settings), study.n_trials
    has_default = plan.inheritance is not None and any(t.origin == DEFAULT_RECIPE for t in plan.inheritance.trials)
    alone = (
        devices.default_recipe_runs_alone(machine, plan.workers, trials)
        and not plan.space.problems_with(plan.space.default_params())
        and not has_default
    )
    memory = memory_plan.describe(plan.memory, machine, plan.workers, study.plan_only)
    return {
        **data_summary.rows(plan.dataset),
        "model": f"{model.checkpoint} ({plan.pretrained.source}, {plan.pretrained.megabytes:.0f} MB), at most "
        f"{model.max_tokens} tokens",
        **({"memory": memory} if memory else {}),
        "sampler, pruner": f"{sampler}, {pruner}; judged at {', '.join(f'{r:.0%}' for r in plan.settings.study.rungs)} "
        "of each schedule" + (f" by {study.metric} alone" if study.has_several_objectives else ""),
        **({"objectives": _objectives(study)} if study.has_several_objectives else {}),
        **({"constraints": ", ".join(study.constraint_texts)} if study.constraints else {}),
        **({"speed": SPEED} if study.needs_speed else {}),
        **({"inherits": plan.inheritance.describe()} if plan.inheritance else {}),
        **({"learns": learning.describe(plan.learned)} if plan.learned else {}),
        **(
            {"at the end": f"the weights of the best trials are averaged, of at most {most}"}
            if (most := plan.settings.study.average_most)
            else {}
        ),
        **(
            {"first": f"the default recipe, by itself on all {machine.cores * machine.devices_per_trial} cores"}
            if alone
            else {}
        ),
        **(
            {"each trial": f"on {machine.devices_per_trial} {'GPUs' if machine.gpus else 'processes'}"}
            if machine.devices_per_trial > 1
            else {}
        ),
    }


def _objectives(study: StudySettings) -> str:
    return ", ".join(f"{name} ({direction_of(name)}d)" for name in study.objectives)


def print_price(plan: SweepPlan, console: StudyConsole, ended: Sequence[TrialRecord]) -> float | None:
    """Print what the rest of the study will cost, after the `ended` trials. Returns the seconds; None if unknown."""
    measured = worker_count.calibrations_or_estimate(plan.settings, plan.paths, plan.dataset.fingerprint, plan.workers)
    if not measured:
        remote = plan.settings.worker.home is not None
        console.print(
            f"  expected: unknown, {'workers run on other machines' if remote else 'the speed could not be measured'}"
        )
        return None
    speed, study = Speed.of(measured), plan.settings.study
    one = speed.training_seconds(plan.dataset.sizes, _mean_epochs(plan), len(study.rungs))
    left: float = max(0, study.n_trials - len(stopping.own_trials(ended)))
    if study.budget_epochs is not None:
        spent = stopping.epochs_spent(ended, plan.settings.recipe)
        left = min(left, max(0.0, study.budget_epochs - spent) / _mean_epochs(plan))
    rounds = max(left / plan.workers, 1 if left else 0)
    may_pause = study.n_trials if "Asha" in str(plan.settings.pruner.get("_target_")) else 0
    whole = 1 + bool(study.average_most)  # MLflow has a copy of the study's model
    disk = speed.disk_gigabytes(study.keep_until_end, plan.workers, may_pause, whole)
    console.price(measured, one * rounds, disk)
    if measured[0].cut >= MIN_CUT_SHOWN:
        console.print(
            f"  note: {measured[0].cut:.0%} of the training texts are cut at model.max_tokens="
            f"{plan.settings.recipe.model.max_tokens} tokens"
        )
    return one * rounds


def _mean_epochs(plan: SweepPlan) -> float:
    for parameter in plan.space.parameters:
        if parameter.key == EPOCHS_KEY:
            values = parameter.values() or [parameter.distribution.low, parameter.distribution.high]
            return float(sum(values) / len(values))
    return plan.settings.recipe.epochs
