"""A study of adapters, from its trials to what is registered: merged into the base, or as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from src.training import adapters
from tests.support import kill_points, random_kills
from tests.support.commands import COMPARE, INLINE, LETTERS, Place, clean_environment, client_of, runs_of, verdict_of
from tests.support.data import write_letters

pytestmark = pytest.mark.long
pytest.importorskip("peft")

ADAPTED = [
    *LETTERS, "adapter=lora", "adapter.rank=4", "space.optimizer.learning_rate.low=3e-3",
    "space.optimizer.learning_rate.high=3e-2", "optimizer.learning_rate=3e-3",
    "+space.adapter.target_modules.choices=[auto,attention]", "+space.adapter.rank.choices=[2,4]",
]  # fmt: skip
SINGLE = ["deliver.form=single", "deliver.merge=false", "deliver.refit=false"]
TEXTS = ["aaa aaa", "zzz zzz", "abc xyz"]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study with adapters, compared."""
    place = Place(tmp_path_factory.mktemp("adapted"))
    write_letters(place.folder / "letters.csv", 300)
    done = place.sweep(*ADAPTED, *INLINE, "study.name=letters")
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE, *INLINE)
    assert done.code == 0, done.err
    return place


def predicted(place: Place, *arguments: str) -> list[tuple[str, float]]:
    done = place.run("src.predict", *arguments, *TEXTS)
    assert done.code == 0, done.err
    return [(line.split()[0], float(line.split()[1])) for line in done.out.splitlines()[: len(TEXTS)]]


def test_trials_keep_adapters_and_the_average_is_a_whole_model(adapted: Place) -> None:
    study = adapted.study("letters")
    kept = list(study.glob("trials/*/training/best"))
    assert kept
    assert all(adapters.is_adapter(folder) and not (folder / "model.safetensors").exists() for folder in kept)
    record = json.loads((study / "average" / "best" / "average.json").read_text())
    assert len(record["members"]) >= 2
    assert not adapters.is_adapter(study / "average" / "best")
    for run in runs_of(adapted, "trial"):
        assert run.data.params["adapter.method"] == "lora"
        assert run.data.metrics["model/megabytes"] == pytest.approx(0.12, abs=0.06)  # of the merged model


def test_the_verdicts_winner_is_registered_as_a_plain_model(adapted: Place) -> None:
    verdict = verdict_of(adapted)
    assert verdict.merge
    assert {c.form for c in verdict.contenders} == {"single", "average", "refit"}
    assert adapted.run("src.promote").code in (0, 3)
    (version,) = client_of(adapted).search_model_versions("name = 'letters'")
    folder = next(adapted.folder.glob(f"mlruns/artifacts/**/{version.source.split('/')[-2]}/artifacts"))
    assert list(folder.rglob("model.safetensors"))
    assert not list(folder.rglob(adapters.WEIGHTS_FILE))
    assert {label for label, _ in predicted(adapted)} <= {"low", "high"}


def test_a_trial_is_reproduced_to_the_last_bit(adapted: Place) -> None:
    run = runs_of(adapted, "trial")[0]
    done = adapted.run("src.reproduce", f"run={run.info.run_id}")
    assert done.code == 0, done.err + done.out
    assert "are identical" in done.out


def test_unmerged_is_refused_where_it_could_be_an_average(adapted: Place) -> None:
    done = adapted.run("src.compare", *COMPARE, *INLINE, "deliver.merge=false")
    assert done.code == 2
    assert "Type deliver.form=single with it." in done.err


def test_an_adapter_is_registered_with_its_base_and_predicts_the_same(adapted: Place) -> None:
    done = adapted.run("src.compare", *COMPARE, *INLINE, *SINGLE)
    assert done.code == 0, done.err
    assert not verdict_of(adapted).merge
    before = {v.version for v in client_of(adapted).search_model_versions("name = 'letters'")}
    assert adapted.run("src.promote").code in (0, 3)
    new = [v for v in client_of(adapted).search_model_versions("name = 'letters'") if v.version not in before]
    assert len(new) == 1
    folder = next(adapted.folder.glob(f"mlruns/artifacts/**/{new[0].source.split('/')[-2]}/artifacts/artifacts/best"))
    assert adapters.is_adapter(folder)
    assert adapters.base_of(folder).checkpoint == "random://bert"
    assert "mlflow.pyfunc.load_model" in (folder.parents[1] / "card" / "README.md").read_text()
    answers = predicted(adapted, "--version", str(new[0].version))
    import mlflow

    frame = mlflow.pyfunc.load_model(str(folder.parents[1])).predict(TEXTS)
    assert list(frame.label) == [label for label, _ in answers]
    assert np.allclose(frame.score, [score for _, score in answers], atol=1e-4)


