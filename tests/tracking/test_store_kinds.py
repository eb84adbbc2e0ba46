"""The kinds of MLflow store behave alike: SQLite in the folder or elsewhere, PostgreSQL, a server."""

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.support import servers
from tests.support.commands import COMPARE, INLINE, LETTERS, Place, client_of, runs_of
from tests.support.data import write_letters

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
pytest.importorskip("psycopg", reason="pip install -e '.[postgresql]'")
KINDS = ("sqlite elsewhere", "postgresql", "server")  # beside the database in the folder
BY_HAND = pytest.mark.heavy  # each takes minutes; a server with PostgreSQL behind it is in workers/test_servers


def records(place: Place) -> dict[str, tuple[str, dict[str, str], set[str], set[str]]]:
    """By name of the run and of its parent: status, params, and the names of tags and metrics."""
    runs = {run.info.run_id: run for run in runs_of(place)}
    parents = {i: runs.get(run.data.tags.get("mlflow.parentRunId", "")) for i, run in runs.items()}
    return {
        f"{parents[i].info.run_name if parents[i] else ''}/{run.info.run_name}": (
            run.info.status, run.data.params, set(run.data.tags), set(run.data.metrics),
        )
        for i, run in runs.items()
    }  # fmt: skip


def scores(place: Place) -> dict[str, float]:
    return {run.info.run_name: run.data.metrics["score"] for run in runs_of(place, "trial")}


def work(place: Place, uri: str | None) -> list[int]:
    """Search, compare, promote, predict, a run that is deleted and sent again; the commands' exit codes."""
    place.folder.mkdir(exist_ok=True)
    write_letters(place.folder / "letters.csv")
    if uri:
        (place.folder / "tracking").write_text(uri)
    env = {"MLFLOW_TRACKING_URI": uri} if uri else {}
    sweep = ["-m", *LETTERS, *INLINE, "study.name=letters"]
    codes = [place.run("src.sweep", *sweep, env=env), place.run("src.compare", *COMPARE, *INLINE, env=env)]
    codes += [place.run("src.promote", env=env), place.run("src.predict", "abcd abcd", "zyxw zyxw", env=env)]
    assert [line.split()[0] for line in codes[-1].out.splitlines()] == ["low", "high"], codes[-1]
    client_of(place).delete_run(runs_of(place, "trial")[0].info.run_id)
    codes.append(place.run("src.sweep", *sweep, env=env))
    assert "MLflow has lost 1 run of the study letters" in codes[-1].out + codes[-1].err
    refused = place.run("src.predict", "--model", "nobody", "abcd", env=env)
    return [done.code for done in (*codes, refused)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, list[int]]:
    place = Place(tmp_path_factory.mktemp("reference"))
    return place, work(place, None)


@pytest.fixture(params=[pytest.param(kind, marks=() if kind == "postgresql" else BY_HAND) for kind in KINDS])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite elsewhere":
        yield f"sqlite:///{tmp_path}/elsewhere.db?timeout=60"
    elif request.param == "postgresql":
        with servers.postgres("mlflow") as database:
            yield f"{database}/mlflow"
    else:
        url, command = servers.command_for(tmp_path)
        process = servers.start(url, command)
        yield url
        servers.stop(process)


def test_a_study_is_recorded_alike(reference: tuple[Place, list[int]], uri: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "project")
    codes = work(place, uri)
    assert codes == reference[1]
    assert codes[:5] == [0] * 5
    assert records(place) == records(reference[0])
    assert scores(place) == scores(reference[0])
    (model,) = client_of(place).search_registered_models()
    assert {alias: str(number) for alias, number in model.aliases.items()} == {"champion": "1", "challenger": "1"}
    mlflow.set_tracking_uri(uri)
    try:
        assert mlflow.transformers.load_model(f"models:/{model.name}@champion")("abcd")[0]["label"] in ("low", "high")
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
