"""A model of many workers, from what `coordination` measured: what carries how many, and what to turn when it breaks.

Nothing here is measured; it divides what one machine took by what a trial asks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MINUTES = (1, 5, 30)  # of a trial
WORKERS = (16, 64, 256, 1000)
RUNGS = 3  # evaluations of a trial, each a report to the study, a write to MLflow and, but the last, a checkpoint
OTHER_WRITES = 3  # to MLflow for a trial: its beginning, its end, its tags
CONNECTIONS = 100  # that PostgreSQL takes out of the box
LINK = 125.0  # MB per second of a network of 1 Gbit/s
MODELS = {"MiniLM": 91.0, "DistilBERT": 268.0}  # MB of weights
COPIES = 3  # a checkpoint holds the weights and AdamW's two moments
HEAD = """# How far it scales

Made by `python -m benchmarks.pages` from the record of `benchmarks/coordination.py`: what one small machine took,
servers and workers together, divided by what a trial asks. Dedicated servers take more; this says what breaks first,
and what to turn then.
"""


@dataclass(frozen=True)
class Limit:
    """One thing that all workers share."""

    name: str
    asked: float  # of it, by a trial; of connections: by a worker
    given: float  # of it, per second; of connections: in all
    words: str
    turn: str
    per_worker: bool = False

    def workers(self, minutes: float) -> float:
        """How many it carries, at trials of so many minutes."""
        return self.given / self.asked * (1 if self.per_worker else minutes * 60)


def limits(record: dict[str, Any]) -> list[Limit]:
    """All there are, from the record of a run against PostgreSQL."""
    store = record["stores"]["PostgreSQL"]
    slowest = max(store["latency"], key=lambda r: r["finished"])
    crowd = max(store["together"], key=lambda r: r["workers"])
    writes = max(r["per_second"] for r in record["mlflow"])
    each = crowd["connections"] / crowd["workers"]
    result = [
        Limit(
            "connections to PostgreSQL", each, CONNECTIONS,
            f"{each:.1f} of a worker (measured with {crowd['workers']}); {CONNECTIONS} out of the box",
            "`max_connections` in postgresql.conf, or Optuna's proxy for the study (`storage.url=grpc://...`), which "
            "holds the database's connections for all of its clients (locks then lie in a folder that all see)",
            per_worker=True,
        ),
        Limit(
            "claims and ends", 1, min(1e3 / slowest["p50"], crowd["per_second"]),
            f"one at a time, {slowest['p50']:.0f} ms beside {slowest['finished']:,} finished trials; "
            f"{crowd['per_second']:.1f} per second where {crowd['workers']} at once want them",
            "longer trials; several studies (each has its own lock); `sampler=random`, which has nothing to work out",
        ),
        Limit(
            "writes to MLflow", RUNGS + OTHER_WRITES, writes,
            f"{RUNGS + OTHER_WRITES} of a trial; {writes:.0f} per second taken",
            "more server processes (`mlflow server --workers`), a database of its own; what does not get through waits "
            "in the worker's outbox and holds no training up",
        ),
    ]  # fmt: skip
    for model, megabytes in MODELS.items():
        megabytes_per_trial = megabytes * (RUNGS * 1 + (RUNGS - 1) * COPIES)
        result.append(
            Limit(
                f"checkpoints of {model} over a network of 1 Gbit/s", megabytes_per_trial, LINK,
                f"{megabytes_per_trial:.0f} MB of a trial, where machines share no folder (`worker.home`)",
                "a shared folder; artifacts on S3 (the server passes them through, so `--no-serve-artifacts` lets "
                "workers write there themselves); fewer rungs: `study.rungs=[1.0]`",
            )
        )  # fmt: skip
    return result


def page(record: dict[str, Any] | None, table: Callable[[Sequence[str], Sequence[Sequence[str]]], str]) -> str:
    """The whole text."""
    if record is None or "PostgreSQL" not in record["stores"]:
        return HEAD + "\nThere is no record of a run against PostgreSQL yet.\n"
    every = limits(record)
    rows = [[lim.name, lim.words, *(_count(lim.workers(m)) for m in MINUTES)] for lim in every]
    parts = [HEAD, "## What carries how many workers\n"]
    parts.append(table(["", "a trial asks", *(f"workers, trials of {m} min" for m in MINUTES)], rows))
    parts.append("## What breaks first\n")
    for minutes in MINUTES:
        order = sorted(every, key=lambda lim: lim.workers(minutes))
        breaks_first = ", then ".join(f"{lim.name} ({_count(lim.workers(minutes))} workers)" for lim in order[:3])
        parts.append(f"- Trials of {minutes} min: {breaks_first}.")
    parts += ["", "## What to turn\n", *_turns(every)]
    parts += ["", "## A thousand workers\n", "Asked of everything that is shared, per second, at trials of 5 min:\n"]
    demands = [
        [f"{n:,}", f"{n / 300:.2f}", f"{n * (RUNGS + OTHER_WRITES) / 300:.1f}", f"{every[0].asked * n:,.0f}",
         *(f"{lim.asked * n / 300:,.0f} MB" for lim in every[3:])]
        for n in WORKERS
    ]  # fmt: skip
    parts.append(table(["workers", "claims and ends", "writes to MLflow", "connections", *MODELS], demands))
    crowd = max(record["stores"]["PostgreSQL"]["together"], key=lambda r: r["workers"])
    parts += [
        "## Simulated\n",
        f"{crowd['workers']} worker processes on one machine, trainings of {record['seconds']:g} s that are sleeps, "
        f"against PostgreSQL: {crowd['per_second']:.1f} trials per\nsecond, {100 * crowd['utilisation']:.0f} % of the "
        f"workers' time used, a claim and its end within {crowd['p95']:.0f} ms (p95), {crowd['lost']} trials lost, "
        f"{crowd['twice']} made twice.\n"
        "That is as many claims per second as "
        f"{_count(crowd['per_second'] * 300)} workers make whose trials take 5 min.",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _turns(every: Sequence[Limit]) -> list[str]:
    """What to turn for each, once."""
    names: dict[str, str] = {}
    for lim in every:
        names.setdefault(lim.turn, lim.name.split(" of ")[0])
    return [f"- **{name[0].upper()}{name[1:]}**: {turn}." for turn, name in names.items()]


def _count(workers: float) -> str:
    """Two figures are what a model is good for."""
    rounded = float(f"{workers:.2g}")
    return f"{rounded:,.0f}"
