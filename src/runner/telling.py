"""What a comparison is to be, and what it says on the terminal before and while it trains."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from src.evidence.store import Store
from src.records import Calibration
from src.runner import contenders, live
from src.runner.choice import Choice, finished
from src.runner.contenders import TUNED, LineUp, Repeat
from src.runner.pace import epochs
from src.runner.studies import Studied
from src.search.account import Account
from src.settings import ComparisonSettings
from src.verdict.power import Power

LOOK_SECONDS = 0.5  # between two looks for trainings that ended


@dataclass(frozen=True)
class ComparePlan:
    """A comparison that has passed every check, and nothing spent on it yet."""

    asked: ComparisonSettings
    studied: Studied
    line_up: LineUp
    workers: int
    store: Store
    registry: str

    @property
    def folder(self) -> Path:
        return self.studied.folder

    def todo(self) -> list[Repeat]:
        """Trainings without an end; a failed one is tried again, until the choice is made."""
        if Choice.read(self.folder, self.line_up) is not None:
            return []
        every = list(contenders.repeats(self.line_up, self.folder))
        return [r for r in every if not finished(r.outcome())]


def plan(plan: ComparePlan, account: Account) -> None:
    """Contenders, seeds, and what can come of it."""
    line_up, corpus = plan.line_up, plan.studied.corpus
    names = [f"{c.name} ({c.about})" if c.about and c.kind != TUNED else c.name for c in line_up.contenders]
    candidates = ", ".join(c.name for c in line_up.candidates)
    trainings = len(line_up.recipes) * len(line_up.seeds)
    rows = {
        "contenders": ", ".join(names),
        "fresh seeds": f"{', '.join(map(str, line_up.seeds))}: {trainings} trainings, {len(plan.todo())} to go",
        "choice": f"the best of {candidates} by mean validation {account.study.metric}",
        "then": f"the {corpus.sizes['test']} sealed test examples; a margin of {plan.asked.margin:g} is asked",
        "can show": _power(plan),
    }
    account.say(f"Comparison of {plan.studied.name}: {plan.workers} worker{'s' * (plan.workers != 1)}")
    for name, text in rows.items():
        account.say(f"  {name:<11}  {text}")
    for note in line_up.notes:
        account.say(f"  note: {note}")


def price(plan: ComparePlan, account: Account, measured: Sequence[Calibration]) -> float | None:
    """What the rest of it will cost, from the calibration; returns its seconds, if they are known."""
    if not measured:
        account.say("  expected: unknown, the calibration failed")
        return None
    sizes, rungs = plan.studied.corpus.sizes, len(plan.studied.settings.study.rungs)
    per_example = sum(c.seconds_per_example for c in measured) / len(measured)
    per_evaluated = sum(c.seconds_per_evaluated for c in measured) / len(measured)
    each = [epochs(repeat.contender.settings().recipe) for repeat in plan.todo()]
    seconds = sum(e * sizes["train"] * per_example + rungs * sizes["validation"] * per_evaluated for e in each)
    seconds += (2 * len(plan.line_up.seeds) + 2) * sizes["test"] * per_evaluated
    # Weights of every training until the choice; per worker the best ones and two checkpoints with AdamW's moments.
    copies = len(plan.line_up.recipes) * len(plan.line_up.seeds) + 7 * plan.workers
    account.price(measured, seconds / plan.workers, copies * measured[0].megabytes / 1e3, "")
    return seconds / plan.workers


class Watch:
    """A thread that says a line for every training that ended, and draws what is going on."""

    def __init__(self, plan: ComparePlan, account: Account, expected: float | None = None) -> None:
        self.plan, self.account, self.expected = plan, account, expected
        self.view = live.View(account.console, plan.asked.progress)
        self._runs = live.Runs()
        self._began = time.monotonic()
        self._before = len([r for r in contenders.repeats(plan.line_up, plan.folder) if r.outcome() is not None])
        self.every = list(contenders.repeats(plan.line_up, plan.folder))
        self.said = {r.folder for r in self.every if r.outcome() is not None}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True, name="comparison")

    def __enter__(self) -> None:
        self.view.__enter__()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.look(last=True)

    def look(self, last: bool = False) -> None:
        """Say what is new; the last look ends the thread."""
        if last:
            self._over.set()
            self._thread.join()
            self.view.__exit__()
        for repeat in self.every:
            outcome = repeat.outcome() if repeat.folder not in self.said else None
            if outcome is not None:
                self.said.add(repeat.folder)
                score = "" if outcome.score is None else f"{outcome.score:.4f}"
                tail = f"  ({outcome.reason})" if outcome.reason else ""
                self.account.progress(
                    f"[{len(self.said)}/{len(self.every)}] {repeat.contender.name:<9} seed {repeat.seed:<6}"
                    f"{outcome.state:<8} {score:>6} {outcome.seconds:>5.0f} s{tail}"
                )

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with suppress(OSError):
                self.look()
                if self.view.due:
                    self.view.draw(self._shown())

    def _shown(self) -> live.Shown:
        """How the trainings stand, for the live view: those of this launch, whose time is known."""
        metric = self.plan.studied.settings.study.metric
        busy: dict[int, live.Busy] = {}
        for repeat in self.every:
            folder = repeat.folder / "run"
            if repeat.folder in self.said:
                self._runs.forget(folder)
            elif (tail := self._runs.at(folder)).status == "RUNNING" and "worker" in tail.tags:
                what, whole = f"{repeat.contender.name} seed {repeat.seed}", epochs(repeat.contender.settings().recipe)
                busy[int(tail.tags["worker"])] = live.busy(tail, what, metric, whole)
        return live.Shown(
            title=f"Comparison of {self.plan.studied.name}",
            unit="trainings",
            done=len(self.said) - self._before,
            total=len(self.every) - self._before,
            seconds=time.monotonic() - self._began,
            metric=metric,
            folder=self.plan.folder,
            expected=self.expected,
            busy=busy,
            workers=self.plan.workers,
        )


def _power(plan: ComparePlan) -> str:
    """What these rows and seeds can show, and what half of that would take."""
    metric = plan.studied.settings.study.metric
    if metric == "loss":
        return "not known beforehand for the loss"
    scores = [c.search_score for c in plan.line_up.candidates if c.search_score is not None]
    near = min(max([*scores, 0.55]), 0.95)
    power = Power(plan.studied.corpus.sizes["test"], len(plan.line_up.seeds), near, len(plan.line_up.candidates))
    return power.in_words(plan.asked.margin)
