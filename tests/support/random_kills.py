"""Kill workers, all workers, the launching process, everything, at random moments; then look what is left.

    python -m tests.support.random_kills --kills 200 --seed 1 --report chaos.json

Each round is a study of its own in a folder of its own: the same command is typed until the study is at its end.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from mlflow.entities import Run

from tests.support.commands import FAST, Command, Place, client_of, runs_of, trials_of, workers_of

LOGGING_STEPS = 2
STUDY = [
    *FAST, "study.name=chaos", "data.max_examples=400", "trainer.per_device_train_batch_size=4",
    "study.max_restarts=1000",
    f"trainer.logging_steps={LOGGING_STEPS}", "study.rungs=[0.25,0.5,1.0]",
]  # fmt: skip
KINDS = {"worker": 16, "all workers": 3, "launching process": 1, "everything": 2}
N_TRIALS = 6


@dataclass
class Report:
    """What was done, and what was found wrong."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    commands: int = 0
    rounds: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.kills.values())


def arguments(workers: int, pruner: str) -> list[str]:
    return [
        *STUDY,
        f"pruner={pruner}",
        f"study.n_trials={N_TRIALS}",
        "hydra.launcher.most_replacements=1000",
        f"workers={workers}",
    ]


def in_one_process(pruner: str) -> list[str]:
    """The same study, searched by the launching process itself."""
    small = ["data.max_examples=60", "trainer.per_device_train_batch_size=8", "launcher=inline"]
    return [*STUDY, f"pruner={pruner}", f"study.n_trials={N_TRIALS}", *small]


def torment(place: Place, command: list[str], rng: random.Random, kills: int, report: Report) -> None:
    """Type the command until it exits with 0; `kills` times, kill something meanwhile."""
    done = 0
    for _ in range(kills + 20):
        process = place.start("src.sweep", "-m", *command)
        report.commands += 1
        waited = time.monotonic()
        while process.poll() is None:
            pause = time.monotonic() + rng.uniform(0.3, 3.0)
            while process.poll() is None and time.monotonic() < pause:
                time.sleep(0.02)
            assert time.monotonic() - waited < 600, "a command hangs"
            if process.poll() is None and done < kills and (kind := kill_something(process, rng)):
                report.kills[kind] += 1
                done += 1
        out, err = process.communicate()
        if process.returncode == 0:
            return
        if process.returncode > 0:
            report.wrong.append(f"exit {process.returncode}: {err[-2000:]}{out[-500:]}")
            return
        wait_for_orphans(place)
    report.wrong.append("the study never came to its end")


def kill_something(process: Command, rng: random.Random) -> str | None:
    (kind,) = rng.choices(list(KINDS), weights=list(KINDS.values()))
    workers = workers_of(process.pid)
    try:
        match kind:
            case "everything":
                os.killpg(process.pid, signal.SIGKILL)
            case "launching process":
                process.kill()
            case "all workers" if workers:
                for worker in workers:
                    worker.kill()
            case "worker" if workers:
                rng.choice(workers).kill()
            case _:
                return None
    except (ProcessLookupError, psutil.NoSuchProcess):
        return None
    return kind


