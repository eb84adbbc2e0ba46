"""`python -m src.ui` on a real study: both servers answer, nothing is opened, and nothing stays behind."""

import json
import os
import re
import signal
import socket
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.workflows import ui
from tests.support.commands import Done, Place


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert ui.free_port(port) != port


def test_nothing_to_browse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^There is no MLflow store at"):
        ui.run_ui(None, False, None, Paths(tmp_path))


def gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_answer_until_they_are_stopped(finished: tuple[Place, Done], number: int) -> None:
    place, _ = finished
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the tests were started so that they, and what they start, do not hear this signal")
    command = place.start_python("src.ui", env={"BROWSER": "/bin/false"})
    lines = [command.stdout.readline() for _ in range(3)]
    addresses = dict(
        re.match(r"(MLflow|optuna-dashboard) +(http://127\.0\.0\.1:\d+)", line).groups() for line in lines[:2]
    )
    assert lines[1].endswith("(small)\n")
    assert lines[2] == "Ctrl-C stops what was started here.\n"
    with urllib.request.urlopen(f"{addresses['optuna-dashboard']}/api/studies") as answer:
        assert [s["study_name"] for s in json.load(answer)["study_summaries"]] == ["small"]
    request = urllib.request.Request(
        f"{addresses['MLflow']}/api/2.0/mlflow/experiments/search", b'{"max_results": 5}',
        {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request) as answer:
        assert len(json.load(answer)["experiments"]) >= 1
    for child in psutil.Process(command.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that looked something up, and is done
            assert all(c.laddr.ip == "127.0.0.1" for c in child.net_connections("inet") if c.status == "LISTEN")
    children = psutil.Process(command.pid).children(recursive=True)
    os.kill(command.pid, number)
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out.strip(), err) == (0, "Stopped.", "")
    time.sleep(0.2)
    assert not [child for child in children if not gone(child)]
