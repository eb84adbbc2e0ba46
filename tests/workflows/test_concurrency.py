"""Commands that run at the same time on one study, on both kinds of storage: right, or told why not; never a traceback.

Two launches of one search are in tracking/test_store_failures, workers that join in test_join.
"""

import shutil
import subprocess

import pytest

from src.core.paths import Paths
from src.workflows import status
from tests.support.commands import COMPARE, INLINE, LETTERS, Done, Place, client_of, verdict_of
from tests.support.data import write_letters

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
STORAGES = {"journal": [], "SQLite": ["storage=sqlite"]}
BY_HAND = pytest.mark.heavy  # a pair takes a minute
SECONDS_BETWEEN = 0.5


@pytest.fixture(scope="module", params=["journal", pytest.param("SQLite", marks=BY_HAND)])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, list[str]]:
    """A study that was compared, and the overrides that it was searched with."""
    overrides = [*LETTERS, *INLINE, "study.name=letters", *STORAGES[request.param]]
    place = Place(tmp_path_factory.mktemp("concurrency") / "project")
    place.folder.mkdir()
    write_letters(place.folder / "letters.csv")
    done = place.sweep(*overrides)
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE, *INLINE)
    assert done.code == 0, done.err
    return place, overrides


@pytest.fixture
def project(study: tuple[Place, list[str]]) -> tuple[Place, dict[str, list[str]]]:
    """A fresh copy where it was made, and the commands on it."""
    place, overrides = study
    kept = place.folder.with_name("kept")
    if not kept.exists():
        shutil.copytree(place.folder, kept)
    shutil.rmtree(place.folder)
    shutil.copytree(kept, place.folder)
    return place, {
        "sweep": ["src.sweep", "-m", *overrides, "study.n_trials=5"],
        "compare": ["src.compare", *COMPARE, *INLINE, "compare.seeds=5", "study.name=letters"],
        "promote": ["src.promote", "study.name=letters"],
        "predict": ["src.predict", "abcd abcd"],
        "status": ["src.status"],
        "ui": ["src.ui"],
    }


def run_both(place: Place, first: list[str], second: list[str]) -> list[Done]:
    processes = [place.start(*first)]
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(SECONDS_BETWEEN)
    processes.append(place.start(*second))
    outputs = [process.communicate(timeout=400) for process in processes]
    return [Done(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


PAIRS = {  # the codes that the two may end with
    ("sweep", "sweep"): ({0}, {0}),
    ("sweep", "compare"): ({0}, {0, 2}),  # a study whose trials are in work is not compared
    ("compare", "compare"): ({0, 2}, {0, 2}),  # one of the two is told to wait
    ("compare", "promote"): ({0}, {0}),
    ("promote", "promote"): ({0}, {0}),
    ("promote", "predict"): ({0}, {0, 2}),
    ("sweep", "promote"): ({0}, {0}),
}


IN_THE_LONG_TIER = [("sweep", "compare"), ("promote", "promote")]


@pytest.mark.parametrize(
    "pair", [pytest.param(p, marks=() if p in IN_THE_LONG_TIER else BY_HAND, id="+".join(p)) for p in PAIRS]
)
def test_two_commands_at_once(
    project: tuple[Place, dict[str, list[str]]], pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, commands = project
    monkeypatch.chdir(place.folder)  # addresses of SQLite files are relative
    both = run_both(place, commands[pair[0]], commands[pair[1]])
    for done, allowed in zip(both, PAIRS[pair], strict=True):
        text = done.out + done.err
        assert done.code in allowed, text
        assert "Traceback" not in text
        assert "nexpected" not in text
        if done.code == 2:
            reasons = ("is being compared by another process", "has no registered model yet", "is being searched")
            assert any(reason in text for reason in reasons), text
    assert 0 in {done.code for done in both}
    for name in dict.fromkeys(pair):  # whatever was told to wait is done now; nothing is doubled
        again = place.run(*commands[name])
        assert again.code in (0, 3), again.err
    if "sweep" in pair:
        assert [row.trials for row in status.status_rows(Paths(place.folder))] == ["5 of 5"]
    if "compare" in pair:
        assert len(verdict_of(place).seeds) == 5
    if pair == ("promote", "promote"):
        assert any("the champion already" in done.out for done in both), both
        (model,) = client_of(place).search_registered_models()
        assert model.aliases == {"champion": 1, "challenger": 1}


@BY_HAND
@pytest.mark.parametrize("name", ["sweep", "compare"])
def test_status_and_ui_while_a_command_runs(project: tuple[Place, dict[str, list[str]]], name: str) -> None:
    place, commands = project
    ui = place.start(*commands["ui"])
    try:
        process = place.start(*commands[name])
        looks = 0
        while process.poll() is None:
            seen = place.run(*commands["status"])
            assert seen.code == 0, seen.err
            assert "cannot be read" not in seen.out
            looks += 1
        out, err = process.communicate()
        assert process.returncode == 0, err + out
        assert looks > 1
        assert ui.poll() is None
    finally:
        ui.terminate()
        out, err = ui.communicate(timeout=60)
    assert "Traceback" not in out + err
