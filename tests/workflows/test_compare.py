"""From a study to a verdict to a champion: compare, promote, predict and reproduce on data that a tiny model learns."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score

from src.comparison import saved_study, selection
from src.comparison.contenders import DEFAULT, TUNED, Contender, Contenders, seed_runs, select_contenders
from src.comparison.forms import average_dir, averaged_form
from src.config.settings import ComparisonSettings, PromotionSettings
from src.core.errors import InvalidInput, NotReproduced, PromotionDeclined
from src.core.paths import Paths
from src.core.records import State, TrainingResult
from src.tracking import run_reader
from src.tracking.store import open_store
from src.training.callbacks import TrainingCallback, refit_objective
from src.verdict import tables
from src.workers.context import WorkerContext, train_within_memory
from src.workflows import promote, reproduce, train
from src.workflows.compare import evaluate
from src.workflows.compare import run as compare_run
from src.workflows.compare.plan import plan_comparison
from tests.support.commands import (
    COMPARE,
    INLINE,
    LETTERS,
    Done,
    Dry,
    Place,
    clean_environment,
    client_of,
    runs_of,
    verdict_of,
)
from tests.support.data import settings_of, write_letters, write_rows
from tests.support.servers import free_port

# --- compare ---


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({"default": 0.9, "trial-2": 0.9, "trial-1": 0.9}, "default"),
        ({"default": 0.8, "trial-2": 0.9, "trial-1": 0.9}, "trial-2"),
        ({"default": 0.9, "trial-2": 0.8, "trial-1": 0.95}, "trial-1"),
    ],
)
def test_of_equals_the_default_recipe_wins_and_then_the_better_in_the_search(
    tmp_path: Path, scores: dict[str, float], best: str
) -> None:
    contenders = [Contender(name, DEFAULT if name == "default" else TUNED, name, "") for name in scores]
    line_up = Contenders(tuple(contenders), (1, 2))
    for repeat in seed_runs(line_up, tmp_path):
        repeat.folder.mkdir(parents=True)
        result = TrainingResult(State.COMPLETE, score=scores[repeat.contender.name])
        (repeat.folder / "outcome.json").write_text(result.to_json())
    assert selection.select_winner(line_up, tmp_path, "accuracy") == best


def test_the_training_that_is_registered_stays_the_one_that_was_chosen(tmp_path: Path) -> None:
    """Also if one that is trained again, for its weights, comes out otherwise."""
    contender = Contender("default", DEFAULT, "default", "")
    line_up = Contenders((contender,), (1, 2, 3))

    def trained(seed: int, score: float) -> None:
        (repeat,) = [r for r in seed_runs(line_up, tmp_path) if r.seed == seed]
        repeat.folder.mkdir(parents=True, exist_ok=True)
        (repeat.folder / "outcome.json").write_text(TrainingResult(State.COMPLETE, score=score).to_json())

    for seed, score in ((1, 0.7), (2, 0.8), (3, 0.9)):
        trained(seed, score)
    written = selection.Selection(line_up, tmp_path, "default", "default", "", 1, "key", 2)
    assert selection.median_seed(contender, line_up, tmp_path) == written.seed
    written.write()
    trained(1, 0.95)
    kept = selection.Selection.read(tmp_path, line_up)
    assert kept is not None
    assert kept.registered_seed_run.seed == 2
    assert selection.median_seed(contender, line_up, tmp_path) == 3


def test_a_comparison_says_what_it_costs_and_what_it_can_show_before_it_trains(judged: tuple[Place, Done]) -> None:
    _, done = judged
    before, after = done.out.split("[1/8]", 1)
    assert "contenders   majority, default (trial 0), trial-" in before
    assert "8 trainings, 8 to go" in before
    assert re.search(
        r"can show     a true difference between two recipes or forms of \d+\.\d points in 80 of 100 cases, with 60 ",
        before,
    )
    assert "expected: about" in before
    assert "Opening 1 of the test split." in after
    assert after.index("[8/8]") < after.index("Opening 1")


def test_the_winner_beats_the_best_baseline_on_the_sealed_test(judged: tuple[Place, Done]) -> None:
    place, done = judged
    verdict = verdict_of(place)
    against = verdict.result_against(verdict.best_baseline)
    assert against is not None
    assert against.verdict == "better"
    assert f"{verdict.winner} against the best baseline, {verdict.best_baseline}: BETTER" in done.out
    assert "This test split has been opened 1 time." in done.out
    assert (verdict.opening, verdict.openings, verdict.champion) == (1, 1, None)


def test_fresh_seeds_are_none_of_the_searchs(judged: tuple[Place, Done]) -> None:
    place, _ = judged
    verdict = verdict_of(place)
    assert len(set(verdict.seeds)) == 4
    used = {int(r.data.params["seed"]) for r in runs_of(place, "trial")}
    assert used == {42}
    assert not used & set(verdict.seeds)
    assert {int(r.data.params["seed"]) for r in runs_of(place, "repeat")} == set(verdict.seeds)


def test_every_figure_can_be_worked_out_again_from_the_answers(judged: tuple[Place, Done], here: Paths) -> None:
    place, _ = judged
    verdict = verdict_of(place)
    dataset = saved_study.load_study("letters", here).dataset
    labels = pd.read_parquet(dataset.folder / "test.parquet")["label"].to_numpy()
    winner = verdict.recipe_of(verdict.winner)
    folder = place.study("letters") / "comparison" / "repeats" / winner.key
    accuracies, f1s = [], []
    for repeat in winner.repeats:
        picked = np.load(folder / str(repeat.seed) / "test.npy").argmax(axis=1)
        accuracies.append(accuracy_score(labels, picked))
        f1s.append(f1_score(labels, picked))
        assert repeat.test["accuracy"] == pytest.approx(accuracies[-1])
    assert winner.test["accuracy"].value == pytest.approx(np.mean(accuracies))
    assert winner.test["f1"].value == pytest.approx(np.mean(f1s))
    scored = [r.validation["accuracy"] for r in winner.repeats]
    assert winner.validation == pytest.approx(np.mean(scored))
    assert winner.optimism == pytest.approx(winner.search_score - np.mean(scored))
    middle = next(r for r in winner.repeats if r.seed == winner.registered_seed)
    assert sorted(scored)[1] == middle.validation["accuracy"]
    for form in ("average", "refit"):
        row = verdict.contender(f"{winner.name}-{form}")
        file = average_dir(row.key, verdict.seeds, place.study("letters") / "comparison") / "test.npy"
        assert row.test["accuracy"].value == accuracy_score(labels, np.load(file).argmax(axis=1))
        assert row.over_default.difference.value == pytest.approx(
            row.test["accuracy"].value - verdict.contender("default").test["accuracy"].value
        )


def test_mlflow_shows_contenders_below_the_study_and_their_seeds_below_them(judged: tuple[Place, Done]) -> None:
    place, _ = judged
    (study,) = runs_of(place, "study")
    result = {r.data.tags["contender"]: r for r in runs_of(place, "contender")}
    assert {"majority", "default"} < set(result)
    verdict = verdict_of(place)
    recipe = verdict.recipe_of(verdict.winner).name
    forms = {"default-average", "default-refit", f"{recipe}-average", f"{recipe}-refit"}
    assert set(result) == {"majority", "default", recipe} | forms
    assert {r.data.tags["mlflow.parentRunId"] for r in result.values()} == {study.info.run_id}
    assert {r.info.status for r in result.values()} == {"FINISHED"}
    repeats = runs_of(place, "repeat")
    assert len(repeats) == 8
    for run in repeats:
        assert run.data.tags["mlflow.parentRunId"] == result[run.data.tags["contender"]].info.run_id
        assert {"validation/accuracy", "train/loss", "score"} <= set(run.data.metrics)
    refits = runs_of(place, "refit")
    assert {r.data.tags["mlflow.parentRunId"] for r in refits} == {
        result[f"{name}-refit"].info.run_id for name in ("default", recipe)
    }
    assert [r.data.tags["trained.on"] for r in refits] == ["train + validation"] * 8
    assert not any("validation" in name or name == "score" for r in refits for name in r.data.metrics)
    opened = {r.data.tags["contender"] for r in repeats if "test/accuracy" in r.data.metrics}
    assert opened == {"default", recipe}
    assert {"test/accuracy.low", "test/accuracy.high", "optimism"} <= set(result[recipe].data.metrics)
    for form in forms:
        assert {"test/accuracy.low", "test/accuracy.high"} <= set(result[form].data.metrics)
        assert len(result[form].data.tags["members.runs"].split(",")) == 4
    client = client_of(place)
    files = {f.path for f in client.list_artifacts(study.info.run_id, "comparison")}
    assert files == {f"comparison/verdict.{ending}" for ending in ("md", "html", "json")}
    assert study.data.tags[f"verdict.against.{verdict.best_baseline}"] == "better"
    assert study.data.tags["test.openings"] == "1"


def test_the_opening_stands_in_the_ledger_and_only_the_registered_weights_are_kept(judged: tuple[Place, Done]) -> None:
    place, _ = judged
    verdict = verdict_of(place)
    (line,) = (place.folder / "mlruns" / "openings" / f"{verdict.fingerprints['test']}.jsonl").read_text().splitlines()
    entry = json.loads(line)
    recipe = verdict.recipe_of(verdict.winner).name
    assert (entry["study"], entry["winner"], entry["form"]) == ("letters", recipe, "refit")
    assert entry["seeds"] == list(verdict.seeds)
    kept = list((place.study("letters") / "comparison").rglob("*.safetensors"))
    winner = verdict.contender(verdict.winner)
    assert [f.parents[2] for f in kept] == [
        average_dir(winner.key, verdict.seeds, place.study("letters") / "comparison")
    ]


def test_the_registered_form_is_declared_before_the_opening(judged: tuple[Place, Done]) -> None:
    place, done = judged
    verdict = verdict_of(place)
    declared = done.out.index(f"To register: {verdict.winner}, since averaging its seed runs is not shown to be worse")
    assert declared < done.out.index("Opening 1 of the test split.")
    assert "It and the default recipe are trained again on train + validation, 240 texts." in done.out
    assert "[8/8] default-refit" in done.out or "[8/8] trial-" in done.out
    assert f"{verdict.winner} against the default recipe trained once: " in tables.sentences(verdict)[0]
    head, rows = tables.attribution_table(verdict)
    recipe = verdict.recipe_of(verdict.winner).name
    assert [row[0] for row in rows] == [
        "the default recipe, trained once", "the default recipe, averaged", "the default recipe, refitted and averaged",
        f"{recipe}, trained once", f"{recipe}, averaged", f"{recipe}, refitted and averaged *",
    ]  # fmt: skip
    assert head[2] == "over the default recipe trained once"


def test_the_average_is_that_of_the_members_weights(judged: tuple[Place, Done], here: Paths, tmp_path: Path) -> None:
    """The members' weights are deleted: they are trained again, and averaged here by torch alone."""
    verdict = verdict_of(judged[0])
    comparison = Contenders.read(saved_study.load_study("letters", here).comparison_dir)
    recipe = next(c for c in comparison.recipes if c.name == verdict.recipe_of(verdict.winner).name)
    saved = saved_study.load_study("letters", here)
    context = WorkerContext(saved.settings, here, begun_with=lambda: saved.dataset.fingerprint)
    refit = averaged_form(recipe, "refit", comparison, saved.comparison_dir)
    weights = []
    for member in refit.members:
        objective = refit_objective(context.objective, TrainingResult(State.COMPLETE, step=8, steps=8, share=1.0))
        settings = recipe.settings(member.seed)
        folder = tmp_path / str(member.seed)
        train_within_memory(settings.recipe, context, TrainingCallback(), folder, objective=objective)
        weights.append(load_file(folder / "best" / "model.safetensors"))
    kept = load_file(refit.weights_dir / "model.safetensors")
    for name, tensor in kept.items():
        mean = torch.stack([each[name].double() for each in weights]).mean(dim=0)
        torch.testing.assert_close(tensor.double(), mean, rtol=0, atol=1e-6)


