"""A campaign of faults: each seed breaks one thing of a finished study, runs a command, and then the same one again.

What is broken: a file of records, a variable of the environment, the process (a signal), MLflow's server (answers 500,
late or not at all, or goes away), the clock (wrong, or set while the command runs; needs Debian's `faketime`). Every
outcome must be a right result or a sentence: no traceback, no unexpected error, and the second time, without the fault,
the command must do its work.

`python -m tests.support.faults --count 300 --log faults.jsonl` goes on where the log ends.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.commands import COMPARE, INLINE, LETTERS, Command, Place
from tests.support.data import write_letters
from tests.support.servers import command_for, faulty_proxy, free_port, start
from tests.support.servers import stop as stop_server

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
KINDS = ("file", "file", "file", "variable", "signal", "server", "clock")
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
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


def prepare(base: Path) -> None:
    """A finished study, its comparison and its champion, in `base`; nothing is done if they are there."""
    if (base / "kept").exists():
        return
    shutil.rmtree(base, ignore_errors=True)
    place = Place(base / "project")
    place.folder.mkdir(parents=True)
    write_letters(place.folder / "letters.csv")
    for module, *arguments in (COMMANDS["sweep"], COMMANDS["compare"], COMMANDS["promote"]):
        done = place.run(module, *arguments)
        assert done.code in (0, 3), done.err
    shutil.copytree(place.folder, base / "kept.part", symlinks=True)
    (base / "kept.part").rename(base / "kept")


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


def run_seed(base: Path, seed: int) -> Outcome:
    """Draw a fault and a command from `seed`, and see what comes of it.

    Args:
        base: where `prepare` made the study.
        seed: of the draw.
    """
    draw = random.Random(seed)
    place = Place(base / "project")  # where it was made: the addresses of MLflow's artifacts are right
    shutil.rmtree(place.folder, ignore_errors=True)
    shutil.copytree(base / "kept", place.folder, symlinks=True)
    command = draw.choice(list(COMMANDS))
    kind = draw.choice(KINDS)
    if kind == "clock" and FAKETIME is None:
        kind = "variable"
    with ExitStack() as ends:
        setting = FAULTS[kind](place, draw, ends)
        code, said = _run(place, command, setting.env, setting.meanwhile)
        again, said_again = _run(place, command, setting.healthy, None)
    problems = [p for p in (problem_of(code, said, setting.ends_it), problem_of(again, said_again, False)) if p]
    if kind != "file" and again != 0 and not (command == "promote" and again == 3):
        problems.append(f"without the fault the command still ends with {again}")
    told = said[-600:] + " ### " + said_again[-600:]
    return Outcome(seed, setting.fault, command, code, again, "; ".join(problems), told)


@dataclass(frozen=True)
class Setting:
    """How a command is run with a fault, and once more without."""

    fault: str
    env: dict[str, str] = field(default_factory=dict)
    healthy: dict[str, str] = field(default_factory=dict)  # of the second time
    meanwhile: Callable[[Command], None] | None = None
    ends_it: bool = False  # whether the fault ends the process


def _file(place: Place, draw: random.Random, _: ExitStack) -> Setting:
    return Setting(break_file(place, draw))


def _variable(_: Place, draw: random.Random, __: ExitStack) -> Setting:
    name, value = draw.choice(VARIABLES)
    return Setting(f"{name}={value}", {name: value})


def _signal(_: Place, draw: random.Random, __: ExitStack) -> Setting:
    number, seconds = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL]), draw.uniform(0.5, 12)

    def send(process: Command) -> None:
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, number)

    return Setting(f"{number.name} after {seconds:.1f} s", meanwhile=send, ends_it=True)


def _server(place: Place, draw: random.Random, ends: ExitStack) -> Setting:
    """The same store behind a server: the second time, the server is well."""
    url, command = command_for(place.folder, database=f"sqlite:///{place.folder}/mlflow.db")
    processes = [start(url, command)]
    ends.callback(lambda: stop_server(processes[-1]))
    healthy = {"MLFLOW_TRACKING_URI": url}
    how = draw.choice(["faulty", "gone", "goes"])
    if how == "faulty":
        share = draw.choice([0.1, 0.3, 0.6])
        proxy = ends.enter_context(faulty_proxy(url, share, draw.randrange(1000)))
        return Setting(f"{share:.0%} of the server's answers fail", {"MLFLOW_TRACKING_URI": proxy}, healthy)
    if how == "gone":
        nobody = f"http://127.0.0.1:{free_port()}"
        return Setting("the server does not answer", {"MLFLOW_TRACKING_URI": nobody}, healthy)
    seconds = draw.uniform(2, 15)

    def leave(process: Command) -> None:
        time.sleep(seconds)
        stop_server(processes[-1])
        process.wait(600)
        processes.append(start(url, command))

    return Setting(f"the server goes away after {seconds:.1f} s", healthy, healthy, leave)


def _clock(place: Place, draw: random.Random, _: ExitStack) -> Setting:
    """The time of day is wrong, or set while the command runs; what counts seconds goes on."""
    file, seconds = place.folder / "clock", draw.uniform(1, 10)
    before, after = draw.choice([("-3d", "-3d"), ("+400d", "+400d"), ("+0", "-2h"), ("+0", "+30d"), ("+30d", "+0")])
    file.write_text(before)
    env = {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip

    def set_clock(process: Command) -> None:
        time.sleep(seconds)
        if process.poll() is None:
            file.write_text(after)

    return Setting(f"the clock is {before}, after {seconds:.1f} s {after}", env, meanwhile=set_clock)


FAULTS: dict[str, Callable[[Place, random.Random, ExitStack], Setting]] = {
    "file": _file, "variable": _variable, "signal": _signal, "server": _server, "clock": _clock,
}  # fmt: skip


def _run(
    place: Place, command: str, env: dict[str, str], meanwhile: Callable[[Command], None] | None
) -> tuple[int, str]:
    module, *arguments = COMMANDS[command]
    process = place.start(module, *arguments, env=PATIENCE | env)
    beside = threading.Thread(target=meanwhile or (lambda _: None), args=(process,))
    beside.start()
    said = "".join(process.communicate(timeout=600))
    beside.join()
    assert process.returncode is not None
    return process.returncode, said


def problem_of(code: int, said: str, stopped: bool) -> str:
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
    parser.add_argument("--base", type=Path, default=Path(tempfile.gettempdir()) / "faults")
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"))
    options = parser.parse_args()
    prepare(options.base)
    done = (
        {json.loads(line)["seed"] for line in options.log.read_text().splitlines()} if options.log.exists() else set()
    )
    for seed in range(options.first, options.first + options.count):
        if seed not in done:
            outcome = run_seed(options.base, seed)
            with options.log.open("a") as log:
                log.write(json.dumps(asdict(outcome)) + "\n")
            print(
                f"{seed:4d} {outcome.command:14} {outcome.code:4d} {outcome.again:4d} {outcome.fault}", outcome.problem
            )


if __name__ == "__main__":
    main()
