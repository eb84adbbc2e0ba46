"""A study with a metric, a loader and a baseline of one's own: every command, and what each needs typed again."""

import re
from pathlib import Path

import pytest

from src.verdict.records import load_verdict
from tests.support.commands import COMPARE, INLINE, LETTERS, Place, client_of, runs_of, verdict_of
from tests.support.data import write_letters
from tests.support.own_code import write_module

pytestmark = pytest.mark.long

MODULE = """
from my_price import MISSED

@metric(direction="minimize", low=0, high=MISSED)
def cost(true, predicted):
    return (MISSED * ((true == 1) & (predicted == 0)) + ((true == 0) & (predicted == 1))).mean()

@loader
def load(path):
    return {"train": pd.read_csv(path)}

@baseline
def rules(texts, labels):
    share = labels.mean()
    return lambda texts: [[1 - share, share]] * len(texts)
"""
OWN = [
    *(word for word in LETTERS if not word.startswith(("data=", "study.baselines"))), "code=my_module", "data=loader",
    "data.loader=my_module:load", "study.metric=my_module:cost", "study.baselines=[majority,my_module:rules]",
    "study.threshold=tuned",
]  # fmt: skip
CODE = "code=my_module"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A study with own code, compared; and what `compare` printed."""
    place = Place(tmp_path_factory.mktemp("own"))
    write_letters(place.folder / "letters.csv", 400)
    write_module(place.folder, MODULE)
    (place.folder / "my_price.py").write_text("MISSED = 5.0\n")
    done = place.sweep(*OWN, *INLINE, "study.name=own")
    assert done.code == 0, done.err
    assert f"Next: python -m src.compare study.name=own {CODE}" in done.out
    done = place.run("src.compare", *COMPARE, *INLINE, CODE, "deliver.refit=false")
    assert done.code == 0, done.err
    return place, done.out


def test_the_metric_decides(own: tuple[Place, str]) -> None:
    verdict = verdict_of(own[0], "own")
    assert verdict.metric == "my_module:cost"
    for trial in runs_of(own[0], "trial"):
        assert 0 <= trial.data.metrics["validation/my_module:cost"] <= 5
    winner = verdict.contender(verdict.winner)
    judged = winner.test["my_module:cost"]
    assert 0 <= judged.low <= judged.value <= judged.high <= 5
    assert isinstance(winner.threshold, float)
    recipes = [c.validation for c in verdict.contenders if c.recipe and c.validation is not None]
    assert min(recipes) == next(c.validation for c in verdict.contenders if c.name == winner.recipe)


def test_the_baseline_is_judged(own: tuple[Place, str]) -> None:
    rules = verdict_of(own[0], "own").contender("my_module:rules")
    assert rules.kind == "baseline"
    assert rules.test["accuracy"].value > 0
    assert re.search(r"^my_module:rules ", own[1], re.M)


def test_the_source_is_on_every_run(own: tuple[Place, str]) -> None:
    place = own[0]
    for kind in ("study", "trial", "baseline", "repeat"):
        for run in runs_of(place, kind):
            tags = {key for key in run.data.tags if key.startswith("code.sha256.")}
            assert tags == {"code.sha256.my_module.py", "code.sha256.my_price.py"}, kind
            kept = {file.path for file in client_of(place).list_artifacts(run.info.run_id, "code")}
            assert kept == {"code/my_module.py", "code/my_price.py"}


def test_what_reads_records_only_needs_no_code(own: tuple[Place, str]) -> None:
    place = own[0]
    done = place.run("src.promote", "study.name=own")
    assert done.code in (0, 3), done.err
    assert "my_module, alias challenger" in done.out  # the registered model is called like the module
    assert "my_module:cost" in place.run("src.status").out
    done = place.run("src.predict", "--version", "1", "abc")
    assert done.code == 0, done.err


def test_what_trains_needs_it_typed_again_and_unchanged(own: tuple[Place, str]) -> None:
    place = own[0]
    run = next(r for r in runs_of(place, "trial") if r.data.tags["trial.state"] == "COMPLETE").info.run_id
    commands = {
        "the run": ("src.reproduce", f"run={run}"),
        "the study": ("src.compare", "study.name=own"),
        "a study that is joined": ("src.sweep", "-m", "study.join=own", "workers=1"),
    }
    price = place.folder / "my_price.py"
    for what, command in commands.items():
        done = place.run(*command)
        assert done.code == 2, what
        said = f"code of your own, my_module.py, my_price.py. It is imported only where a command line names it: {CODE}"
        assert said in " ".join(done.err.split()), what
    price.write_text("MISSED = 4.0\n")
    for what, command in commands.items():
        done = place.run(*command, CODE)
        assert done.code == 2, what
        assert "made with other code of your own: my_price.py has changed" in " ".join(done.err.split())
    done = place.sweep(*OWN, *INLINE, "study.name=own", "study.n_trials=4")
    assert done.code == 2
    assert "code.my_price.py was" in done.err
    price.write_text("MISSED = 5.0\n")
    done = place.run(*commands["the run"], CODE)
    assert done.code == 0, done.err
    assert "recorded numbers" in done.out
    before = load_verdict(place.study("own") / "comparison")
    done = place.run(*commands["the study"], CODE, *COMPARE, "deliver.refit=false")
    assert done.code == 0, done.err
    assert load_verdict(place.study("own") / "comparison") == before


def test_a_trial_on_two_processes_has_the_metric(tmp_path: Path) -> None:
    place = Place(tmp_path)
    write_letters(place.folder / "letters.csv", 200)
    write_module(place.folder, MODULE)
    (place.folder / "my_price.py").write_text("MISSED = 5.0\n")
    one = ("study.n_trials=1", "study.baselines=[]", "workers=1", "worker.devices_per_trial=2", "trainer=cpu")
    done = place.sweep(*OWN, *one, "study.name=two")
    assert done.code == 0, done.err
    (trial,) = runs_of(place, "trial")
    assert trial.data.tags["devices"] == "2"
    assert 0 <= trial.data.metrics["validation/my_module:cost"] <= 5
