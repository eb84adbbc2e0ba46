"""Workers without a common folder: PostgreSQL for the study, an MLflow server for all else, a folder for each."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support import servers
from tests.support.commands import LETTERS, Place, wait_until, workers_of
from tests.support.data import write_letters

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """The study's database, the runs' server, and where that keeps artifacts."""
    folder = tmp_path_factory.mktemp("server")
    url, command = servers.command_for(folder)
    with servers.postgres("studies") as database:
        process = servers.start(url, command)
        try:
            yield f"{database}/studies", url, folder / "files"
        finally:
            servers.stop(process)


def overrides(addresses: tuple[str, str, Path], homes: Path, name: str) -> list[str]:
    return [
        *LETTERS, f"study.name={name}", "storage=postgresql", f"tracking.uri={addresses[1]}",
        f"worker.home='{homes}/${{worker.index}}'", "worker.cpus=1", "study.rungs=[0.25,0.5,1.0]",
        "study.rung_examples=null", "trainer.num_train_epochs=40", "space.trainer.num_train_epochs.low=30",
        "space.trainer.num_train_epochs.high=40", "pruner=none",
    ]  # fmt: skip


def points(addresses: tuple[str, str, Path], name: str) -> dict[str, Counter[int]]:
    """Run -> how many points each step of its loss has."""
    client = MlflowClient(addresses[1])
    result = {}
    for run in client.search_runs(["1"], f"tags.study = '{name}' and tags.kind = 'trial'"):
        history = client.get_metric_history(run.info.run_id, "train/loss")
        result[run.info.run_name] = Counter(params.step for params in history)
    return result


def test_machines_that_are_gone_lose_no_work(addresses: tuple[str, str, Path], tmp_path: Path) -> None:
    place = Place(tmp_path / "here")
    place.folder.mkdir()
    write_letters(place.folder / "letters.csv")
    homes = tmp_path / "homes"
    command = overrides(addresses, homes, "gone")
    environment = {"TRIALBOOK_STORAGE": addresses[0]}
    process = place.start("src.sweep", "-m", *command, env=environment)
    wait_until(lambda: list(addresses[2].rglob("trials/000*/training/manifest.json")))
    for worker in workers_of(process.pid):
        worker.kill()
    shutil.rmtree(homes)  # and their machines with them
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err + out
    assert out.count("was killed by signal 9") == 2
    assert "all 3 trials are done" in out
    done = points(addresses, "gone")
    assert sorted(done) == ["trial-0000", "trial-0001", "trial-0002"]
    assert all(set(steps.values()) == {1} for steps in done.values()), done
    assert list(place.study("gone").glob("trials/*/training/best/model.safetensors"))  # of the best one
    assert len(list(addresses[2].rglob("trials/*/training/manifest.json"))) == 1
    assert not list(homes.rglob("test.parquet"))  # the sealed split has not travelled
    again = place.sweep(*command, env=environment)
    assert (again.code, points(addresses, "gone")) == (0, done), again.err
    judged = place.run(
        "src.compare", "study.name=gone", "compare.seeds=4", "compare.top_k=1", "workers=2", env=environment
    )
    assert judged.code == 0, judged.err


def test_a_worker_joins_from_a_machine_that_has_nothing(addresses: tuple[str, str, Path], tmp_path: Path) -> None:
    here, elsewhere = Place(tmp_path / "here"), Place(tmp_path / "elsewhere")
    here.folder.mkdir()
    elsewhere.folder.mkdir()
    write_letters(here.folder / "letters.csv")
    environment = {"TRIALBOOK_STORAGE": addresses[0]}
    command = [*overrides(addresses, tmp_path / "homes", "joined"), "study.n_trials=12", "workers=1"]
    process = here.start("src.sweep", "-m", *command, env=environment)
    wait_until(lambda: points(addresses, "joined"))
    joined = elsewhere.sweep(
        "study.join=joined", "workers=1", "worker.cpus=1", "storage=postgresql", f"tracking.uri={addresses[1]}",
        f"worker.home={tmp_path}/home", env=environment,
    )  # fmt: skip
    out, err = process.communicate(timeout=200)
    assert (joined.code, process.returncode) == (0, 0), joined.err + err + out
    assert joined.out.splitlines()[0] == "1 worker joins the study joined"
    assert len(joined.out.splitlines()) == 2, joined.out
    assert "all 12 trials are done" in out
    runs = MlflowClient(addresses[1]).search_runs(["1"], "tags.study = 'joined' and tags.kind = 'trial'")
    assert len(runs) == 12
    assert all(set(steps.values()) == {1} for steps in points(addresses, "joined").values())
    assert list((tmp_path / "home").rglob("trials/*")), "it trained nothing"
    assert not list(elsewhere.folder.rglob("letters.csv"))