def test_forms_are_chosen_by_setting_too(judged: tuple[Place, Done], tmp_path: Path) -> None:
    """Another form is another comparison, which trains only what is not there."""
    shutil.copytree(judged[0].folder, tmp_path / "copy")
    place = Place(tmp_path / "copy")
    done = place.run("src.compare", *COMPARE, *INLINE, "deliver.form=single", "deliver.refit=false")
    assert done.code == 0, done.err
    assert "8 trainings, 0 to go" in done.out
    assert "trained again" not in done.out
    verdict = verdict_of(place)
    assert (verdict.contender(verdict.winner).form, verdict.openings) == ("single", 2)
    assert not any(c.form == "refit" for c in verdict.contenders)
    (kept,) = (place.study("letters") / "comparison").rglob("*.safetensors")
    winner = verdict.contender(verdict.winner)
    assert kept.parts[-5:-2] == (winner.key, str(winner.registered_seed), "training")
    assert "The weights to register are seed" in done.out


def test_a_refit_that_fails_is_not_registered(judged: tuple[Place, Done], tmp_path: Path) -> None:
    shutil.copytree(judged[0].folder, tmp_path / "copy")
    place = Place(tmp_path / "copy")
    comparison = place.study("letters") / "comparison"
    for name in ("choice.json", "verdict.json"):
        (comparison / name).unlink()
    recipe = verdict_of(judged[0]).recipe_of(verdict_of(judged[0]).winner)
    (failed, *_) = sorted(comparison.glob(f"repeats/{recipe.key}-refit/*/outcome.json"))
    (of_default,) = {f.parent.parent for f in comparison.glob("repeats/*-refit/*/outcome.json")} - {
        failed.parent.parent
    }
    failed.write_text(TrainingResult(State.FAIL, reason="out of memory").to_json())
    done = place.run("src.compare", *COMPARE, *INLINE)
    assert done.code == 0, done.err
    verdict = verdict_of(place)
    assert verdict.contender(verdict.winner).form == "average"
    assert "a refit failed (out of memory)" in verdict.form_reason
    assert [c.name for c in verdict.contenders if c.form == "refit"] == []
    assert of_default.exists()
    done = place.run("src.compare", *COMPARE, *INLINE, "deliver.form=refit")  # asked for, it is tried again
    assert done.code == 0, done.err
    verdict = verdict_of(place)
    assert (verdict.contender(verdict.winner).form, verdict.form_reason) == ("refit", "deliver.form=refit")


