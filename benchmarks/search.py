"""How fast a search gets to the accuracy that its peers end at.

    python -m benchmarks.search --data <folder of SST-2's parquet files>          # everything that is not done yet
    python -m benchmarks.search --data ... --peers trialbook ray_asha --seeds 0   # a part of it

Every peer searches the same space (learning rate 1e-5 to 1e-3, weight decay 0 to 0.1, 1 to 4 epochs, dropout 0 to 0.3)
for MiniLM on the same 1,000 SST-2 sentences, judged on the same 872, with the same number of trials, for at most twenty
minutes. Each runs in an environment of its own with the versions of `peers/requirements`, its caches warm from a first
call. Where a peer was searched on another machine than Trialbook, Trialbook searches there too, with the same seed
(`--beside`), and the two are compared. Afterwards every setting that was a search's best so far is trained anew from
three fresh seeds, all by the same plain loop, and judged on 1,000 sentences that no search saw. Each run is a record of
its own: what is there is not run again.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common

RECIPE = {"warmup": 0.1, "learning_rate": 1e-4, "weight_decay": 0.01, "num_train_epochs": 4, "dropout": 0.1}
"""Trialbook's default recipe for MiniLM, as conf/ had it before these data were looked at."""
WITH_RECIPE = ("hyperparameter_search", "random_search", "hydra_optuna", "ray_asha")  # bertuner's epochs are its own
PEERS = ("trialbook", "hyperparameter_search", "random_search", "hydra_optuna", "ray_asha", "bertuner_search")
TRIALS = 12
LIMIT_SECONDS = 1200  # of a search: about twice what hyperparameter_search needs; what has not ended by then is cut off
FRESH = (1001, 1002, 1003)
FOLDER = common.RECORDS / "search"
RESCORED = FOLDER / "rescored.jsonl"
SCRIPTS = common.HERE / "peers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.parquet and validation.parquet; default: the Hub")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--environments", type=Path, default=Path("peers-environments"), help="where peers are installed"
    )
    parser.add_argument("--only", choices=("install", "search", "rescore"))
    parser.add_argument(
        "--beside", action="store_true", help="let Trialbook search, too, on the machine of each peer's search"
    )
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        data = prepared(arguments.data, Path(work) / "data")
        pythons = {peer: python_of(peer, arguments.environments) for peer in arguments.peers}
        if arguments.only == "install":
            return
        for seed in arguments.seeds if arguments.only != "rescore" else ():
            for peer in arguments.peers:
                place = Path(work) / f"{peer}-{seed}"
                if not record_of(peer, seed).exists():
                    search(peer, seed, pythons[peer], data, place, arguments.beside)
                elif arguments.beside and peer != "trialbook":
                    accompany(record_of(peer, seed), seed, data, place)
                if peer in WITH_RECIPE and not record_of(peer, seed, alone=True).exists():
                    recipe_alone(peer, seed, pythons[peer], data, Path(work) / f"{peer}-{seed}-recipe")
    if arguments.only != "search":
        rescore(arguments.data)


def prepared(source: str | None, folder: Path) -> Path:
    """The sentences as parquet, for the peers' scripts and for `data=files`; what no search sees is the sealed test."""
    folder.mkdir(parents=True)
    for name, frame in common.sentences(source).items():
        frame.to_parquet(folder / f"{'test' if name == 'held_out' else name}.parquet", index=False)
    return folder


def python_of(peer: str, environments: Path) -> Path:
    """The interpreter of the peer's own environment, made if need be."""
    if peer == "trialbook":
        return Path(sys.executable)
    folder = (environments / peer).resolve()
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        wanted = SCRIPTS / "requirements" / f"{peer}.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", wanted], check=True)
        done.touch()
    return python


def record_of(peer: str, seed: int, alone: bool = False) -> Path:
    return FOLDER / ("recipe" if alone else "") / f"{peer}-{seed}.json"


def recipe_alone(peer: str, seed: int, python: Path, data: Path, place: Path) -> None:
    """The recipe as a peer's only trial: what it would have first, were it told of it."""
    place.mkdir(parents=True)
    began = time.time()
    (result,) = another(peer, python, data, place, place / "trials.jsonl", seed, 1, began, RECIPE)
    common.write(f"search/recipe/{peer}-{seed}", {"peer": peer, "seed": seed, "trial": result})
    print(f"{peer}, seed {seed}, the recipe: {result['value']:.4f} after {result['elapsed']:.0f} s", flush=True)


def search(peer: str, seed: int, python: Path, data: Path, place: Path, beside: bool = False) -> None:
    """One search of one peer, twice: shortened to one trial to warm its caches, then as it counts."""
    versions = None
    if peer != "trialbook":
        frozen = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True)
        versions = frozen.stdout.split()
    values = {"peer": peer, "seed": seed, **_searched(peer, seed, python, data, place), "freeze": versions}
    if beside:
        ours = _searched("trialbook", seed, Path(sys.executable), data, place / "beside")
        values["beside"] = {"seed": seed, **ours}
    common.write(f"search/{record_of(peer, seed).stem}", values)
    best = max(values["trials"], key=lambda t: t["value"])
    took = f"{best['elapsed']:.0f} s of {values['seconds']:.0f}"
    print(f"{peer}, seed {seed}: {best['value']:.4f} after {took}", flush=True)


def accompany(record: Path, seed: int, data: Path, place: Path) -> None:
    """Let Trialbook search on the machine that a peer has searched on, unless it has."""
    values = json.loads(record.read_text())
    if "beside" in values or values["machine"] != common.circumstances()["machine"]:
        return
    ours = _searched("trialbook", seed, Path(sys.executable), data, place)
    common.write(f"search/{record.stem}", {**values, "beside": {"seed": seed, **ours}})


