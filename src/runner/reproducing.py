"""A recorded training once more, from its record alone, and every number of it compared."""

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from src import config, mirror
from src.errors import Differs, Refusal, StudyEnded
from src.evidence import environment, recorded
from src.evidence.recorded import Curves, Recorded
from src.evidence.store import existing_store
from src.learning import devices, ranks
from src.learning.finetune import failure_reason, halved_to, precision
from src.paths import Paths
from src.records import Calibration, Evaluation, Outcome, State, Stop
from src.runner.desk import Desk, curve_names
from src.runner.plan import machine_for
from src.settings import Recipe, Settings
from src.text import corpus as corpora

SEALED = "test/"  # figures on the sealed split are not worked out again


class Listener:
    """Hears a training, and ends it where the recorded one ended."""

    def __init__(self, last_step: int | None) -> None:
        self.last_step = last_step
        self.curves: dict[str, dict[int, float]] = defaultdict(dict)

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.curves[name][step] = value

    def evaluated(self, evaluation: Evaluation) -> Stop | None:
        self.curve(evaluation.step, curve_names(evaluation))
        if self.last_step is not None and evaluation.step >= self.last_step:
            return Stop(State.PRUNED, "as recorded")
        return None

    def timed(self, _: Calibration) -> None:
        pass

    def saved(self) -> None:
        pass

    def asked_to_stop(self, step: int) -> Stop | None:
        over = self.last_step is not None and step >= self.last_step
        return Stop(State.PRUNED, "as recorded") if over else None


@dataclass(frozen=True)
class Difference:
    """One metric of the two runs: at how many of its steps they differ, and the largest difference."""

    metric: str
    steps: int
    differ: int
    missing: int
    largest: float


def reproduce(run_id: str | None, tracking_uri: str | None, paths: Paths) -> None:
    """Raises Differs (exit code 1) if any number differs; Refusal if the run or its data cannot be had."""
    if not run_id:
        raise Refusal("Which run is to be trained again is not said: python -m src.reproduce run=<MLflow run id>.")
    store = existing_store(tracking_uri, paths.root)
    before = recorded.read(store, run_id)
    settings = config.restored(before.yaml)
    worker = replace(settings.worker, devices_per_trial=before.devices)
    settings = replace(settings, recipe=as_it_was(settings.recipe, before), worker=worker)
    corpus = corpora.prepare(settings.data, paths.cache)
    if corpus.fingerprint != before.data:
        raise Refusal(
            f"The run {run_id} was trained on data with the fingerprint {before.data}; what {settings.data.name} "
            f"({settings.data.path or settings.data.hub_id}) holds now has {corpus.fingerprint}. Put the old data back."
        )
    console = Console(highlight=False, soft_wrap=True)
    devices.use_share(0, 1, machine_for(settings))
    threads = devices.use_threads(before.threads)
    console.print(
        f"Again: {before.name} ({before.kind}, {before.state}), {threads} thread{'s' * (threads != 1)}, "
        f"{precision(settings.recipe)}",
        markup=False,
    )
    desk = Desk(settings, paths, store)
    listener = Listener(before.steps if before.state == State.PRUNED else None)
    folder = paths.training(f"reproduce-{run_id}-{time.strftime('%H-%M-%S')}")
    try:
        outcome = _train(settings, desk, listener, folder)
    except KeyboardInterrupt:
        raise StudyEnded("Stopped. Nothing was compared, and the record is unchanged.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = compared(before, {**listener.curves, **_ends(outcome)})
    _say(console, before, outcome, found)
    same = not any(d.differ or d.missing for d in found) and outcome.state == before.state
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    recorded.note(store, run_id, {"reproduced": "identical" if same else "differs", "reproduced.at": when})
    if not same:
        raise Differs(f"The run {run_id} did not come out the same (see above). Its record is unchanged.")


def as_it_was(recipe: Recipe, before: Recorded) -> Recipe:
    """The recipe with what its config left to the machine: the precision, and how many examples fit at a time."""
    trainer = dict(recipe.trainer)
    if before.precision and trainer.get("bf16") == "auto":
        trainer |= {kind: before.precision == kind for kind in ("bf16", "fp16")}
    recipe = replace(recipe, trainer=trainer)
    return halved_to(before.micro_batch, recipe, before.devices) if before.micro_batch else recipe


def compared(before: Recorded, curves: Curves) -> list[Difference]:
    """Every recorded number, but timings and test figures, against the new one at the same step."""
    found = []
    for name, old in sorted(before.curves.items()):
        if name.startswith(SEALED):
            continue
        new = curves.get(name, {})
        gaps = [abs(new[step] - value) for step, value in old.items() if step in new and not _equal(new[step], value)]
        missing = sum(step not in new for step in old)
        found.append(Difference(name, len(old), len(gaps), missing, max(gaps, default=0.0)))
    return found


def _equal(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124  (NaN)


def _train(settings: Settings, desk: Desk, listener: Listener, folder: Path) -> Outcome:
    try:
        checkpoint, lesson = desk.lesson(settings.recipe.model)
        each = settings.worker.devices_per_trial
        return ranks.fine_tune(each, settings.recipe, checkpoint, lesson, desk.goal, listener, folder)
    except Refusal:
        raise
    except Exception as error:  # a training that failed is reproduced by failing again
        return Outcome(State.FAIL, reason=failure_reason(error))


def _ends(outcome: Outcome) -> Curves:
    """What is recorded at a training's end, as curves of one point."""
    numbers = {name: value for name, value in mirror.end_numbers(outcome).items() if value is not None}
    return {name: {outcome.steps or 0: value} for name, value in numbers.items()}


def _say(console: Console, before: Recorded, outcome: Outcome, found: list[Difference]) -> None:
    """The differences and what may explain them, or that there are none."""
    numbers = sum(d.steps for d in found)
    console.print(f"{outcome.state}{f': {outcome.reason}' if outcome.state == State.FAIL else ''}", markup=False)
    wrong = [d for d in found if d.differ or d.missing]
    if not wrong:
        same = f"All {numbers} recorded numbers of {len(found)} metrics are identical"
        console.print(f"{same} (timings are not compared, and the test split stays sealed).", markup=False)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("metric", "steps", "differ", "missing", "largest difference"):
            table.add_column(name, justify="left" if name == "metric" else "right")
        for d in wrong:
            table.add_row(d.metric, str(d.steps), str(d.differ), str(d.missing), f"{d.largest:.3g}")
        console.print(table)
    changed = changes(before)
    for line in changed:
        console.print(f"  {line}", markup=False)
    if wrong and not changed:
        console.print("  Versions, machine, threads and precision are as recorded.", markup=False)


def changes(before: Recorded) -> list[str]:
    """What is not as it was: versions, machine."""
    now = environment.versions()
    found = [
        f"{package} was {before.versions.get(package, 'absent')} and is {now.get(package, 'absent')}"
        for package in sorted({*before.versions, *now})
        if before.versions.get(package) != now.get(package)
    ]
    machine = environment.machine()
    return found + ([f"machine was {before.machine} and is {machine}"] if before.machine != machine else [])
