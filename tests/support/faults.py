"""A campaign of faults: each seed breaks one thing of a finished study, runs a command, and then the same one again.

`python -m tests.support.faults --count 300 --log faults.jsonl` goes on where the log ends. Every outcome must be a
right result or a sentence: no traceback, no unexpected error.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.commands import COMPARE, INLINE, LETTERS, Place, clean_environment
from tests.support.data import write_letters

STUDY = [*LETTERS, *INLINE, "study.name=letters", "study.report=true"]
COMMANDS = {
    "status": ["src.status"],
    "sweep": ["src.sweep", "-m", *STUDY],
    "sweep on": ["src.sweep", "-m", *STUDY, "study.n_trials=4"],
    "compare": ["src.compare", *COMPARE, "study.name=letters"],
    "promote": ["src.promote", "study.name=letters"],
    "predict": ["src.predict", "abcd abcd", "zyxw zyxw"],
    "another study": ["src.sweep", "-m", *LETTERS, *INLINE, "study.name=other", "study.n_trials=1"],
}
VARIABLES = [
    ("MLFLOW_RUN_ID", "0" * 32), ("MLFLOW_EXPERIMENT_NAME", "x"), ("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9"),
    ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"), ("MLFLOW_TRACKING_URI", "nonsense://"), ("WORLD_SIZE", "4"),
    ("ACCELERATE_MIXED_PRECISION", "fp8"), ("HF_HOME", "/dev/null/x"), ("HOME", "/dev/null"), ("TERM", "dumb"),
    ("COLUMNS", "1"), ("FORCE_COLOR", "1"), ("LC_ALL", "C"), ("TMPDIR", "/nowhere"), ("OMP_NUM_THREADS", "0"),
    ("OMP_NUM_THREADS", "many"), ("CUDA_VISIBLE_DEVICES", "7"), ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ("HF_ENDPOINT", "http://127.0.0.1:9"), ("TRANSFORMERS_VERBOSITY", "debug"), ("PYTHONWARNINGS", "error"),
    ("HYDRA_FULL_ERROR", "1"), ("MPLBACKEND", "nonsense"), ("TZ", "Nowhere/Nothing"),
]  # fmt: skip
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}


@dataclass(frozen=True)
class Outcome:
    seed: int
    fault: str
    command: str
    code: int
    again: int
    problem: str  # empty: a right result or a sentence
    said: str  # the last lines of the first attempt


def prepare(folder: Path) -> Place:
    """A finished study, its comparison and its champion."""
    place = Place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_letters(folder / "letters.csv")
    for module, *arguments in (COMMANDS["sweep"], COMMANDS["compare"], COMMANDS["promote"]):
        done = place.run(module, *arguments)
        assert done.code in (0, 3), done.err
    return place


def small_files(folder: Path) -> list[Path]:
    """Every file of records below mlruns/, in an order that does not change; no weights, artifacts or locks."""
    found = [
        path
        for path in (folder / "mlruns").rglob("*")
        if path.is_file()
        and path.suffix not in (".safetensors", ".lock", ".bin")
        and "artifacts" not in path.parts
        and "outputs" not in path.parts
    ]
    return [*sorted(found), folder / "mlflow.db", folder / "letters.csv"]


def break_file(place: Place, draw: random.Random) -> str:
    """Cut, empty, overwrite or delete one file, as a power cut or an edit by hand would."""
    file = draw.choice(small_files(place.folder))
    how = draw.choice(["empty", "half", "zeros", "garbage", "delete"])
    content = file.read_bytes()
    if how == "delete":
        file.unlink()
    else:
        file.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "zeros": bytes(len(content)), "garbage": b"{]\xff\n"}[
                how
            ]
        )
    return f"{how} {file.relative_to(place.folder)}"


def run_seed(base: Place, scratch: Path, seed: int) -> Outcome:
    """Draw a fault and a command from `seed`, and see what comes of it."""
    draw = random.Random(seed)
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(base.folder, scratch, symlinks=True)
    place = Place(scratch)
    command = draw.choice(list(COMMANDS))
    kind = draw.choice(["file", "file", "file", "variable", "signal"])
    env: dict[str, str] = {}
    stop: Callable[[subprocess.Popen[str]], None] | None = None
    if kind == "file":
        fault = break_file(place, draw)
    elif kind == "variable":
        name, value = draw.choice(VARIABLES)
        env, fault = {name: value}, f"{name}={value}"
    else:
        number, seconds = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL]), draw.uniform(0.5, 12)
        fault = f"{number.name} after {seconds:.1f} s"

        def stop(process: subprocess.Popen[str]) -> None:
            time.sleep(seconds)
            if process.poll() is None:
                os.killpg(process.pid, number)

    code, said = _run(place, command, env, stop)
    again, said_again = _run(place, command, {}, None)
    problems = [p for p in (_problem(code, said, bool(stop)), _problem(again, said_again, False)) if p]
    if kind != "file" and again != 0 and not (command == "promote" and again == 3):
        problems.append(f"without the fault the command still ends with {again}")
    return Outcome(seed, fault, command, code, again, "; ".join(problems), said[-600:] + " ### " + said_again[-600:])


def _run(
    place: Place, command: str, env: dict[str, str], stop: Callable[[subprocess.Popen[str]], None] | None
) -> tuple[int, str]:
    module, *arguments = COMMANDS[command]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=place.folder, env=clean_environment() | PATIENCE | env, text=True, errors="replace",
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if stop is not None:
        stop(process)
    out, _ = process.communicate(timeout=600)
    return process.returncode, out


def _problem(code: int, said: str, stopped: bool) -> str:
    """What is wrong with how a command ended; empty if nothing."""
    if stopped and code < 0:
        return ""  # killed
    if "An unexpected error" in said:
        return "an unexpected error: " + said[said.index("An unexpected error") :][:300]
    if "Traceback (most recent call last)" in said and "HYDRA_FULL_ERROR" not in said:
        return "a traceback: " + said.strip().splitlines()[-1][:300]
    if code not in (0, 1, 2, 3, 130, 143):
        return f"exit code {code}"
    return "" if code == 0 or said.strip() else "it ended without a word"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--base", type=Path, default=Path(tempfile.gettempdir()) / "faults" / "base")
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"))
    options = parser.parse_args()
    base = Place(options.base) if options.base.exists() else prepare(options.base)
    done = (
        {json.loads(line)["seed"] for line in options.log.read_text().splitlines()} if options.log.exists() else set()
    )
    for seed in range(options.first, options.first + options.count):
        if seed not in done:
            outcome = run_seed(base, options.base.with_name(f"scratch-{os.getpid()}"), seed)
            with options.log.open("a") as log:
                log.write(json.dumps(asdict(outcome)) + "\n")
            print(
                f"{seed:4d} {outcome.command:14} {outcome.code:4d} {outcome.again:4d} {outcome.fault}", outcome.problem
            )


if __name__ == "__main__":
    main()