def test_an_adapter_whose_base_nobody_else_has_is_not_published(adapted: Place) -> None:
    versions = client_of(adapted).search_model_versions("name = 'letters'")
    newest = max(versions, key=lambda v: int(v.version)).version
    done = adapted.run("src.publish", "repo=me/it", f"publish.version={newest}", "publish.dry_run=true")
    assert done.code == 2
    assert "The version is an adapter of the weights in random://bert" in done.err


def test_an_adapter_of_weights_on_the_hub_is_published_as_one(adapted: Place) -> None:
    newest = max(client_of(adapted).search_model_versions("name = 'letters'"), key=lambda v: int(v.version))
    file = next(adapted.folder.glob(f"mlruns/artifacts/**/{newest.source.split('/')[-2]}/**/best/base.json"))
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "checkpoint": "someone/model", "revision": "0123abc"}))
    try:
        words = ["repo=me/it", f"publish.version={newest.version}", "publish.dry_run=true"]
        done = adapted.run("src.publish", *words)
    finally:
        file.write_text(before)
    assert done.code == 0, done.err
    assert "adapter_model.safetensors" in done.out
    assert "MB  model.safetensors" not in done.out


def test_a_model_in_sixteen_bits_has_a_report_and_both_ways_to_train_are_searched_and_averaged(place: Place) -> None:
    write_letters(place.folder / "letters.csv", 200)
    both = ["+space.adapter.choices=[none,lora]", "model.dtype=bfloat16", "study.report=true", "study.n_trials=4"]
    rates = ["space.optimizer.learning_rate.low=1e-3", "optimizer.learning_rate=3e-3", "study.enqueue=[{adapter:lora}]"]
    words = [word for word in LETTERS if not word.startswith(("study.report", "study.n_trials", "space.optimizer"))]
    done = place.sweep(*words, *INLINE, *both, *rates, "space.optimizer.learning_rate.high=3e-2", "study.name=letters")
    assert done.code == 0, done.err
    assert "could not" not in done.out
    assert {run.data.params["adapter.method"] for run in runs_of(place, "trial")} == {"none", "lora"}
    (study,) = runs_of(place, "study")
    assert client_of(place).list_artifacts(study.info.run_id, "report")
    best = place.study("letters") / "average" / "best" / "model.safetensors"
    if best.exists():
        assert {tensor.dtype for tensor in load_file(best).values() if tensor.is_floating_point()} == {torch.bfloat16}


def test_a_default_learning_rate_outside_of_the_searched_range_is_noted(place: Place) -> None:
    write_letters(place.folder / "letters.csv", 200)
    narrow = ["+space.adapter.choices=[none,lora]", "space.optimizer.learning_rate.high=3e-4", "study.plan_only=true"]
    done = place.sweep(*LETTERS, *INLINE, *narrow)
    assert done.code == 0, done.err
    said = (
        "The default learning rate of adapter=lora, 0.0005, is outside the searched range, 0.0001 .. 0.0003, log: widen"
    )
    assert said in " ".join(done.out.split())
    assert "learning rate of adapter=none" not in done.out


KILLED_AT = [
    "src.search.trial_lifecycle:pause_trial:before",
    "src.training.callbacks:save_weights:before",
    "src.training.adapters:save_adapter:after",
    "src.training.checkpoints:mark_complete:before",
    "src.search.trial_lifecycle:_store_final_state:before",
    "src.tracking.logged_model:log_model:after",
]


@pytest.mark.timeout(900)
def test_kills_change_no_bit_of_an_adapter(place: Place, tmp_path: Path) -> None:
    command = [*random_kills.in_one_process("asha"), "adapter=lora", "study.keep_checkpoints=10"]
    calm = Place(tmp_path / "calm")
    calm.folder.mkdir()
    assert calm.sweep(*command).code == 0
    env = clean_environment()
    kill_points.run_until_done(place.folder, KILLED_AT, tmp_path / "marks", "src.sweep", "-m", *command, env=env)
    assert random_kills.inspect(place) == []
    undisturbed, killed = (sorted(p.folder.glob("mlruns/studies/*/trials/*/training/best")) for p in (calm, place))
    assert [f.parts[-3] for f in undisturbed] == [f.parts[-3] for f in killed]
    assert undisturbed
    for one, other in zip(undisturbed, killed, strict=True):
        a, b = load_file(one / adapters.WEIGHTS_FILE), load_file(other / adapters.WEIGHTS_FILE)
        assert a.keys() == b.keys()
        assert all((a[name] == b[name]).all() for name in a), one
