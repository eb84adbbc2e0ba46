"""Which sampler, pruner and rungs find good settings for the least training: replayed from recorded curves.

    python -m benchmarks.schedulers

A replay is a study with the project's own samplers and pruners, in which a trial that is asked for is answered with
the recorded curve of one of the three nearest configurations (`benchmarks.curves`), and time passes as tokens do: an
epoch costs three forward passes over the training texts, a judging one over the texts judged. Two workers share a
study, which starts from nothing unless the default recipe is said to come first. Regret: the best smoothed accuracy of
the table less the smoothed accuracy of the study's best trial so far, so that luck on the validation texts earns
nothing.
"""

import argparse
import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.trial import TrialState
from sklearn.ensemble import ExtraTreesRegressor

from benchmarks import common, curves
from src.config.groups import CONF_DIR
from src.search.asha import PROMOTED_ATTR, Asha, last_rung, promoted_rungs
from src.search.instantiate import instantiate
from src.search.sampler import UniquePointSampler
from src.search.space import Space, parse_space

VALIDATION, TRAIN = 350, curves.TRAIN
WORKERS = 2
BUDGETS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # in trainings of the default recipe, judged at its end alone
LENGTHS = np.array([0.15, 1.0, 1.0, 0.6])  # over which accuracy changes, in shares of each range
DEFAULT = {"learning_rate": 1e-4, "num_train_epochs": 4, "weight_decay": 0.01, "dropout": 0.1}
KEYS = {
    "learning_rate": "optimizer.learning_rate",
    "num_train_epochs": "trainer.num_train_epochs",
    "weight_decay": "optimizer.weight_decay",
    "dropout": "model.dropout",
}
NODE = {
    "optimizer": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "weight_decay": {"low": 0.0, "high": 0.1}},
    "trainer": {"num_train_epochs": {"low": 1, "high": 4}},
    "model": {"dropout": {"low": 0.0, "high": 0.3}},
}


class Table:
    """The recorded curves, and a smooth of their ends: trees, because a learning rate too high falls off a cliff."""

    def __init__(self) -> None:
        self.lines = sorted(common.lines(curves.FILE), key=lambda line: line["index"])
        self.points = np.array([_scaled(line) for line in self.lines])
        self.epochs = np.array([line["num_train_epochs"] for line in self.lines])
        self.correct = {
            share: np.array([_bits(line["correct"][str(share)]) for line in self.lines]) for share in curves.SHARES
        }
        self.model = ExtraTreesRegressor(500, min_samples_leaf=2, random_state=0)
        self.model.fit(self.points, self.correct[1.0].mean(axis=1))

    @cached_property
    def ceiling(self) -> float:
        """The best accuracy there is, smoothed."""
        return float(self.model.predict(self.points).max())

    def true(self, values: dict[str, Any]) -> float:
        """The smoothed accuracy of a point."""
        return float(self.model.predict(_scaled(values)[None])[0])

    def nearest(self, values: dict[str, Any]) -> np.ndarray:
        """The three rows whose curves may answer for a point: the same number of epochs, the nearest otherwise."""
        distance = (((self.points - _scaled(values)) / LENGTHS) ** 2).sum(axis=1)
        return np.where(self.epochs == values["num_train_epochs"], distance, np.inf).argsort()[:3]


def _scaled(values: dict[str, Any]) -> np.ndarray:
    return np.array(
        [
            (np.log10(values["learning_rate"]) + 5) / 2,
            (values["num_train_epochs"] - 1) / 3,
            values["weight_decay"] / 0.1,
            values["dropout"] / 0.3,
        ]
    )


def _bits(text: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:VALIDATION].astype(bool)


@dataclass(frozen=True)
class Variant:
    """What is compared: files of conf/sampler and conf/pruner, the rungs, and the texts that early rungs see."""

    sampler: str
    pruner: str
    rungs: tuple[float, ...] = (0.25, 0.5, 1.0)
    rung_examples: int | None = None
    recipe: bool = False  # whether the default recipe is the first trial

    @property
    def name(self) -> str:
        rungs = "/".join(f"{round(100 * r)}" for r in self.rungs)
        texts = f"{self.rung_examples or 'all'} texts"
        return f"{self.sampler}, {self.pruner} at {rungs}, {texts}" + ", recipe first" * self.recipe


