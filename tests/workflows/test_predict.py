"""Answers to texts, to lines of the standard input, and to the rows of a file."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from src import predict
from src.core.errors import CommandFailed, InvalidInput
from src.core.paths import Paths
from src.data.files.formats import open_table, write_frame
from src.workflows.predict import run, texts
from src.workflows.predict.answers import AnswerFile
from src.workflows.predict.request import PredictRequest
from tests.support.commands import Done, Place, clean_environment

LOW, HIGH = "abcdabcd, abc", "zyxwvuts stuvwxyz"


@pytest.mark.usefixtures("promoted")
def test_texts_are_answered_by_the_champion_from_the_command_line(judged: tuple[Place, Done]) -> None:
    done = judged[0].run("src.predict", "abcd, it's abcdefg", "stuvwxyz 'zzz, yyy'", "--batch-size", "1")
    assert done.code == 0, done.err
    first, second = done.out.splitlines()
    assert re.fullmatch(r"low   0\.\d{4}  abcd, it's abcdefg", first)
    assert re.fullmatch(r"high  0\.\d{4}  stuvwxyz 'zzz, yyy'", second)
    assert done.err.strip() == "Answered by letters version 1, the champion."


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "xlsx", "arrow"])
def test_a_file_comes_back_with_labels_and_scores_in_its_own_order(
    promoted: Paths, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from src.data.files.formats import write_with_columns

    frame = pd.DataFrame({"id": ["3", "01", "2"], "review": [LOW, f"{HIGH} and more, more zzzz", "ggfa"]})
    file, out = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    frame[["id"]].to_csv(tmp_path / "ids.csv", index=False)
    write_with_columns(open_table(tmp_path / "ids.csv"), file, file, [frame[["review"]]])
    run.predict(PredictRequest(file=str(file), out=str(out), text_columns=["review"]), promoted)
    result = open_table(out).read()
    assert result["id"].tolist() == ["3", "01", "2"]
    assert result["label"].tolist() == ["low", "high", "low"]
    assert result["score"].astype(float).between(0.5, 1).all()
    run.predict(PredictRequest(file=str(out), text_columns=["review"]), promoted)
    again = open_table(tmp_path / f"out.predictions.{ending}")
    assert again.columns == ["id", "review", "label", "score", "predicted_label", "predicted_score"]
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.glob("*.answers"))


@pytest.mark.usefixtures("promoted")
def test_the_order_and_the_batches_do_not_change_the_answers(judged: tuple[Place, Done]) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{judged[0].folder}/mlflow.db")
    classifier = mlflow.transformers.load_model("models:/letters@champion")
    every = ["ab", "zyxwvuts " * 40, "abcd efgh", "s" * 3, "hgfe dcba abcd efgh"]
    alone = [run.classify(classifier, [text])[0] for text in every]
    together = run.classify(classifier, every, batch=2)
    assert [label for label, _ in together] == [label for label, _ in alone]
    assert [score for _, score in together] == pytest.approx([score for _, score in alone], abs=1e-5)


ODD_TEXTS = ["ab", HIGH * 300, "[SEP] abcd [MASK]", "\u6f22\u5b57 \U0001f600", "a\nb\tc", "ABCD " * 70 + "zyxw"]


@pytest.mark.usefixtures("promoted")
def test_every_way_to_load_the_champion_gives_the_same_answers(
    judged: tuple[Place, Done], promoted: Paths, tmp_path: Path
) -> None:
    from transformers import pipeline

    from src.tracking.logged_model import save_without_code

    mlflow.set_tracking_uri(f"sqlite:///{judged[0].folder}/mlflow.db")
    uri = "models:/letters@champion"
    expected = run.classify(run.load_model(*run._find_model(PredictRequest(("a",)), promoted)), ODD_TEXTS)
    loaded = mlflow.transformers.load_model(uri)
    save_without_code(loaded, tmp_path)
    assert not list(tmp_path.rglob("*.py"))
    assert "auto_map" not in (tmp_path / "tokenizer_config.json").read_text()
    published = pipeline("text-classification", model=str(tmp_path))
    answers = {
        "load_model": [loaded(text)[0] for text in ODD_TEXTS],
        "a batch of load_model": loaded(ODD_TEXTS, batch_size=3),
        "pyfunc": mlflow.pyfunc.load_model(uri).predict(ODD_TEXTS).to_dict("records"),
        "published": [published(text, truncation=True)[0] for text in ODD_TEXTS],
    }
    for way, given in answers.items():
        assert [answer["label"] for answer in given] == [label for label, _ in expected], way
        scores = [answer["score"] for answer in given]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-5), way


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (PredictRequest(("a",), version="9"), "The version asked for is 9; the registered model letters has 1."),
        (PredictRequest(("a",), model="nobody"), "The registered model nobody has neither a champion nor a challenger"),
        (PredictRequest(("a",), run="0123"), "has no run 0123"),
        (PredictRequest(("a", " ")), "Text 2 of 2 is empty"),
        (PredictRequest(("a",), file="x.csv"), "There are texts and a --file"),
        (PredictRequest(("a",), out="x.csv"), "--out, --resume and --overwrite go with --file"),
        (PredictRequest(("a",), encoding="latin-42"), "--encoding is 'latin-42', which is no encoding"),
        (PredictRequest(("a\udce9",)), "Text 1 is read as utf-8, and is not. It looks like cp1252: --encoding cp1252."),
        (PredictRequest(file="nothing.csv"), "The file nothing.csv is not there"),
        (
            PredictRequest(file="letters.csv", text_columns=["review"]),
            "--text-column is 'review', but letters.csv has the columns 'text', 'label'.",
        ),
        (PredictRequest(file="letters.csv", out="x.docx"), "--out is x.docx; the name of a file it writes ends in"),
        (PredictRequest(file="letters.csv", out="no/x.csv"), "there is no folder no"),
        (PredictRequest(file="letters.csv", out="letters.csv"), "--out is letters.csv, which is the --file itself"),
        (
            PredictRequest(file="letters.csv", resume=True),
            "--resume goes on with a run that broke off, and there is none",
        ),
        (PredictRequest(("a",), batch_size=0), "--batch-size is 0"),
        (PredictRequest(("a",), tracking_uri="sqlite:///none.db"), "There is no MLflow store at sqlite:///none.db"),
    ],
)
def test_what_predict_refuses(promoted: Paths, request_: PredictRequest, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        run.predict(request_, promoted)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"text,stars\nThe lamp, 5\n\n ,3\n",
            "1 rows without a text in the column 'text' (rows 2; the first is row 1)",
        ),
        (b"text,stars\na, b,5\n", "1 of 1 rows do not have as many cells"),
        (b"text,stars\ncaf\xe9,5\n", "is read as utf-8, which line 2 is not. It looks like cp1252: --encoding cp1252."),
        (b"text,text\na,b\n", "has 2 columns of that name"),
        (b"text,label,predicted_label\na,b,c\n", "has a column 'predicted_label' already, from an earlier prediction"),
    ],
)
def test_rows_that_cannot_be_answered_are_refused_before_any_answer(
    promoted: Paths, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        run.predict(PredictRequest(file=str(tmp_path / "r.csv")), promoted)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "r.csv"]


def test_rows_that_end_in_a_separator_are_answered_by_their_texts(promoted: Paths, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f'text,stars\n"{LOW}",5,\n{HIGH},1,\n')
    run.predict(PredictRequest(file=str(tmp_path / "r.csv")), promoted)
    result = open_table(tmp_path / "r.predictions.csv").read()
    assert result[["text", "stars", "label"]].to_numpy().tolist() == [[LOW, "5", "low"], [HIGH, "1", "high"]]


@pytest.mark.parametrize(
    ("name", "content", "answered"),
    [
        ("r.csv", "", ""),
        ("r.csv", "text,n\n", "text,n,label,score\n"),
        ("r.json", "[]", "[]"),
        ("r.jsonl", "\n", "\n"),
    ],
)
def test_an_empty_file_is_answered_by_an_empty_file(
    promoted: Paths, tmp_path: Path, name: str, content: str, answered: str
) -> None:
    (tmp_path / name).write_text(content)
    run.predict(PredictRequest(file=str(tmp_path / name)), promoted)
    assert (tmp_path / f"r.predictions{Path(name).suffix}").read_text() == answered


def test_a_file_may_replace_itself_if_that_is_said(promoted: Paths, tmp_path: Path) -> None:
    write_frame(pd.DataFrame({"text": [LOW, HIGH]}), tmp_path / "r.csv")
    run.predict(PredictRequest(file=str(tmp_path / "r.csv"), out=str(tmp_path / "r.csv"), overwrite=True), promoted)
    assert open_table(tmp_path / "r.csv").read()["label"].tolist() == ["low", "high"]


def test_a_run_that_broke_off_goes_on_with_the_answers_it_has(
    promoted: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame({"text": [f"{LOW if i % 2 else HIGH} {i}" for i in range(1300)]})
    write_frame(rows, tmp_path / "r.csv")
    asked = PredictRequest(file=str(tmp_path / "r.csv"))
    run.predict(PredictRequest(file=asked.file, out=str(tmp_path / "whole.csv")), promoted)

    n_texts, whole = [], run.classify

    def broken(classifier: Any, batch: Any, size: int) -> Any:
        n_texts.append(len(batch))
        if len(n_texts) == 2:
            raise KeyboardInterrupt
        return whole(classifier, batch, size)

    monkeypatch.setattr(run, "classify", broken)
    with pytest.raises(
        CommandFailed, match=r"Stopped after 500 of 1300 rows\. Their answers are kept in .*with --resume"
    ):
        run.predict(asked, promoted)
    kept = tmp_path / "r.predictions.csv.answers"
    assert len(kept.read_text().splitlines()) == 1 + n_texts[0]
    assert not (tmp_path / "r.predictions.csv").exists()
    kept.write_text(kept.read_text()[:-3])  # cut off in the middle of an answer
    n_texts.append(0)
    run.predict(PredictRequest(file=asked.file, resume=True), promoted)
    assert sum(n_texts[3:]) == 1300 - n_texts[0] + 1
    result, expected = (open_table(tmp_path / f"{n}.csv").read() for n in ("r.predictions", "whole"))
    assert result[["text", "label"]].equals(expected[["text", "label"]])
    assert not kept.exists()


def test_answers_to_something_else_are_not_gone_on_with(promoted: Paths, tmp_path: Path) -> None:
    write_frame(pd.DataFrame({"text": [LOW]}), tmp_path / "r.csv")
    (tmp_path / "r.predictions.csv.answers").write_text('{"content": "x", "column": "text", "model": "y"}\n')
    with pytest.raises(InvalidInput, match="has answers of another model, or to another file or column"):
        run.predict(PredictRequest(file=str(tmp_path / "r.csv"), resume=True), promoted)


def test_batches_of_answers_are_those_of_the_rows(tmp_path: Path) -> None:
    from src.data.files.table import BATCH_ROWS
    from src.workflows.predict.answers import Job

    kept = AnswerFile(tmp_path / "o.csv", Job("a", "text", "m"))
    kept.begin(resume=False)
    kept.add([("x", i / 10_000) for i in range(2 * BATCH_ROWS + 1)])
    frames = list(kept.frames(("label", "score")))
    assert [len(frame) for frame in frames] == [BATCH_ROWS, BATCH_ROWS, 1]
    assert pd.concat(frames)["score"].tolist() == [i / 10_000 for i in range(2 * BATCH_ROWS + 1)]


# --- the standard input ---


def lines_of(content: bytes, monkeypatch: pytest.MonkeyPatch, **asked: str) -> list[str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return list(texts.stdin_texts(PredictRequest(**asked)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "encoding", "lines"),
    [
        (b"a\r\n\n  \n b \n", "utf-8", ["a", " b "]),
        (b"\xef\xbb\xbfa\n", "utf-8", ["a"]),
        ("café\n".encode("latin-1"), "latin-1", ["café"]),
        ("a\né".encode("utf-16"), "utf-16", ["a", "é"]),
        (b"", "utf-8", []),
    ],
)
def test_lines_come_in_the_encoding_that_is_said(
    content: bytes, encoding: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines_of(content, monkeypatch, encoding=encoding) == lines


def test_a_line_of_another_encoding_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InvalidInput, match=r"Line 2 of the standard input is read as utf-8, and is not\..*--encoding cp1252"
    ):
        lines_of("plain\ncafé und Söhne\n".encode("latin-1"), monkeypatch)


@pytest.fixture
def shell(judged: tuple[Place, Done], promoted: Paths) -> Callable[..., "subprocess.CompletedProcess[bytes]"]:
    """Runs a command line of bash in the folder of the study, where `predict` is the command."""
    del promoted

    def call(line: str, content: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[bytes]":
        command = line.replace("predict", f"{sys.executable} -m src.predict")
        env = {**clean_environment(), **environment}
        return subprocess.run(
            ["bash", "-c", command], check=False, cwd=judged[0].folder, env=env, input=content, capture_output=True
        )

    return call


def test_the_terminal_may_lack_a_character(shell: Callable[..., "subprocess.CompletedProcess[bytes]"]) -> None:
    done = shell("predict", "abcd 😀 é\n".encode(), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rb"abcd \U0001f600 \xe9" in done.stdout


def test_a_reader_that_closes_early_is_no_error(shell: Callable[..., "subprocess.CompletedProcess[bytes]"]) -> None:
    done = shell("predict | head -n 1", b"abcd\n" * 3000)
    assert done.returncode == 0
    assert done.stdout.startswith(b"low")
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


def test_answers_come_before_the_input_ends(judged: tuple[Place, Done], promoted: Paths) -> None:
    del promoted
    command = [sys.executable, "-m", "src.predict", "--batch-size", "1"]
    with subprocess.Popen(
        command, cwd=judged[0].folder, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.write(process.stdin.fileno(), b"abcd\n")
        assert process.stdout.readline().startswith(b"low")
        process.stdin.close()
        assert process.wait() == 0


DASHED = ("-_-", "-10/10", "--boring")


@pytest.mark.parametrize("text", DASHED)
def test_a_text_that_begins_with_a_dash_is_answered_with_how_it_is_typed(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        predict.main([text])
    assert caught.value.code == 2
    assert f"write -- before the texts: python -m src.predict -- '{text}'" in capsys.readouterr().err


def test_texts_behind_two_dashes_are_texts(shell: Callable[..., "subprocess.CompletedProcess[bytes]"]) -> None:
    done = shell(f"predict -- {' '.join(DASHED)}")
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1].decode() for line in done.stdout.splitlines()] == list(DASHED)


@pytest.mark.long
def test_fifty_thousand_rows_stream_with_bounded_memory(
    judged: tuple[Place, Done], promoted: Paths, tmp_path: Path
) -> None:
    """Ten times the rows take hardly more memory: measured as the process's own peak."""
    del promoted
    peaks = {}
    for n in (5_000, 50_000):
        file = tmp_path / f"{n}.csv"
        with file.open("w") as stream:
            stream.write("id,text\n")
            stream.writelines(f"{i},{LOW[:8]} {i} {'abcd efgh ' * 12}\n" for i in range(n))
        code = (
            "import resource, sys; from src import predict; predict.main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, "--file", str(file), "--batch-size", "256"]
        done = subprocess.run(
            command, cwd=judged[0].folder, env=clean_environment(), capture_output=True, text=True, check=True
        )
        peaks[n] = int(done.stdout.split()[-1]) / 1024
        assert len(open_table(tmp_path / f"{n}.predictions.csv").read(["label"])) == n
    assert peaks[50_000] - peaks[5_000] < 60, peaks  # MB; the file has 7


def test_json_in_its_own_shape(promoted: Paths, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(f'{{"text": "{LOW}", "n": 1.10, "big": 12345678901234567890}}\n')
    run.predict(PredictRequest(file=str(tmp_path / "r.jsonl")), promoted)
    line = (tmp_path / "r.predictions.jsonl").read_text()
    assert line.startswith(f'{{"text": "{LOW}", "n": 1.10, "big": 12345678901234567890, "label": "low", "score": 0.')
    assert json.loads(line)["n"] == 1.1
