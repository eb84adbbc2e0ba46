"""Stands for `python` while documentation is tried: the very commands, with searches made small."""

import os
import socket
import subprocess
import sys

from tests.support.fork_server import request

SERVER = "FORK_SERVER"  # variable of the environment: the file descriptor of a server's socket

TINY = [
    "model=tiny",
    "model.learning_rate=1e-4",
    "data.max_examples={train: 80, validation: 60, test: 60}",
    "study.report=false",
]
SMALL = {
    "src.sweep": [*TINY, "study.baselines=[majority]"],
    "src.train": [*TINY, "trainer.num_train_epochs=1"],
    "src.compare": ["compare.seeds=4", "compare.top_k=1"],
}
FEW = ("study.n_trials=", "study.join=")
ABOUT_WORKERS = ("workers=", "worker.", "launcher=", "study.join=", "study.plan_only=", "compare.plan_only=")


def smaller(arguments: list[str]) -> list[str]:
    """The command with what makes it small, unless it is about something that would then be lost."""
    if arguments[:1] != ["-m"] or arguments[1] not in SMALL:
        return arguments
    module, given = arguments[1], arguments[2:]
    if not {"--help", "--info", "--cfg", "-sc"}.isdisjoint(given):
        return arguments
    more = list(SMALL[module])
    if module == "src.sweep" and not any(word.startswith(FEW) for word in given):
        more.append("study.n_trials=3")
    if module != "src.train" and not any(word.startswith(ABOUT_WORKERS) for word in given):
        more += ["launcher=inline", "workers=1"]  # no other processes, whose imports take most of the time
    return ["-m", module, *given, *more]


def run(arguments: list[str]) -> int:
    """Run Python with these arguments; Trialbook's commands fork from the server whose socket SERVER names."""
    number = os.environ.pop(SERVER, None)
    if number is None or arguments[0] != "-m" or not arguments[1].startswith("src."):
        return subprocess.call([sys.executable, *arguments])
    reports = request(socket.socket(fileno=int(number)), arguments[1:], os.getcwd(), os.environ, (0, 1, 2))
    _, code = int(reports.readline()), int(reports.readline())
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(smaller(sys.argv[1:])))