def cost(epochs: float, judged: int) -> float:
    """Of so many epochs and judged texts, in forward passes over a text."""
    return 3 * TRAIN * epochs + judged


WHOLE = cost(DEFAULT["num_train_epochs"], VALIDATION)


def _node(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF_DIR / group / f"{name}.yaml").read_text())


class Replay:
    """One study with one seed; `trace` holds (cost so far, smoothed accuracy of the best trial so far)."""

    def __init__(self, table: Table, variant: Variant, seed: int) -> None:
        self.table, self.variant = table, variant
        self.shares = {round(100 * share): share for share in variant.rungs}
        self.rungs = sorted(self.shares)
        self.rng = np.random.default_rng(seed)
        base = {KEYS[k]: v for k, v in DEFAULT.items()}
        self.space: Space = parse_space(NODE, base)
        self.study = optuna.create_study(direction="maximize")
        self.study.sampler = UniquePointSampler(_node("sampler", variant.sampler), self.space, seed, self.study)
        self.study.pruner = instantiate(_node("pruner", variant.pruner), "pruner")
        if variant.recipe:
            self.study.enqueue_trial(self.space.default_params())
        part = np.random.default_rng(0).permutation(VALIDATION)[: variant.rung_examples]
        self.part = np.sort(part)
        self.trials: dict[int, optuna.Trial] = {}
        self.values: dict[int, dict[str, Any]] = {}
        self.rows: dict[int, int] = {}
        self.held: set[int] = set()
        self.best: tuple[float, int] | None = None
        self.trace: list[tuple[float, float]] = []

    def run(self) -> list[tuple[float, float]]:
        """Let the workers go on until the largest budget is spent."""
        queue = [(0.0, worker, None) for worker in range(WORKERS)]
        heapq.heapify(queue)
        end = max(BUDGETS) * WHOLE
        while queue:
            now, worker, reached = heapq.heappop(queue)
            if now * WORKERS > end:
                break
            number, rung = self._next(*reached, now) if reached else self._claim()
            heapq.heappush(queue, (now + self._cost(number, rung), worker, (number, rung)))
        return self.trace

    def _cost(self, number: int, rung: int) -> float:
        """Of going from the rung before to `rung`, with its judging."""
        before = max((r for r in self.rungs if r < rung), default=0)
        judged = VALIDATION if rung == 100 else len(self.part)
        return cost(self.values[number]["num_train_epochs"] * (rung - before) / 100, judged)

    def _claim(self) -> tuple[int, int]:
        """The trial that a free worker takes, and the rung it goes to."""
        if (result := self._promoted()) is not None:
            number, past = result
            self.held.add(number)
            return number, min(r for r in self.rungs if r > past)
        trial = self.study.ask()
        for parameter in self.space.parameters:
            parameter.suggest(trial)
        self.trials[trial.number] = trial
        self.values[trial.number] = {short: trial.params[key] for short, key in KEYS.items()}
        self.rows[trial.number] = int(self.rng.choice(self.table.nearest(self.values[trial.number])))
        self.held.add(trial.number)
        return trial.number, self.rungs[0]

    def _next(self, number: int, rung: int, now: float) -> tuple[int, int]:
        """`number` has reached `rung`: it goes on, or its worker takes another."""
        correct = self.table.correct[self.shares[rung]][self.rows[number]]
        trial = self.trials[number]
        trial.report(float(correct.mean() if rung == 100 else correct[self.part].mean()), rung)
        if rung == 100:
            self._end(number, float(correct.mean()), now)
        elif isinstance(self.study.pruner, Asha):
            if self._through(trial, rung) or self._promoted(number) is not None:
                return number, min(r for r in self.rungs if r > rung)
        elif trial.should_prune():
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            return number, min(r for r in self.rungs if r > rung)
        self.held.discard(number)
        return self._claim()

    def _through(self, trial: optuna.Trial, rung: int) -> bool:
        """Whether it is the default recipe, which no rung holds up."""
        first = self.variant.recipe and trial.number == 0
        if first:
            trial.set_user_attr(PROMOTED_ATTR, [*promoted_rungs(self.study.trials[0]), rung])
        return first

    def _end(self, number: int, score: float, now: float) -> None:
        self.study.tell(self.trials[number], score)
        if self.best is None or score > self.best[0]:
            self.best = score, number
            self.trace.append((now * WORKERS, self.table.true(self.values[number])))

    def _promoted(self, claimed: int | None = None) -> tuple[int, int] | None:
        """As `src.search.trial_lifecycle` lets trials past their rungs."""
        pruner = self.study.pruner
        if not isinstance(pruner, Asha):
            return None
        every = self.study.get_trials(deepcopy=False)
        begun = [t for t in every if t.state != TrialState.WAITING]

        def waits(trial: Any) -> bool:
            free = trial.number == claimed or (trial.state == TrialState.RUNNING and trial.number not in self.held)
            rung = last_rung(trial)
            return free and rung is not None and rung < 100 and rung not in promoted_rungs(trial)

        result = pruner.next_promotion(begun, self.rungs, "maximize", waits, closing=False)
        if result is None or (claimed is not None and result[0].number != claimed):
            return None
        frozen, rung = result
        self.trials[frozen.number].set_user_attr(PROMOTED_ATTR, [*promoted_rungs(frozen), rung])
        return frozen.number, rung


