"""What it costs to share a study: a claim and its end beside many finished trials, and many workers that only wait.

    python -m benchmarks.coordination                                             # the journal
    python -m benchmarks.coordination --postgres postgresql+psycopg://me@host/db  # and an empty database
    python -m benchmarks.coordination --mlflow http://host:5000                   # and what a server takes

The trainings are sleeps; claims, ends, locks and the sampler (TPE) are the product's own. What an MLflow server takes
is measured by batched writes as an evaluation makes them. Everything runs on one machine, servers included.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra import compose, initialize_config_dir

from benchmarks import common
from src.config.groups import CONF_DIR
from src.config.reader import read_settings
from src.core.records import State, TrainingResult
from src.search import space as spaces
from src.search import trial_lifecycle
from src.search.study import Study

FINISHED = (0, 1_000, 10_000)
ROUNDS = 60  # of claim and end, at each of them
WORKERS = (1, 4, 16, 64)
SECONDS = 2.0  # of a training that is a sleep
LONG = (16, 30.0, 4)  # workers, seconds of a training (a short real one), trials for every worker
EACH = 8  # trials for every worker
WRITERS = (1, 4, 16)
WRITES, METRICS = 40, 12  # batched writes of each, metrics in one, as an evaluation has them with the curve before it
PROCESSES = multiprocessing.get_context("forkserver")


def opened(folder: Path, url: str | None, name: str, trials: int) -> Study:
    overrides = [f"study.name={name}", f"study.n_trials={trials}", "pruner=none", "model=tiny"]
    overrides += [f"storage.url={url}"] if url else []
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        settings = read_settings(compose("config", overrides=overrides, return_hydra_config=True), overrides)
    return Study(settings, spaces.build_space(settings), "maximize", folder)


def score(params: dict[str, Any]) -> float:
    """A made-up one, so that the sampler has something to learn."""
    return 1 - abs(float(np.log10(params["optimizer.learning_rate"])) + 4) / 4 - float(params["model.dropout"]) / 9


# --- a claim and its end, beside many finished trials ---


def filled(study: Study, count: int) -> None:
    """Finished trials at random, as they lie in a study that has run for long."""
    sampler: Any = optuna.samplers.RandomSampler(seed=0)
    distributions = {p.key: p.distribution for p in study.space.parameters}
    trials = []
    for _ in range(count):
        params = {key: sampler.sample_independent(None, None, key, d) for key, d in distributions.items()}
        result = {"outcome": {"state": "COMPLETE", "score": score(params)}, "origin": "sampler"}
        trials.append(
            optuna.trial.create_trial(
                params=params, distributions=distributions, value=score(params), user_attrs=result
            )
        )
    with study.lock:  # at once
        study.optuna_study.add_trials(trials)


def latency(folder: Path, url: str | None, finished: int) -> dict[str, Any]:
    study = opened(folder, url, f"latency-{finished}", finished + ROUNDS + 1)
    study.create({})
    filled(study, finished)
    claims, ends = [], []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        mine = trial_lifecycle.claim_trial(study)
        claimed = time.perf_counter()
        assert mine is not None
        trial_lifecycle.finish_trial(study, mine, TrainingResult(State.COMPLETE, score=score(mine.params)))
        claims.append(claimed - began)
        ends.append(time.perf_counter() - claimed)
    both = np.add(claims, ends)[1:] * 1e3  # the first reads what is there
    return {"finished": finished, "p50": float(np.quantile(both, 0.5)), "p95": float(np.quantile(both, 0.95)),
            "claim": float(np.median(claims[1:]) * 1e3), "end": float(np.median(ends[1:]) * 1e3)}  # fmt: skip


# --- many workers ---


def work(  # noqa: PLR0917
    folder: str, url: str | None, name: str, trials: int, seconds: float, ready: Any, timeline: Any
) -> None:
    """A worker whose trainings are sleeps; in a folder of its own where the study is in a database."""
    study = opened(Path(folder), url, name, trials)
    assert study.optuna_study.study_name == name
    ready.wait()
    while True:
        began = time.perf_counter()
        mine = trial_lifecycle.claim_trial(study)
        if mine is None:
            return
        claimed = time.perf_counter()
        time.sleep(seconds)
        slept = time.perf_counter()
        trial_lifecycle.finish_trial(study, mine, TrainingResult(State.COMPLETE, score=score(mine.params)))
        timeline.put((mine.number, time.time(), claimed - began + time.perf_counter() - slept))


def together(folder: Path, url: str | None, workers: int, seconds: float = SECONDS, each: int = EACH) -> dict[str, Any]:
    name, trials = f"together-{workers}-{seconds:g}", workers * each
    opened(folder / "0", url, name, trials).create({})
    ready, timeline = PROCESSES.Barrier(workers + 1), PROCESSES.Queue()
    own = [folder / (str(i) if url else "0") for i in range(workers)]
    processes = [
        PROCESSES.Process(target=work, args=(str(own[i]), url, name, trials, seconds, ready, timeline))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    ready.wait()
    began = time.time()
    ended = []
    connections = 0
    for _ in range(trials):
        ended.append(timeline.get(timeout=600))
        connections = max(connections, _connections(url)) if url and len(ended) == trials // 2 else connections
    for process in processes:
        process.join()
    makespan = max(moment for _, moment, _ in ended) - began
    both = np.array([spent for _, _, spent in ended]) * 1e3
    result = opened(folder / "0", url, name, trials).trials()
    all_params = {json.dumps(dict(t.params), sort_keys=True) for t in result}
    return {
        "workers": workers, "training_seconds": seconds, "trials": trials, "seconds": makespan,
        "per_second": trials / makespan,
        "utilisation": each * seconds / makespan, "lost": trials - sum(t.state == State.COMPLETE for t in result),
        "twice": len(ended) - len({number for number, _, _ in ended}) + len(result) - len(all_params),
        "p50": float(np.quantile(both, 0.5)), "p95": float(np.quantile(both, 0.95)), "connections": connections,
    }  # fmt: skip


def _connections(url: str) -> int:
    """Open ones to this database, as it sees them."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            query = "select count(*) from pg_stat_activity where datname = current_database()"
            return int(connection.execute(text(query)).scalar_one()) - 1
    finally:
        engine.dispose()