def _searched(peer: str, seed: int, python: Path, data: Path, place: Path) -> dict[str, Any]:
    for trials in (1, TRIALS):
        place.mkdir(parents=True, exist_ok=True)
        began = time.time()
        if peer == "trialbook":
            result = trialbook(python, data, place, seed, trials, began)
        else:
            result = another(peer, python, data, place, place / f"trials-{trials}.jsonl", seed, trials, began)
        seconds = time.time() - began
    return {"seconds": seconds, "trials": result}


def another(  # noqa: PLR0917
    peer: str, python: Path, data: Path, place: Path, out: Path, seed: int, trials: int, began: float,
    recipe: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    given = {"data": data, "model": common.minilm(), "place": place / "work", "out": out, "began": began}
    given = {k: str(v) for k, v in given.items()} | {"seed": seed, "trials": trials}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}
    if recipe:
        environment["PEER_RECIPE"] = json.dumps(recipe)
    command = [python, SCRIPTS / f"{peer}.py"]
    if peer == "hydra_optuna":
        environment |= {
            "PEER": json.dumps({**given, "began": began}),
            "PEER_TRIALS": str(trials),
            "PEER_SEED": str(seed),
        }
        command += [f"hydra.sweep.dir={place / 'hydra'}"]
        command += [f"hydra.sweeper.params.{k}='choice({v})'" for k, v in (recipe or {}).items() if k != "warmup"]
    else:
        command += [word for k, v in given.items() for word in (f"--{k}", str(v))]
    with (place / "said.txt").open("a") as log:
        left = began + LIMIT_SECONDS - time.time()
        with subprocess.Popen(
            command, env=environment, cwd=place, stdout=log, stderr=log, start_new_session=True
        ) as process:
            try:
                if process.wait(left):
                    raise subprocess.CalledProcessError(process.returncode, command)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    return within_limit(common.lines(out))


def within_limit(trials: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials that had ended when the limit came."""
    return [trial for trial in trials if trial["elapsed"] <= LIMIT_SECONDS]


def trialbook(python: Path, data: Path, place: Path, seed: int, trials: int, began: float) -> list[dict[str, Any]]:
    """Trialbook as it comes: its default recipe first, its own choice of workers, sampler, pruner and rungs."""
    name = f"sst2-{trials}"
    command = [
        python, "-m", "src.sweep", "-m", "data=files", f"data.path={data}", "data.text_column=sentence",
        "data.label_names=[negative,positive]", "model=minilm", "space.optimizer.learning_rate.high=1e-3",
        f"study.n_trials={trials}", f"study.seed={seed}", f"study.name={name}",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(common.HERE.parent)}
    with (place / "said.txt").open("a") as log:
        subprocess.run(command, check=True, env=environment, cwd=place, stdout=log, stderr=log)
    return list(_ended(place / "mlruns" / "studies" / name, began))


def _ended(study: Path, began: float) -> Iterator[dict[str, Any]]:
    """The study's finished trials, as its own records have them."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(next(study.glob("*journal*.log")))))
    (name,) = optuna.get_all_study_names(storage)
    for trial in optuna.load_study(study_name=name, storage=storage).trials:
        if trial.value is not None:
            params = {key.rsplit(".", 1)[-1]: value for key, value in trial.params.items()}
            elapsed = trial.datetime_complete.timestamp() - began
            yield {"elapsed": elapsed, "value": trial.value, "settings": {"warmup": 0.1, **params}}


# --- trained anew ---


def incumbents(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials that were the best when they ended, in order."""
    result: list[dict[str, Any]] = []
    for trial in sorted(trials, key=lambda t: t["elapsed"]):
        if not result or trial["value"] > result[-1]["value"]:
            result.append(trial)
    return result


def key_of(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def to_rescore() -> dict[str, dict[str, Any]]:
    """Settings by key: every best-so-far of every search, Trialbook's first."""
    records = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*-*.json"))]
    records.sort(key=lambda record: PEERS.index(record["peer"]))
    searches = [output for record in records for output in (record, record.get("beside")) if output]
    return {key_of(t["settings"]): t["settings"] for output in searches for t in incumbents(output["trials"])}


def rescore(source: str | None) -> None:
    """Train what is wanted from three fresh seeds, in two processes of one thread."""
    from multiprocessing import get_context

    done = {(line["key"], line["seed"]) for line in common.lines(RESCORED)}
    jobs = [(k, s, seed) for k, s in to_rescore().items() for seed in FRESH if (k, seed) not in done]
    with get_context("spawn").Pool(2, initializer=_start, initargs=(source,)) as pool:
        for line in pool.imap_unordered(_rescored, jobs):
            with RESCORED.open("a") as stream:
                stream.write(json.dumps(line) + "\n")


_rows: dict[str, Any] = {}


def _start(source: str | None) -> None:
    import torch

    torch.set_num_threads(1)
    _rows.update(common.tokenised(common.sentences(source), common.minilm()))


def _rescored(job: tuple[str, dict[str, Any], int]) -> dict[str, Any]:
    from benchmarks.bare import Setting, load, train

    key, settings, seed = job
    setting = Setting(**settings, seed=seed, shares=(1.0,))
    result = train(load(common.minilm(), setting.dropout, seed), setting, *_rows["train"], [_rows["held_out"]] * 2)
    correct = result.correct[1.0]
    return {"key": key, "seed": seed, "accuracy": float(correct.mean()), "correct": correct.astype(int).tolist()}


if __name__ == "__main__":
    main()
