"""What one worker of a comparison does: train recipes on fresh seeds, then answer the opened test split."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from src import drain, mirror
from src.evidence import registry
from src.evidence.runs import Run
from src.learning import baselines, checkpoints, classify, devices, ready_made, resume
from src.paths import Paths, write_whole
from src.records import Calibration, Evaluation, State, Stop
from src.runner import contenders, studies
from src.runner.choice import Choice
from src.runner.contenders import BASELINE, Contender, LineUp, Repeat
from src.runner.desk import Desk, TrainingRun, attempt_training, measure_once, train_within_memory
from src.runner.studies import Studied
from src.settings import Recipe, Settings
from src.text import seal


@dataclass(frozen=True)
class Unit:
    """One piece of work, done by one worker at a time; its folder says whether it is done."""

    folder: Path
    done: Callable[[], bool]
    do: Callable[[], None]

    def tried(self) -> bool:
        """Do it, unless it is done or in another worker's hands; whether it was done here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", blocking=False):
                if self.done():
                    return False
                self.do()
                return True
        except Timeout:
            return False


class RepeatRun(TrainingRun):
    """A training outside the search: only a signal ends it early."""

    def asked_to_stop(self, _step: int) -> Stop | None:
        return _drained()


class Silent:
    """Hears a training whose record is complete; a signal ends it."""

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def evaluated(self, _: Evaluation) -> Stop | None:
        return None

    def timed(self, _: Calibration) -> None:
        pass

    def saved(self) -> None:
        pass

    def asked_to_stop(self, _step: int) -> Stop | None:
        return _drained()


def _drained() -> Stop | None:
    """The order to pause, once a signal has asked for it."""
    return Stop(State.PAUSED, drain.REASON) if drain.asked() else None


def work(
    study: str, index: int, of: int, paths: Paths, cpus: int | None = None, measure_only: bool = False
) -> None:  # fmt: skip
    """Do what is to be done for the comparison of `study`. Runs in a process of its own, any number of them at once.

    `cpus`: threads of this worker, where they are not to be the machine's shared out.
    """
    studied = studies.load(study, paths)
    own = studied.settings
    machine = devices.this_machine(bool(own.recipe.trainer.get("use_cpu")), own.worker.devices_per_trial)
    threads = devices.use_share(index, of, machine, cpus)
    desk = Desk(studied.settings, paths)
    measure_once(desk, index, of)
    if measure_only:
        return
    line_up = LineUp.read(studied.folder)
    choice = Choice.read(studied.folder, line_up)
    if choice is None:
        units = list(_trainings(desk, studied, line_up, {"threads": threads, "worker": index}))
    else:
        units = list(_answers(desk, studied, choice))
    for unit in units:
        if drain.asked():
            return
        unit.tried()


def _trainings(desk: Desk, studied: Studied, line_up: LineUp, place: Mapping[str, int]) -> Iterator[Unit]:
    """`place`: who trains here, as tags of its runs."""
    for repeat in contenders.repeats(line_up, studied.folder):
        yield Unit(repeat.folder, partial(_ended, repeat), partial(_train, desk, studied, repeat, place))


def _ended(repeat: Repeat) -> bool:
    return repeat.outcome() is not None


def _train(desk: Desk, studied: Studied, repeat: Repeat, place: Mapping[str, int]) -> None:
    settings = repeat.contender.settings(repeat.seed)
    run = _run_of(desk, studied, repeat, settings)
    run.tags(place)
    run.status(State.RUNNING)
    run.deliver(desk.store)
    outcome = attempt_training(settings.recipe, desk, RepeatRun(run, desk.store), repeat.training)
    mirror.record_outcome(run, outcome)
    if outcome.state != State.PAUSED:
        write_whole(repeat.folder / "outcome.json", outcome.to_json())
        resume.drop(repeat.training)
    run.deliver(desk.store)