def test_the_same_comparison_again_trains_and_opens_nothing(judged: tuple[Place, Done], here: Paths) -> None:
    place, _ = judged
    before = verdict_of(place)
    plan = plan_comparison(
        ComparisonSettings(study=None, registry=None, seeds=4, top_k=1, margin=0.0, plan_only=False, workers=1), here
    )

    def launch(_: int) -> None:
        raise AssertionError("nothing is to be done")

    assert compare_run.compare(plan, launch) == before
    wider = plan_comparison(
        ComparisonSettings(study=None, registry=None, seeds=4, top_k=1, margin=0.9, plan_only=False, workers=2), here
    )
    result = compare_run.compare(wider, launch)
    assert result is not None
    assert (
        result.result_against(before.best_baseline).verdict == "not shown"
    )  # the margin alone changed: no training, no opening
    assert result.openings == 1
    assert compare_run.compare(plan, launch) != result


def test_more_seeds_keep_what_is_trained(judged: tuple[Place, Done], here: Paths) -> None:
    plan = plan_comparison(
        ComparisonSettings(study="letters", registry=None, seeds=5, top_k=1, margin=0.0, plan_only=False, workers=2),
        here,
    )
    assert plan.contenders.seeds[:4] == verdict_of(judged[0]).seeds
    assert len(plan.remaining()) == 2