# --- what an MLflow server takes ---


def write_to(uri: str, experiment: str, ready: Any, timeline: Any) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    run = client.create_run(experiment).info.run_id
    ready.wait()
    for step in range(WRITES):
        began = time.perf_counter()
        metrics = [Metric(f"validation/{i}", step / WRITES, int(time.time() * 1000), step) for i in range(METRICS)]
        client.log_batch(run, metrics=metrics)
        timeline.put((time.time(), time.perf_counter() - began))


def written(uri: str, writers: int) -> dict[str, Any]:
    """So many at once, each with a run of its own."""
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).create_experiment(f"writes-{writers}-{time.time():.0f}")
    ready, timeline = PROCESSES.Barrier(writers + 1), PROCESSES.Queue()
    processes = [PROCESSES.Process(target=write_to, args=(uri, experiment, ready, timeline)) for _ in range(writers)]
    for process in processes:
        process.start()
    ready.wait()
    began = time.time()
    ended = [timeline.get(timeout=600) for _ in range(writers * WRITES)]
    for process in processes:
        process.join()
    seconds = max(moment for moment, _ in ended) - began
    each = np.array([took for _, took in ended]) * 1e3
    return {"writers": writers, "metrics": METRICS, "per_second": len(ended) / seconds,
            "p50": float(np.quantile(each, 0.5)), "p95": float(np.quantile(each, 0.95))}  # fmt: skip


def stores(postgres: str | None) -> Iterator[tuple[str, str | None]]:
    yield "journal", None
    if postgres:
        yield "PostgreSQL", postgres


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", help="an empty database")
    parser.add_argument("--mlflow", help="an MLflow server that may be written to")
    parser.add_argument("--finished", nargs="*", type=int, default=FINISHED)
    parser.add_argument("--workers", nargs="*", type=int, default=WORKERS)
    arguments = parser.parse_args()
    PROCESSES.set_forkserver_preload(
        ["src.search.trial_lifecycle", "src.config.compose"]
    )  # here: there is one list in a process
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for store, url in stores(arguments.postgres):
        with tempfile.TemporaryDirectory() as place:
            rows = []
            for count in arguments.finished:
                rows.append(latency(Path(place) / f"latency-{count}", url, count))
                print(store, rows[-1], flush=True)
            crowds = []
            for workers, seconds, each in [*((workers, SECONDS, EACH) for workers in arguments.workers), LONG]:
                folder = Path(place) / f"together-{workers}-{seconds:g}"
                crowds.append(together(folder, url, workers, seconds, each))
                print(store, crowds[-1], flush=True)
        result[store] = {"latency": rows, "together": crowds}
    writes = [written(arguments.mlflow, writers) for writers in (WRITERS if arguments.mlflow else ())]
    for row in writes:
        print("MLflow", row, flush=True)
    common.write("coordination", {"stores": result, "seconds": SECONDS, "rounds": ROUNDS, "mlflow": writes})


if __name__ == "__main__":
    main()
