"""What workers say is printed by the launching process, through its console."""

import io
import multiprocessing
from multiprocessing.connection import Connection

import pytest
from rich.console import Console as RichConsole

from src.console.output import StudyConsole
from src.core import messages
from tests.support.data import settings_of


def printed_by(progress: str) -> io.StringIO:
    out = io.StringIO()
    StudyConsole(settings_of(f"progress={progress}"), RichConsole(file=out, width=200))
    return out


def test_without_a_console_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    messages.notify("a note")
    assert capsys.readouterr() == ("", "a note\n")


def test_with_progress_off_only_what_is_important_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed_by("off")
    messages.notify("a note")
    messages.notify("an error [of a worker]", important=True)
    assert out.getvalue() == "an error [of a worker]\n"
    assert capsys.readouterr() == ("", "")


def work(sender: Connection) -> None:
    messages.send_to_launcher(sender)
    messages.notify("from a worker")
    messages.notify("its end", important=True)


def test_a_workers_messages_are_printed_in_their_order_by_the_launching_process() -> None:
    out = printed_by("lines")
    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=work, args=(sender,))
    process.start()
    sender.close()
    while messages.forward(receiver):
        pass
    process.join()
    assert out.getvalue() == "from a worker\nits end\n"


def test_a_worker_whose_launching_process_is_gone_goes_on() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    receiver.close()
    messages.send_to_launcher(sender)
    messages.notify("nobody hears this")