def test_candidates_are_the_best_trials_and_the_default_recipe(here: Paths) -> None:
    arguments = [
        ComparisonSettings(study=None, registry=None, seeds=4, top_k=top_k, margin=0.0, plan_only=False, workers=1)
        for top_k in (1, 2, 3)
    ]
    names = [[c.name for c in plan_comparison(each, here).contenders.candidates] for each in arguments]
    assert [len(each) for each in names] == [2, 3, 3]  # the study has two trials beside the default recipe
    assert all(each[-1] == "default" for each in names)


def test_a_margin_that_no_difference_can_exceed_is_refused(here: Paths) -> None:
    asked = ComparisonSettings(study=None, registry=None, seeds=4, top_k=1, margin=1.0, plan_only=False, workers=1)
    with pytest.raises(InvalidInput, match=r"compare.margin is 1, and accuracy lies between 0 and 1: .* to below 1\.$"):
        plan_comparison(asked, here)


def test_two_launches_at_once_are_refused(here: Paths) -> None:
    plan = plan_comparison(
        ComparisonSettings(study=None, registry=None, seeds=4, top_k=1, margin=0.0, plan_only=False, workers=1), here
    )
    with (
        FileLock(plan.folder / "launch.lock"),
        pytest.raises(InvalidInput, match="is being compared by another process"),
    ):
        compare_run.compare(plan, lambda _: None)


def test_the_plan_is_told_beside_a_launch(here: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_comparison(
        ComparisonSettings(study=None, registry=None, seeds=6, top_k=1, margin=0.0, plan_only=True, workers=1), here
    )
    with FileLock(plan.folder / "launch.lock"):
        assert compare_run.compare(plan, lambda *_: pytest.fail("something was launched")) is None
    out = capsys.readouterr().out
    assert "4 to go" in out
    assert "It is being compared by another process; compare.plan_only=true: nothing was done here." in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["study=letters"], "study=letters replaces the whole group by one word."),
        (["compare.seeds=many"], "compare.seeds: Input should be a valid integer"),
        (["workers=0"], "workers is 0; it is auto or a whole number from 1 to 1024."),
        (["deliver.form=best"], "deliver.form is 'best'; it is auto, single, average, refit or student."),
        (["deliver.form=refit", "deliver.refit=false"], "deliver.form=refit registers a refit, and deliver.refit=fals"),
        (
            ["deliver.form=student"],
            "the study letters has no unlabelled texts. Run its sweep command again with data.u",
        ),
        (["deliver.refit=maybe"], "deliver.refit: Input should be a valid boolean"),
    ],
)
def test_what_compare_refuses(here: Paths, arguments: list[str], says: str) -> None:
    from hydra import compose, initialize_config_dir

    from src.config import reader
    from src.config.groups import CONF_DIR

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("compare", overrides=arguments)
    with pytest.raises(InvalidInput) as caught:
        plan_comparison(reader.read_comparison_settings(cfg), here)
    assert says in str(caught.value)


def test_changed_data_and_a_study_without_tuned_settings_are_refused(
    judged: tuple[Place, Done], tmp_path: Path
) -> None:
    place = Place(tmp_path / "copy")
    shutil.copytree(judged[0].folder / "mlruns" / "studies", place.folder / "mlruns" / "studies")
    settings = place.study("letters") / "config.yaml"
    rows = [(f"text {i}", i % 2) for i in range(60)]
    other = write_rows(place.folder / "other.csv", rows)
    settings.write_text(settings.read_text().replace("letters.csv", str(other)))
    with pytest.raises(InvalidInput, match="The data of the study letters have changed since it was searched"):
        _ = saved_study.load_study("letters", Paths(place.folder)).dataset
    shutil.copytree(place.study("letters"), place.study("second"))
    with pytest.raises(InvalidInput, match=r"there are 2: letters, second\. Name one: study\.name=<name>\."):
        saved_study.load_study(None, Paths(place.folder))
    with pytest.raises(InvalidInput, match="there is none yet; search first"):
        saved_study.load_study(None, Paths(tmp_path / "empty"))