def regrets(trace: Sequence[tuple[float, float]], ceiling: float) -> list[float | None]:
    """At each budget; None before the first trial has ended."""
    result = []
    for budget in BUDGETS:
        known = [value for spent, value in trace if spent <= budget * WHOLE]
        result.append(ceiling - known[-1] if known else None)
    return result


def variants() -> Iterator[Variant]:
    """Samplers first, then pruners with their rungs, then how many texts early rungs see, then the recipe first."""
    seen = set()
    samplers = [Variant(s, p) for s in ("tpe", "random", "qmc", "cmaes") for p in ("none", "median", "asha")]
    pruners = [
        Variant("tpe", p, r)
        for p, r in itertools.product(
            ("median", "patient", "halving", "hyperband", "asha"),
            ((0.25, 1.0), (0.5, 1.0), (0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 1.0)),
        )
    ]
    part = [
        Variant("tpe", p, r, n)
        for p, r, n in itertools.product(("median", "asha"), ((0.25, 1.0), (0.25, 0.5, 1.0)), (60, 120, 200))
    ]
    first = [
        Variant("tpe", p, r, n, recipe=True)
        for p, r, n in (
            *itertools.product(("median", "asha"), ((0.25, 1.0), (0.25, 0.5, 1.0)), (None, 120)),
            ("none", (1.0,), None),
        )
    ]
    first += [
        Variant(s, p, rung_examples=200, recipe=True)
        for s, p in itertools.product(("tpe", "qmc", "random", "cmaes", "gp"), ("median", "asha"))
    ]
    for variant in (*samplers, *pruners, *part, Variant("gp", "median"), *first):
        if variant not in seen:
            seen.add(variant)
            yield variant


_table: Table


def _start() -> None:
    global _table  # noqa: PLW0603
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _table = Table()


def _replayed(job: tuple[Variant, int]) -> tuple[Variant, int, list[float | None]]:
    variant, seed = job
    return variant, seed, regrets(Replay(_table, variant, seed).run(), _table.ceiling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [(variant, seed) for variant in variants() for seed in range(arguments.seeds)]
    result: dict[Variant, list[list[float | None]]] = {}
    with get_context("spawn").Pool(arguments.processes, initializer=_start) as pool:
        for variant, _, values in pool.imap(_replayed, jobs, chunksize=10):
            result.setdefault(variant, []).append(values)
            if len(result[variant]) == arguments.seeds:
                print(variant.name, [f"{m:.4f}" for m, _ in _summary(result[variant])], flush=True)
    table = Table()
    common.write(
        "schedulers",
        {
            "configurations": len(table.lines),
            "ceiling": table.ceiling,
            "default_recipe": table.true(DEFAULT),
            "budgets": BUDGETS,
            "seeds": arguments.seeds,
            "variants": [
                {"name": v.name, **asdict(v), "mean": [m for m, _ in _summary(rows)],
                 "error": [e for _, e in _summary(rows)]}
                for v, rows in result.items()
            ],
        },
    )  # fmt: skip


def _summary(rows: Sequence[Sequence[float | None]]) -> list[tuple[float, float]]:
    """Mean regret and its standard error at each budget; a study without a finished trial has learned nothing."""
    table = np.array([[0.5 if value is None else value for value in row] for row in rows])
    return [(float(c.mean()), float(c.std(ddof=1) / np.sqrt(len(c)))) for c in table.T]


if __name__ == "__main__":
    main()
