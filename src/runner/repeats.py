"""What one worker of a comparison does: train recipes on fresh seeds, then answer the opened test split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from src import drain, mirror
from src.evidence import registry
from src.evidence.runs import Run
from src.learning import baselines, checkpoints, classify, devices
from src.learning.judge import BEST
from src.paths import Paths, write_whole
from src.records import State, Stop
from src.runner import contenders, studies
from src.runner.choice import Choice
from src.runner.contenders import BASELINE, Contender, LineUp, Repeat
from src.runner.desk import Desk, TrainingRun, attempt_training, measure_once
from src.runner.studies import Studied
from src.settings import Settings
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

    def asked_to_stop(self) -> Stop | None:
        return Stop(State.PAUSED, drain.REASON) if drain.asked() else None


def work(study: str, index: int, of: int, paths: Paths) -> None:
    """Do what is to be done for the comparison of `study`. Runs in a process of its own, any number of them at once."""
    studied = studies.load(study, paths)
    machine = devices.this_machine(bool(studied.settings.recipe.trainer.get("use_cpu")))
    threads = devices.use_share(index, of, machine)
    desk = Desk(studied.settings, paths)
    measure_once(desk, index, of)
    if not (studied.folder / contenders.LINE_UP).exists():
        return  # asked for the price only
    line_up = LineUp.read(studied.folder)
    choice = Choice.read(studied.folder, line_up)
    if choice is None:
        units = list(_trainings(desk, studied, line_up, threads))
    else:
        units = list(_answers(desk, studied, choice))
    for unit in units:
        if drain.asked():
            return
        unit.tried()


def _trainings(desk: Desk, studied: Studied, line_up: LineUp, threads: int) -> Iterator[Unit]:
    for repeat in contenders.repeats(line_up, studied.folder):
        yield Unit(repeat.folder, partial(_ended, repeat), partial(_train, desk, studied, repeat, threads))


def _ended(repeat: Repeat) -> bool:
    return repeat.outcome() is not None


def _train(desk: Desk, studied: Studied, repeat: Repeat, threads: int) -> None:
    settings = repeat.contender.settings(repeat.seed)
    run = _run_of(desk, studied, repeat, settings, threads)
    run.status(State.RUNNING)
    run.deliver(desk.store)
    outcome = attempt_training(settings.recipe, desk, RepeatRun(run, desk.store), repeat.training)
    mirror.record_outcome(run, outcome)
    if outcome.state != State.PAUSED:
        write_whole(repeat.folder / "outcome.json", outcome.to_json())
    run.deliver(desk.store)


def _run_of(desk: Desk, studied: Studied, repeat: Repeat, settings: Settings, threads: int) -> Run:
    contender = repeat.contender
    run = mirror.repeat_run(studied.book, studied.folder, contender.key, contender.name, repeat.seed)
    tags = {"kind": "repeat", "contender": contender.name, "contender.key": contender.key, "threads": threads}
    run.tags({**mirror.facts(desk.corpus, studied.name), **tags})
    if not run.described:
        searched = [p.key for p in studied.book.space.parameters]
        mirror.describe_training(run, settings, searched, settings.overrides)
    return run


def _answers(desk: Desk, studied: Studied, choice: Choice) -> Iterator[Unit]:
    """The test split, by those that the choice opened it for."""
    ledger = studied.paths.openings(studied.corpus.fingerprints["test"])
    frame = seal.read(desk.corpus, ledger, seal.Opening(choice.opening, choice.key))
    for repeat in choice.tested:
        answer = partial(_answer_trained, repeat, frame["text"].tolist())
        yield Unit(repeat.folder, repeat.answers.exists, partial(_keep, repeat.answers, answer))
    for contender in choice.fixed:
        file = contenders.fixed_answers(contender, studied.folder)
        yield Unit(file.parent, file.exists, partial(_keep, file, partial(_answer_fixed, desk, contender, frame)))


def _keep(file: Path, answer: Callable[[], np.ndarray]) -> None:
    scratch = file.with_name("part.npy")
    np.save(scratch, answer().astype(np.float32))
    scratch.replace(file)


def _answer_trained(repeat: Repeat, texts: list[str]) -> np.ndarray:
    use_cpu = bool(repeat.contender.settings().recipe.trainer.get("use_cpu"))
    return classify.chances(classify.from_folder(repeat.training / BEST, use_cpu), texts)


def _answer_fixed(desk: Desk, contender: Contender, frame: pd.DataFrame) -> np.ndarray:
    """A baseline, or the champion as it stands in the registry."""
    names = desk.corpus.label_names
    if contender.kind == BASELINE and contender.name in baselines.CLASSIC:
        return baselines.answer_classic(contender.name, desk.corpus.frame("train"), frame["text"], len(names))
    if contender.kind == BASELINE:
        recipe = desk.settings.recipe
        checkpoint = checkpoints.resolve(recipe.model, desk.paths.cache)
        classifier = classify.untuned(checkpoint, recipe.model, names, recipe.seed)
    else:
        classifier = registry.load(desk.store, contender.uri)
    found = classify.chances(classifier, frame["text"].tolist())
    order = classify.label_names(classifier)
    return found[:, [order.index(name) for name in names]]
