"""A study before it starts: every check there is, and its price."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src import config
from src.errors import Refusal, masked
from src.evidence import store
from src.learning import arguments, checkpoints, devices, names, ready_made
from src.learning.checkpoints import Checkpoint
from src.paths import Paths, check_writable
from src.runner import outpost, pace
from src.runner.pace import epochs
from src.search import lint, storage
from src.search import space as spaces
from src.search.account import Account
from src.search.space import Space
from src.search.study import Book, definition
from src.settings import ModelSettings, Settings
from src.text import corpus as corpora
from src.text.corpus import Corpus

WORTH_SAYING = 0.01  # of the training texts that are cut


@dataclass(frozen=True)
class Plan:
    """A study that has passed every check, and nothing spent on it yet."""

    settings: Settings
    paths: Paths
    space: Space
    direction: str
    corpus: Corpus
    checkpoint: Checkpoint
    workers: int
    warnings: tuple[str, ...]

    @property
    def definition(self) -> dict[str, Any]:
        found = definition(self.settings, self.space, self.corpus.fingerprint, self.checkpoint.fingerprint)
        if "ready_made" in self.settings.study.baselines:
            found["study.ready_made"] = ready_made.checked(self.settings, self.paths.cache).fingerprint
        return found

    @property
    def models(self) -> list[tuple[ModelSettings, Checkpoint]]:
        """Every model that a worker may need, and where it lies here."""
        models, cache = list(_searched_models(self.settings, self.space)), self.paths.cache
        if other := self.settings.study.ready_made:
            models.append(replace(self.settings.recipe.model, checkpoint=other))
        return [(model, checkpoints.find(model, cache)) for model in models]

    @property
    def folder(self) -> Path:
        return self.paths.study(self.settings.study.name)

    def begun(self) -> Book | None:
        """The study as an earlier command left it, if it was created."""
        book = self.book() if self.folder.exists() else None
        return book if book and book.created() else None

    def book(self) -> Book:
        return Book(self.settings, self.space, self.direction, self.folder)


def check(settings: Settings, paths: Paths) -> Plan:
    """Everything that can be refused is refused here, cheapest first. Writes caches, but no study and no run."""
    arguments.check(settings.recipe, settings.worker.devices_per_trial)
    space = spaces.of(settings)
    warnings = lint.check(settings, space, config.group_options())
    machine = machine_for(settings)
    check_writable(paths.root)
    outpost.check(settings, paths.root)
    store.check(settings.tracking, paths.root)
    storage.check(settings.storage)
    checkpoint = checkpoints.resolve(settings.recipe.model, paths.cache)
    for model in _searched_models(settings, space):
        if model != settings.recipe.model:
            checkpoints.resolve(model, paths.cache)
    corpus = corpora.prepare(settings.data, paths.cache)
    study = settings.study
    if "ready_made" in study.baselines:
        ready_made.checked(settings, paths.cache)
    direction = names.direction_of(study.metric, study.direction, len(corpus.label_names))
    workers = settings.workers or pace.auto(settings, paths, corpus, machine, study.n_trials)
    plan = Plan(settings, paths, space, direction, corpus, checkpoint, workers, tuple(warnings))
    if book := plan.begun():
        book.existing(plan.definition)
    elif any(plan.folder.glob("trials/*")):
        raise Refusal(
            f"The folder {plan.folder} has trials of a study {study.name} whose records are kept elsewhere: "
            f"storage.url is {masked(settings.storage.url or 'null')} now (null: the journal in that folder). Name the "
            "storage that it was searched with, or begin another study: study.name=<another>."
        )
    return plan


def _searched_models(settings: Settings, space: Space) -> Iterator[ModelSettings]:
    """Every model that a trial may have: each choice of group or checkpoint, with the most tokens, and a dropout, if
    these are searched."""
    values = {p.key: p.ends() for p in space.parameters}
    tokens = max(values.get("model.max_tokens", [0]))
    dropout = next(iter(values.get("model.dropout", ())), None)
    own = [o for o in settings.overrides if not o.startswith("model=")]
    models = [config.compose([*own, f"model={choice}"]).recipe.model for choice in values.get("model", [])]
    for model in [*models, settings.recipe.model]:
        for checkpoint in values.get("model.checkpoint", [model.checkpoint]):
            given = model.dropout if model.dropout is not None else dropout
            yield replace(model, checkpoint=checkpoint, max_tokens=max(tokens, model.max_tokens), dropout=given)


def refuse_shared_names(plans: Sequence[Plan]) -> None:
    """Several studies in one command need a name each."""
    for name, n in Counter(plan.settings.study.name for plan in plans).items():
        if n > 1:
            raise Refusal(
                f"{n} of the studies on the command line are called {name}; let study.name say what differs, for "
                "example study.name='${data.name}-${model.name}-${seed}'."
            )


def machine_for(settings: Settings) -> devices.Machine:
    machine = devices.this_machine(bool(settings.recipe.trainer.get("use_cpu")), settings.worker.devices_per_trial)
    if settings.recipe.trainer.get("require_gpu") and not machine.gpus:
        raise Refusal("trainer=gpu asks for a GPU, and torch finds none here; use trainer=cpu or trainer=auto.")
    return machine


def facts(plan: Plan) -> dict[str, str]:
    """What the plan says of data and model."""
    sizes = ", ".join(f"{n} {split}" for split, n in plan.corpus.sizes.items() if split != "test")
    dropped = "; ".join(f"{key.replace('_', ' ')}: {n}" for key, n in plan.corpus.notes.items() if n)
    model = plan.settings.recipe.model
    sampler, pruner = (str(n["_target_"]).rsplit(".", 1)[-1] for n in (plan.settings.sampler, plan.settings.pruner))
    machine, trials = machine_for(plan.settings), plan.settings.study.n_trials
    alone = devices.default_alone(machine, plan.workers, trials) and not plan.space.outside(plan.space.default())
    return {
        "data": f"{plan.corpus.name}: {sizes}; {plan.corpus.sizes['test']} test examples stay sealed",
        **({"in the data": dropped} if dropped else {}),
        "model": f"{model.checkpoint} ({plan.checkpoint.source}, {plan.checkpoint.megabytes:.0f} MB), at most "
        f"{model.max_tokens} tokens",
        "sampler, pruner": f"{sampler}, {pruner}; judged at {', '.join(f'{r:.0%}' for r in plan.settings.study.rungs)} "
        "of each schedule",
        **({"first": f"the default recipe, by itself on all {machine.cores * machine.each} cores"} if alone else {}),
        **({"each trial": f"on {machine.each} {'GPUs' if machine.gpus else 'processes'}"} if machine.each > 1 else {}),
    }


def say_price(plan: Plan, account: Account, ended: int) -> float | None:
    """What the rest of the study will cost; returns its seconds, if they are known."""
    measured = pace.priced(plan.settings, plan.paths, plan.corpus.fingerprint, plan.workers)
    if not measured:
        remote = plan.settings.worker.home is not None
        account.say(
            f"  expected: unknown, {'workers have machines of their own' if remote else 'the calibration failed'}"
        )
        return None
    per_example = sum(c.seconds_per_example for c in measured) / len(measured)
    per_evaluated = sum(c.seconds_per_evaluated for c in measured) / len(measured)
    sizes, study = plan.corpus.sizes, plan.settings.study
    epochs = _mean_epochs(plan)
    one = sizes["train"] * epochs * per_example + len(study.rungs) * sizes["validation"] * per_evaluated
    left = max(0, study.n_trials - ended)
    rounds = max(left / plan.workers, 1 if left else 0)
    # Weights that are kept and MLflow's copy; per worker the best ones and two checkpoints, which hold AdamW's two
    # moments too (three times the weights); one for each trial that may pause.
    paused = study.n_trials if "Asha" in str(plan.settings.pruner.get("_target_")) else 0
    copies = study.keep_checkpoints + 1 + 7 * plan.workers + 4 * paused
    account.price(measured, one * rounds, copies * measured[0].megabytes / 1e3)
    if measured[0].cut >= WORTH_SAYING:
        account.say(
            f"  note: {measured[0].cut:.0%} of the training texts are cut at model.max_tokens="
            f"{plan.settings.recipe.model.max_tokens} tokens"
        )
    return one * rounds


def _mean_epochs(plan: Plan) -> float:
    for parameter in plan.space.parameters:
        if parameter.key == "trainer.num_train_epochs":
            values = parameter.values() or [parameter.distribution.low, parameter.distribution.high]
            return float(sum(values) / len(values))
    return epochs(plan.settings.recipe)