def test_a_student_learns_from_texts_without_labels(
    judged: tuple[Place, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep again with them changes nothing but the comparison, which trains only what is not there."""
    shutil.copytree(judged[0].folder, tmp_path / "copy")
    place = Place(tmp_path / "copy")
    monkeypatch.chdir(place.folder)
    more = write_letters(tmp_path / "more.csv", 500)
    pd.read_csv(more)[["text"]].iloc[200:].to_csv(place.folder / "more.csv", index=False)
    done = place.sweep(*LETTERS, "study.name=letters", "study.report=true", "data.unlabelled=more.csv")
    assert done.code == 0, done.err
    done = place.run("src.compare", *COMPARE, *INLINE)
    assert done.code == 0, done.err
    assert "8 trainings, 0 to go" in done.out
    assert "Students learn from its answers to more.csv, too." in done.out
    assert re.search(
        r"answers to \d+ unlabelled texts \(\d+ read; \d+ of them in the test split, \d+ known or rep", done.out
    )
    verdict = verdict_of(place)
    winner = verdict.contender(verdict.winner)
    assert (winner.form, len(winner.repeats), verdict.openings) == ("student", 4, 2)
    assert "students learn from the unlabelled texts, too" in verdict.form_reason
    file = average_dir(winner.key, verdict.seeds, place.study("letters") / "comparison") / "soft-labels.parquet"
    taught = pd.read_parquet(file)
    test = pd.read_parquet(saved_study.load_study("letters", Paths(place.folder)).dataset.folder / "test.parquet")
    assert 100 < len(taught) < 300
    assert not set(taught["text"]) & set(test["text"])
    assert np.allclose(np.stack(taught["label"]).sum(axis=1), 1)
    runs = runs_of(place, "student")
    assert {r.data.tags["trained.on"] for r in runs} == {"train + validation + unlabelled texts"}
    promoted = place.run("src.promote", "promote.dry_run=true")
    assert "the average of 4 students, trained on the answers of the winner's seed runs" in promoted.out
    again = place.run("src.reproduce", f"run={runs[0].info.run_id}")
    assert again.code == 0, again.out + again.err
    file.unlink()
    refused = place.run("src.reproduce", f"run={runs[0].info.run_id}")
    assert refused.code == 2
    assert "texts are not recorded in MLflow" in refused.err


# --- promote ---


def test_a_dry_run_changes_nothing(dry: Dry) -> None:
    assert dry.code == 0, dry.err
    assert "would be registered as a version of letters, alias challenger" in dry.out
    assert "would become champion: better than the best baseline, " in dry.out
    assert dry.registered == []


@pytest.mark.usefixtures("promoted")
def test_the_winner_becomes_the_champion_with_its_evidence(judged: tuple[Place, Done]) -> None:
    client, verdict = client_of(judged[0]), verdict_of(judged[0])
    (model,) = client.search_registered_models()
    assert (model.name, dict(model.aliases)) == ("letters", {"challenger": 1, "champion": 1})
    version = client.get_model_version_by_alias("letters", "champion")
    winner = verdict.contender(verdict.winner)
    assert version.tags["verdict"] == "better"
    assert version.tags["verdict.against"] == verdict.best_baseline
    assert (version.tags["form"], "seed" in version.tags) == ("refit", False)
    assert version.tags["data.fingerprint.test"] == verdict.fingerprints["test"]
    assert {"config.sha256", "run.repeat", "run.study", "test.openings", "test.accuracy", "verdict.against.default",
            "test.accuracy.interval", "champion.before"} <= set(version.tags)  # fmt: skip
    assert version.run_id == version.tags["run.repeat"] == winner.run_id
    assert "# Verdict on letters" in version.description
    mlflow.set_tracking_uri(f"sqlite:///{judged[0].folder}/mlflow.db")
    pipeline = mlflow.transformers.load_model("models:/letters@champion")
    assert pipeline("abcdefgh hgfedcba")[0]["label"] == "low"
    answers = mlflow.pyfunc.load_model("models:/letters@champion").predict(["stuvwxyz zyxwvuts", "abcdabcd efghefgh"])
    assert answers["label"].tolist() == ["high", "low"]


def test_promoting_again_says_that_it_is_done(promoted: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    promote.promote(
        PromotionSettings(study="letters", registry=None, dry_run=False, rollback=False, again=False), promoted
    )
    assert "Version 1 of letters is this verdict's winner, and the champion already." in capsys.readouterr().out


def test_a_comparison_whose_winner_became_champion_still_stands(promoted: Paths) -> None:
    plan = plan_comparison(
        ComparisonSettings(study=None, registry=None, seeds=4, top_k=1, margin=0.0, plan_only=False, workers=1),
        promoted,
    )
    assert [c.name for c in plan.contenders.contenders][-1] == "champion"
    assert compare_run.compare(plan, lambda _: pytest.fail("nothing is to be done")) is not None


def test_a_version_that_was_rolled_back_is_not_promoted_by_itself(judged: tuple[Place, Done]) -> None:
    verdict = verdict_of(judged[0])
    down = promote.ModelVersion("letters", "1", "r", {"champion.rolled_back": "yesterday"})
    decision = promote.decide(verdict, None, down)
    assert not decision.moves
    assert decision.why == ("version 1 was the champion and was rolled back on yesterday; promote.again=true moves the "
                            "alias all the same")  # fmt: skip
    assert promote.decide(verdict, None, down, again=True).moves


def test_a_baseline_without_a_result_is_said_beside_the_decision_and_closes_the_gate(
    judged: tuple[Place, Done],
) -> None:
    full = verdict_of(judged[0])
    verdict = replace(full, not_judged=(("tfidf_logreg", "failed: MemoryError"), ("ready_made", "was not evaluated")))
    first = tables.sentences(verdict)[0]
    assert first.startswith(tables.sentences(full)[0].removesuffix("."))
    assert first.endswith(
        "Not compared with the baselines tfidf_logreg, which failed: MemoryError; ready_made, which was not evaluated."
    )
    decision = promote.decide(verdict, None)
    assert not decision.moves
    assert "the baseline tfidf_logreg failed: MemoryError, so nothing shows that the winner is better" in decision.why
    assert decision.why.endswith("promote.without=[tfidf_logreg,ready_made]")
    assert not promote.decide(verdict, None, without=["tfidf_logreg"]).moves
    assert promote.decide(verdict, None, without=["tfidf_logreg", "ready_made"]).moves


def test_a_study_whose_baseline_failed_is_compared_without_it(
    judged: tuple[Place, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(judged[0].folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    file = Place(tmp_path / "copy").study("letters") / "baselines" / "majority" / "outcome.json"
    file.write_text(TrainingResult(State.FAIL, reason="MemoryError").to_json())
    saved = saved_study.load_study("letters", Paths(tmp_path / "copy"))
    settings = ComparisonSettings("letters", None, 4, 1, 0.0, plan_only=True, workers=1)
    assert select_contenders(saved, settings).not_judged == (("majority", "failed: MemoryError"),)
    file.unlink()
    assert select_contenders(saved, settings).not_judged == (("majority", "was not evaluated"),)


def test_what_the_data_cannot_show(here: Paths) -> None:
    saved = saved_study.load_study("letters", here)
    data = replace(
        saved.dataset, label_names=("low", "high", "mid"), notes={"rows_dropped_as_duplicates": 3},
        label_counts={"train": [102, 0, 102], "validation": [18, 18, 0], "test": [40, 5, 0]},
    )  # fmt: skip
    assert evaluate.data_limits(data, "f1_macro") == [
        "No test example has the label mid: nothing is said of it",
        "Few test examples have the label high (5): what f1_macro says of it rests on those few",
        "No training text has the label high",
        "Of the rows read, these are in no split: 3 rows dropped as duplicates",
    ]
    assert evaluate.data_limits(saved.dataset, "accuracy") == []


def test_the_gate_is_closed_to_what_is_worse_than_the_default_recipe(judged: tuple[Place, Done]) -> None:
    verdict = verdict_of(judged[0])
    lost = [replace(a, verdict="worse") if a.other == "default" else a for a in verdict.against]
    assert promote.decide(verdict, None).moves
    decision = promote.decide(replace(verdict, against=tuple(lost)), None)
    assert not decision.moves
    assert "it is worse than the default recipe" in decision.why


def test_what_promote_refuses_and_declines(promoted: Paths, judged: tuple[Place, Done], tmp_path: Path) -> None:
    with pytest.raises(
        PromotionDeclined, match="no earlier champion of letters to go back to: version 1 was its first one"
    ):
        promote.promote(
            PromotionSettings(study=None, registry=None, dry_run=False, rollback=True, again=False), promoted
        )
    with pytest.raises(InvalidInput, match="the verdict on letters is about the registered model letters"):
        promote.promote(
            PromotionSettings(study=None, registry="other", dry_run=False, rollback=False, again=False), promoted
        )
    verdict = verdict_of(judged[0])
    assert not promote.decide(verdict, promote.ModelVersion("letters", "7", "", {})).moves
    assert "compare again" in promote.decide(verdict, promote.ModelVersion("letters", "7", "", {})).why
    place = Place(tmp_path)
    shutil.copytree(judged[0].study("letters"), place.study("letters"))
    (place.study("letters") / "comparison" / "verdict.json").unlink()
    write_letters(tmp_path / "letters.csv")
    done = place.run("src.promote")
    assert done.code == 2
    assert "There is no verdict on the study letters, and nothing is registered without evidence." in done.err


def test_a_champion_of_other_data_does_not_stand_in_a_comparison(promoted: Paths) -> None:
    from src.tracking import registry
    from src.workflows.compare import plan as compare_plan

    saved = saved_study.load_study("letters", promoted)
    store = open_store(saved.settings.tracking, promoted.root)
    champion = registry.by_alias(store, "letters", registry.CHAMPION)
    assert champion is not None
    assert champion.tags[registry.DATA_SOURCE_TAG] == "letters.csv"
    assert compare_plan._champion(store, champion, saved).note == ""
    changed = champion.tags | {"data.fingerprint.test": "0123"}
    assert "another test split" in compare_plan._champion(store, replace(champion, tags=changed), saved).note
    other = replace(champion, tags=changed | {registry.DATA_SOURCE_TAG: "2023/letters.csv"})
    with pytest.raises(InvalidInput, match=r"was made from other data \(2023/letters\.csv, here letters\.csv\)"):
        compare_plan._champion(store, other, saved)


# --- reproduce ---


@pytest.fixture
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", ["trial", "repeat", "refit", "train"])
def test_a_run_is_reproduced_to_the_last_bit(
    here: Paths, judged: tuple[Place, Done], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "train":
        recipe = [a for a in LETTERS if not a.startswith(("study", "space", "workers"))]
        train.train(settings_of(*recipe, "trainer.num_train_epochs=1", "model.dropout=0.3"), here)
    run = runs_of(judged[0], kind)[0]
    reproduce.reproduce(run.info.run_id, None, (), here)
    message = capsys.readouterr().out
    assert re.search(r"All \d\d+ recorded numbers of \d+ metrics are identical", message), message
    assert client_of(judged[0]).get_run(run.info.run_id).data.tags["reproduced"] == "identical"
    assert not list((judged[0].folder / "mlruns" / "trainings").glob("reproduce*"))


@pytest.mark.usefixtures("threads")
def test_an_average_is_reproduced_with_all_of_its_members(
    here: Paths, judged: tuple[Place, Done], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = verdict_of(judged[0])
    run_id = verdict.contender(verdict.winner).run_id
    assert run_id is not None
    reproduce.reproduce(run_id, None, (), here)
    message = capsys.readouterr().out
    assert message.count("metrics are identical") == 4
    assert message.splitlines()[-1] == "The average's weights are identical."
    read = run_reader.read_average

    def other_weights(*arguments: object) -> run_reader.RecordedAverage | None:
        average = read(*arguments)  # type: ignore[arg-type]
        return replace(average, sha256="0", members=average.members[:1]) if average else None

    monkeypatch.setattr(run_reader, "read_average", other_weights)
    with pytest.raises(NotReproduced, match="did not come out the same"):
        reproduce.reproduce(run_id, None, (), here)
    assert client_of(judged[0]).get_run(run_id).data.tags["reproduced"] == "differs"


@pytest.mark.usefixtures("threads")
def test_a_difference_is_shown_beside_what_changed(
    here: Paths, judged: tuple[Place, Done], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs_of(judged[0], "trial")[1]
    read = run_reader.read_run

    def as_if_recorded_elsewhere(*arguments: object) -> run_reader.RecordedRun:
        result = read(*arguments)  # type: ignore[arg-type]
        curves = {**result.curves, "train/loss": {step: v + 0.5 for step, v in result.curves["train/loss"].items()}}
        return run_reader.RecordedRun(
            **{**vars(result), "curves": curves, "versions": {**result.versions, "torch": "1.0"}}
        )

    monkeypatch.setattr(run_reader, "read_run", as_if_recorded_elsewhere)
    with pytest.raises(NotReproduced, match="did not come out the same"):
        reproduce.reproduce(run.info.run_id, None, (), here)
    message = capsys.readouterr().out
    assert re.search(r"train/loss +\d+ +\d+ +0 +0\.5", message)
    assert "torch was 1.0 and is " in message


def test_what_reproduce_refuses(here: Paths, judged: tuple[Place, Done]) -> None:
    with pytest.raises(InvalidInput, match="No run was given"):
        reproduce.reproduce(None, None, (), here)
    with pytest.raises(InvalidInput, match="has no run 0123"):
        reproduce.reproduce("0123", None, (), here)
    (study,) = runs_of(judged[0], "study")
    with pytest.raises(InvalidInput, match="a run of kind study"):
        reproduce.reproduce(study.info.run_id, None, (), here)


# --- long ---


@pytest.mark.heavy
def test_a_worse_study_is_registered_and_declined(tmp_path: Path) -> None:
    place = Place(tmp_path)
    write_letters(tmp_path / "letters.csv")
    weak = [a for a in LETTERS if "learning_rate" not in a] + ["study.name=weak", "trainer.num_train_epochs=1",
            "model.learning_rate=1e-7", "space.optimizer.learning_rate.low=1e-7",
            "space.optimizer.learning_rate.high=2e-7"]  # fmt: skip
    strong = [*LETTERS, "study.name=letters"]
    for arguments in (weak, strong):
        assert place.sweep(*arguments).code == 0
    assert place.run("src.compare", "study.name=weak", *COMPARE).code == 0
    declined = place.run("src.promote", "study.name=weak")
    assert declined.code == 3
    assert "champion was not moved: it is" in declined.err
    client = client_of(place)
    assert dict(client.get_registered_model("letters").aliases) == {"challenger": 1}
    challenger = place.run("src.predict", "abcd")
    assert "letters version 1, the challenger: no version has passed the gate" in challenger.err
    assert place.run("src.compare", "study.name=letters", *COMPARE).code == 0
    assert place.run("src.promote", "study.name=letters").code == 0
    assert dict(client.get_registered_model("letters").aliases) == {"challenger": 2, "champion": 2}
    # The weak one again, now against the champion; the test split is opened for the third time.
    again = place.run("src.compare", "study.name=weak", *COMPARE)
    assert again.code == 0, again.err
    assert "against champion: WORSE" in again.out
    assert "This test split has been opened 3 times." in again.out
    declined = place.run("src.promote", "study.name=weak")
    assert declined.code == 3
    assert "it is worse than the champion, version 2" in declined.err
    assert dict(client.get_registered_model("letters").aliases) == {"challenger": 1, "champion": 2}
    assert place.run("src.promote", "study.name=letters", "promote.rollback=true").code == 3


@pytest.mark.long
def test_more_seeds_open_the_test_again_and_lost_weights_are_trained_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    write_letters(tmp_path / "letters.csv")
    assert place.sweep(*LETTERS, "study.name=letters", *INLINE).code == 0
    assert place.run("src.compare", *COMPARE, *INLINE).code == 0
    folder = place.study("letters") / "comparison"
    first = verdict_of(place)
    # A failed seed of the default recipe, and a kill before the verdict: the choice stands, and nothing is locked.
    default = first.contender("default")
    result = folder / "repeats" / default.key / str(first.seeds[0]) / "outcome.json"
    kept = result.read_text()
    result.write_text(json.dumps({**json.loads(kept), "state": "FAIL", "score": None, "reason": "out of memory"}))
    (folder / "verdict.json").unlink()
    done = place.run("src.compare", *COMPARE, *INLINE)
    assert done.code == 0, done.err
    assert verdict_of(place).contender("default").problem == "1 of 4 seeds failed"
    assert verdict_of(place).result_against("default") is None
    result.write_text(kept)
    # More seeds: the weights of the earlier ones are gone, and one of them may be the median now.
    done = place.run("src.compare", "compare.seeds=6", *COMPARE[1:], *INLINE)
    assert done.code == 0, done.err
    second = verdict_of(place)
    assert (second.opening, second.openings, len(second.seeds)) == (2, 2, 6)
    winner = second.contender(second.winner)
    assert (average_dir(winner.key, second.seeds, folder) / "training" / "best").is_dir()
    assert not (average_dir(winner.key, first.seeds, folder) / "training").exists()
    for name in (first.winner, f"{first.recipe_of(first.winner).name}-average"):
        files = [
            average_dir(second.contender(name).key, v.seeds, folder) / "leave-one-out.npy" for v in (first, second)
        ]
        assert [len(np.load(file)) for file in files] == [4, 6]  # other seeds are another average
    recipe = second.recipe_of(second.winner)
    for before in first.recipe_of(first.winner).repeats:
        now = next(r for r in recipe.repeats if r.seed == before.seed)
        assert now.validation == before.validation
    assert place.run("src.promote").code == 0
    contender = next(r for r in runs_of(place, "contender") if r.data.tags["contender"] == second.winner)
    history = client_of(place).get_metric_history(contender.info.run_id, "test/accuracy")
    assert len({m.step for m in history}) == len(history) >= 2


@pytest.mark.long
@pytest.mark.usefixtures("promoted")
def test_the_champion_is_served_over_http(judged: tuple[Place, Done]) -> None:
    port = free_port()
    env = clean_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{judged[0].folder}/mlflow.db"}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/letters@champion",
        "--env-manager",
        "local",
    ]
    server = subprocess.Popen([*command, "--port", str(port)], cwd=judged[0].folder, env=env, start_new_session=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        texts = ["stuvwxyz zyxw", "abcd abcd", "zyxwvuts " * 500]
        answer = posted(f"http://127.0.0.1:{port}/invocations", {"inputs": texts})
        assert [row["label"] for row in answer["predictions"]] == ["high", "low", "high"]
        assert all(0.5 <= row["score"] <= 1 for row in answer["predictions"])
    finally:
        subprocess.run(["pkill", "-9", "-g", str(server.pid)], check=False)


def posted(url: str, content: object) -> dict:
    end = time.monotonic() + 90
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)
        except OSError:
            assert time.monotonic() < end, "the server did not answer"
            time.sleep(0.5)