def _run_of(desk: Desk, studied: Studied, repeat: Repeat, settings: Settings) -> Run:
    contender = repeat.contender
    run = mirror.repeat_run(studied.book, studied.folder, contender.key, contender.name, repeat.seed)
    tags = {"kind": "repeat", "contender": contender.name, "contender.key": contender.key}
    run.tags({**mirror.facts(desk.corpus, studied.name), **tags})
    if not run.described:
        searched = [p.key for p in studied.book.space.parameters]
        mirror.describe_training(run, settings, searched, settings.overrides)
    return run


def _answers(desk: Desk, studied: Studied, choice: Choice) -> Iterator[Unit]:
    """The test split, by those that the choice opened it for."""
    ledger = studied.paths.openings(studied.corpus.fingerprints["test"])
    frame = seal.read(desk.corpus, ledger, seal.Opening(choice.opening, choice.key))
    texts = frame["text"].tolist()
    for repeat in choice.tested:
        yield Unit(repeat.folder, partial(_complete, repeat, choice), partial(_answer_trained, desk, repeat, texts))
    for contender in choice.fixed:
        file = contenders.fixed_answers(contender, studied.folder)
        yield Unit(file.parent, file.exists, partial(_answer_fixed, desk, contender, frame, file))


def _complete(repeat: Repeat, choice: Choice) -> bool:
    """Whether it has answered, and the weights are there if they are the ones to register."""
    return repeat.answers.exists() and (repeat.folder != choice.registered.folder or repeat.weights.is_dir())


def _keep(file: Path, answers: np.ndarray) -> None:
    scratch = file.with_name("part.npy")
    np.save(scratch, answers.astype(np.float32))
    scratch.replace(file)


def _answer_trained(desk: Desk, repeat: Repeat, texts: list[str]) -> None:
    recipe = repeat.contender.settings(repeat.seed).recipe
    if not repeat.weights.is_dir() and not _trained_again(desk, repeat, recipe):
        return
    use_cpu = bool(recipe.trainer.get("use_cpu"))
    _keep(repeat.answers, classify.chances(classify.from_folder(repeat.weights, use_cpu), texts))


def _trained_again(desk: Desk, repeat: Repeat, recipe: Recipe) -> bool:
    """Train weights once more that an earlier comparison let go of; False if it was stopped.

    The same seed makes the same weights where nothing else has changed; where something has, the new outcome counts.
    """
    scratch = repeat.folder / "again"
    outcome = train_within_memory(recipe, desk, Silent(), scratch)
    if outcome.state == State.PAUSED:
        return False
    before = repeat.outcome()
    if before is None or (before.score, dict(before.metrics)) != (outcome.score, dict(outcome.metrics)):
        write_whole(repeat.folder / "outcome.json", outcome.to_json())
    resume.drop(scratch)
    scratch.rename(repeat.training)
    return True


def _answer_fixed(desk: Desk, contender: Contender, frame: pd.DataFrame, file: Path) -> None:
    """By a baseline, or by the champion as it stands in the registry."""
    names = desk.corpus.label_names
    if contender.kind == BASELINE and contender.name in baselines.CLASSIC:
        train = desk.corpus.frame("train")
        _keep(file, baselines.answer_classic(contender.name, train, frame["text"], len(names)))
        return
    if contender.name == "ready_made":
        own = ready_made.checked(desk.settings, desk.paths.cache)
        _keep(file, ready_made.chances(own, desk.settings, frame["text"].tolist()))
        return
    if contender.kind == BASELINE:
        recipe = desk.settings.recipe
        checkpoint = checkpoints.resolve(recipe.model, desk.paths.cache)
        classifier = classify.untuned(checkpoint, recipe.model, names, recipe.seed)
    else:
        classifier = registry.load(desk.store, contender.uri)
    found = classify.chances(classifier, frame["text"].tolist())
    order = classify.label_names(classifier)
    _keep(file, found[:, [order.index(name) for name in names]])