def wait_for_orphans(place: Place) -> None:
    """Workers whose launching process was killed stop at their next step; do not type the command before."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        left = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(place.folder)]
        if not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]:
            return
        time.sleep(0.1)
    raise AssertionError("orphans do not stop")


# --- what is left ---


def curves(place: Place, run: Run) -> dict[str, list[tuple[int, float]]]:
    client = client_of(place)
    names = [n for n in run.data.metrics if n.startswith(("train/", "validation/", "rung/"))]
    return {n: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)] for n in names}


def own_runs(place: Place, kind: str) -> list[Run]:
    """The runs of the study that was killed, without those of the one that it inherits from."""
    return [r for r in runs_of(place, kind) if r.data.tags["study"] == "chaos"]


def inspect(place: Place) -> list[str]:
    """Everything that is not as it would be without a kill, in words."""
    wrong = []
    trials, inherited = own_runs(place, "trial"), len(runs_of(place, "trial")) - len(own_runs(place, "trial"))
    numbers = sorted(int(r.data.tags["trial.number"]) for r in trials)
    if numbers != list(range(inherited, inherited + N_TRIALS)):
        wrong.append(f"trials in MLflow: {numbers}")
    if (stored := [t.number for t in trials_of(place, "chaos")]) != list(range(inherited + N_TRIALS)):
        wrong.append(f"trials in the study: {stored}")
    if len(own_runs(place, "study")) != 1:
        wrong.append(f"{len(own_runs(place, 'study'))} parent runs")
    for run in trials:
        number, state = run.data.tags["trial.number"], run.data.tags["trial.state"]
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}.get(state)
        if run.info.status != status:
            wrong.append(f"trial {number} is {state} and its run {run.info.status}")
        steps_done = int(float(run.data.tags["trial.steps"]))
        for name, points in curves(place, run).items():
            steps = [s for s, _ in points]
            if len(steps) != len(set(steps)):
                wrong.append(f"trial {number}: {name} has doubled steps {steps}")
            expected = list(range(LOGGING_STEPS, steps_done + 1, LOGGING_STEPS))
            if name == "train/loss" and sorted(steps) != expected:
                wrong.append(f"trial {number}: train/loss has steps {sorted(steps)}, not {expected}")
    return wrong


def summary(place: Place) -> dict[str, object]:
    """What a study with one worker must bring whatever is killed: every trial with its curves."""
    return {
        r.data.tags["trial.number"]: (
            r.data.tags["trial.state"],
            {k: v for k, v in r.data.params.items() if not k.startswith("data")},
            {name: sorted(points) for name, points in curves(place, r).items()},
        )
        for r in own_runs(place, "trial")
    }


def with_parent(place: Place) -> list[str]:
    """Search a smaller study with a narrower space; returns what makes the study inherit from it."""
    narrow = ["study.name=parent", "study.n_trials=3", "space.model.dropout.high=0.2"]
    done = place.sweep(*arguments(1, "none"), *narrow)
    assert done.code == 0, done.err
    return ["study.inherit=parent"]


def run_rounds(folder: Path, kills: int, seed: int, per_round: int = 25, inheriting: bool = False) -> Report:
    """Rounds until so many kills are done. `inheriting`: each study takes over the trials of another one."""
    rng, report = random.Random(seed), Report()
    references: dict[str, dict[str, object]] = {}
    while report.total < kills and not report.wrong:
        workers, pruner = (1, 2)[report.rounds % 2], ("asha", "none")[report.rounds // 2 % 2]
        place = Place(folder / f"round-{report.rounds}")
        place.folder.mkdir()
        before = report.total
        more = with_parent(place) if inheriting else []
        torment(place, [*arguments(workers, pruner), *more], rng, min(per_round, kills - report.total), report)
        report.wrong += inspect(place)
        if workers == 1 and not report.wrong:
            if pruner not in references:
                calm = Place(folder / f"reference-{pruner}")
                calm.folder.mkdir()
                calm.sweep(*arguments(1, pruner), *(with_parent(calm) if inheriting else []))
                references[pruner] = summary(calm)
            if summary(place) != references[pruner]:
                report.wrong.append(f"round {report.rounds}: trials differ from those of an uninterrupted study")
        report.rounds += 1
        print(
            f"round {report.rounds}: {report.total - before} kills, {workers} workers, {pruner}: {report.wrong or 'ok'}"
        )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("chaos.json"))
    overrides = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run_rounds(Path(folder), overrides.kills, overrides.seed)
    overrides.report.write_text(json.dumps(asdict(report) | {"total": report.total}, indent=1))
    print(json.dumps(asdict(report), indent=1))
    raise SystemExit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
