"""What is shown: analysis, figures, report and card; the golden ones of the starter study, every number recomputed."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from sklearn import metrics as sklearn_metrics

from src.comparison import saved_study
from src.core.paths import Paths
from src.core.records import State, TrainingResult, TrialRecord
from src.data import dataset
from src.reports import figures
from src.reports.error_analysis import ErrorAnalysis, analyze_errors
from src.reports.model_card import card_figures, render_card
from src.reports.report import render_report
from src.reports.search_record import JudgedSearch, SearchRecord
from src.tracking import logged_model, run_tree
from src.tracking.store import open_store
from src.verdict import decision, estimates, tables
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.decision import Hypothesis
from src.verdict.records import ContenderRecord, load_verdict
from src.workflows.sweep import report as sweep_report
from tests.golden.__main__ import HERE, MODEL
from tests.support.commands import Place, client_of
from tests.support.data import settings_of

NAMES = ("negative", "positive")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
NO_RECORDS = {"95", "1,000", "1000", "0"}  # 95 % intervals; ms per 1,000 texts; the lower end of "0 .. 0.1"


@pytest.fixture(scope="module")
def found() -> JudgedSearch:
    return JudgedSearch.from_json((HERE / "findings.json").read_text())


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(HERE / "answers.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def test_split(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    prepared = dataset.prepare_dataset(settings_of().data, tmp_path_factory.mktemp("cache"))
    return pd.read_parquet(prepared.folder / "test.parquet")


# --- the golden study ---


def test_card_and_report_of_the_starter_study_are_drawn_from_its_records_alone(found: JudgedSearch) -> None:
    assert render_card(found, MODEL) == (HERE / "card.md").read_text()
    assert render_report(found.history, None, found)["report.md"] == (HERE / "report.md").read_text()


def predictions_of(row: ContenderRecord, answers: dict[str, np.ndarray]) -> Predictions:
    """As the verdict was made from them: an average is paired with the trainings that it was made of."""
    trainings = row.recipe if row.form == "average" else row.name
    return Predictions(answers[row.name], answers.get(f"{row.name}/leave-one-out"), trainings=trainings)


def test_every_test_figure_follows_from_the_raw_answers(
    found: JudgedSearch, answers: dict[str, np.ndarray], test_split: pd.DataFrame
) -> None:
    verdict, labels = found.verdict, test_split["label"].to_numpy()
    names = [name for name in answers if "/" not in name]
    recipes_first = sorted(names, key=lambda name: verdict.contender(name).form != "single")  # as they were drawn
    tested = {name: answers[name] for name in recipes_first}
    assert set(tested) == {c.name for c in verdict.contenders if c.test}
    draws = PairedBootstrap(labels, {name: predictions_of(verdict.contender(name), answers) for name in tested})
    for name, probabilities in tested.items():
        row = verdict.contender(name)
        assert row.test == decision.intervals(draws, name)
        picked = probabilities.argmax(axis=2)
        assert row.test["accuracy"].value == pytest.approx((picked == labels).mean())
        assert row.test["f1"].value == pytest.approx(
            np.mean([sklearn_metrics.f1_score(labels, p, zero_division=0) for p in picked])
        )
        if row.form != "single":
            continue
        for repeat, own in zip(row.repeats, probabilities, strict=False):
            all_params = estimates.metrics_per_seed(labels, own[None])
            assert repeat.test == pytest.approx({m: float(v[0]) for m, v in all_params.items()})
    registered = {
        name: probabilities[[r.seed for r in row.repeats].index(row.registered_seed) if row.registered_seed else 0]
        for name, probabilities in tested.items()
        for row in [verdict.contender(name)]
    }
    others = tuple(name for name in recipes_first if name != verdict.winner)
    question = Hypothesis(verdict.winner, others, verdict.metric, verdict.margin, verdict.chosen_among)
    assert verdict.against == decision.compare_with_others(draws, question, labels, registered)
    baseline = answers[verdict.best_baseline][0]
    winner = predictions_of(verdict.contender(verdict.winner), answers)
    assert found.test == analyze_errors("test", test_split, registered[verdict.winner], NAMES, baseline, winner)


def test_means_over_seeds_follow_from_the_trainings(found: JudgedSearch) -> None:
    verdict = found.verdict
    for row in verdict.contenders:
        each = [r.validation[verdict.metric] for r in row.repeats] if row.form == "single" else []
        if each:
            assert len(each) == len(verdict.seeds)
            assert (row.validation, row.spread) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
            assert row.optimism == pytest.approx(row.search_score - np.mean(each))
            registered = next(r for r in row.repeats if r.seed == row.registered_seed)
            assert registered.validation[verdict.metric] == sorted(each)[(len(each) - 1) // 2]


def test_the_data_are_the_shipped_ones(found: JudgedSearch, tmp_path: Path) -> None:
    prepared = dataset.prepare_dataset(settings_of().data, tmp_path)
    assert found.verdict.fingerprints == found.history.data.fingerprints == prepared.fingerprints
    assert found.history.data.sizes == prepared.sizes


def test_every_number_on_card_and_report_is_on_record(found: JudgedSearch) -> None:
    known = NO_RECORDS | set(spellings(found))
    for file in ("card.md", "report.md"):
        text = re.sub(r"```.*?```", "", (HERE / file).read_text(), flags=re.DOTALL).replace("\\", "")
        strange = {n for n in NUMBER.findall(text) if n not in known and n.lstrip("+-") not in known}
        assert not strange, file


def test_a_number_that_is_on_no_record_is_noticed(found: JudgedSearch) -> None:
    assert "0.8765" not in set(spellings(found))


def spellings(found: JudgedSearch) -> Iterator[str]:
    """Every number in the records, and every number that they add up to, as it may be written."""
    history, verdict = found.history, found.verdict
    fields = json.loads(found.to_json())
    values = [v for v in leaves(fields) if isinstance(v, (int, float))]
    spent: dict[str, float] = {}
    for entry in history.stretches:
        kind = entry.what.split()[0] + entry.state
        spent[kind] = spent.get(kind, 0.0) + entry.ended - entry.began
    trained = [r.seconds for c in verdict.contenders for r in c.repeats]
    values += [*spent.values(), *(100 * s / sum(spent.values()) for s in spent.values()), sum(trained), len(trained)]
    values += [len(history.trials), len(verdict.seeds), found.test.errors, found.test.accuracy]
    values += [len(history.trials_in_state(state)) for state in State]
    values += [100 * v for v in (*history.rungs, *(t.result.share or 0 for t in history.trials))]
    values += [c.relative for c in found.changes if c.relative is not None]
    for value in values:
        yield from (f"{value:.{n}f}" for n in range(5))
        yield from (f"{value:.3g}", f"{value:g}", str(value), f"{value / 60:.1f}", f"{value:,.0f}")
    for text in leaves(fields):
        if isinstance(text, str):
            yield from NUMBER.findall(text)


def leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from (key, *leaves(value))
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value)
    else:
        yield node


def test_the_card_is_one_that_the_hub_reads(found: JudgedSearch) -> None:
    read = ModelCard(render_card(found, "me/it"))
    assert read.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    winner = found.verdict.contender(found.verdict.winner)
    assert {r.metric_type: r.metric_value for r in read.data.eval_results} == {
        metric: round(value, 4) for metric, value in winner.registered_test.items()
    }
    assert {r.dataset_name for r in read.data.eval_results} == {"starter"}
    for name in card_figures(found):
        assert f"](figures/{name}.png)" in read.text


@pytest.mark.parametrize(
    "part", ["budget", "sampler", "pruner", "fresh seeds", "selection", "optimism", "baselines", "fingerprint",
             "opening", "Intended use and limits", "How to load it", "MB of weights", "per 1,000 texts", "reproduce"],
)  # fmt: skip
def test_the_card_says(found: JudgedSearch, part: str) -> None:
    assert part in render_card(found, MODEL)


# --- analysis ---


def analysed(**change: Any) -> ErrorAnalysis:
    """Twelve examples, two kinds of six; the first of each is classified wrongly."""
    kinds = ["x"] * 6 + ["y"] * 6
    columns = {"text": ["a b"] * 6 + ["c d e"] * 6, "label": [0, 1] * 6, "row": range(100, 112), "kind": kinds}
    hits = np.array([0.9, 0.1] * 6)
    hits[[0, 6]] = 0.2, 0.45
    values = {
        "split": "validation", "frame": pd.DataFrame({**columns, "id": range(12)}),
        "probabilities": np.stack([hits, 1 - hits], axis=1), "names": NAMES,
    }  # fmt: skip
    return analyze_errors(**(values | change))


def test_confusion_errors_and_slices_of_a_small_example() -> None:
    analysis = analysed()
    assert analysis.confusion == ((4, 2), (0, 6))
    assert (analysis.errors, analysis.accuracy) == (2, pytest.approx(10 / 12))
    assert [(w.row, w.label, w.predicted, w.chance) for w in analysis.wrong] == [
        (100, "negative", "positive", pytest.approx(0.8)), (106, "negative", "positive", pytest.approx(0.55)),
    ]  # fmt: skip
    result = {(s.column, s.value): (s.examples, s.accuracy) for s in analysis.slices}
    assert result == {
        ("words", "2"): (6, pytest.approx(5 / 6)), ("words", "3"): (6, pytest.approx(5 / 6)),
        ("kind", "x"): (6, pytest.approx(5 / 6)), ("kind", "y"): (6, pytest.approx(5 / 6)),
    }  # fmt: skip


def framed(column: list[Any], name: str = "extra") -> pd.DataFrame:
    base = {"text": ["a b"] * 12, "label": [0, 1] * 6, "row": range(12)}
    return pd.DataFrame(base).assign(**{name: pd.Series(column, dtype=object)})


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["x", None] * 6, {"(none)", "x"}),
        ([1.5, float("nan")] * 6, {"(none)", "1.5"}),
        ([1, "1 "] * 6, {"1", "1 "}),
        ([["a"], ["b"]] * 6, set()),
        ([{"a": 1}, {"a": 2}] * 6, set()),
        (["rare"] * 4 + ["often"] * 8, set()),  # four examples would show single answers
        (list(range(12)), set()),
        (["long " * 50, "x"] * 6, {("long " * 50)[:57] + "...", "x"}),
    ],
)
def test_any_column_is_a_slice_or_is_left_out(column: list[Any], values: set[str]) -> None:
    analysis = analysed(frame=framed(column), split="test")
    assert {s.value for s in analysis.slices if s.column == "extra"} == values


def test_a_column_named_words_stands_beside_the_length() -> None:
    analysis = analysed(frame=framed(["few", "many"] * 6, "words"))
    assert {s.column for s in analysis.slices} == {"words", "column words"}


def test_the_texts_of_the_test_split_are_never_listed() -> None:
    assert analysed(split="test").wrong == ()


def test_calibration_error_is_the_mean_distance_of_confidence_from_accuracy() -> None:
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.5, 1, 50_000)
    labels = (generator.random(50_000) > sure).astype(int)
    frame = pd.DataFrame({"text": ["a"] * 50_000, "label": labels, "row": range(50_000)})
    honest = analysed(frame=frame, probabilities=np.stack([sure, 1 - sure], axis=1), split="test")
    assert honest.calibration_error < 0.01
    boasting = np.stack([np.full(50_000, 0.99), np.full(50_000, 0.01)], axis=1)
    analysis = analysed(frame=frame, probabilities=boasting, split="test")
    assert analysis.calibration_error == pytest.approx(abs(0.99 - (labels == 0).mean()), abs=1e-6)


# --- figures and documents ---


def test_every_figure_can_be_drawn_and_is_the_same_for_the_same_records(found: JudgedSearch) -> None:
    drawn = {**figures.search_figures(found.history), **figures.error_figures(found.test), **card_figures(found)}
    assert {"history", "curves", "timeline", "changes", "confusion", "calibration", "slices", "contenders"} <= set(
        drawn
    )
    again = figures.search_figures(found.history)
    assert figures.to_svg(drawn["curves"]) == figures.to_svg(again["curves"])
    assert figures.to_png(drawn["history"]).startswith(b"\x89PNG")


def test_dollars_and_braces_in_names_are_drawn_as_they_are() -> None:
    analysis = analysed(names=("$\\foo$", "{a}_$5_$"), frame=framed(["$1$", "$\\bar"] * 6))
    assert all(figures.to_svg(figure) for figure in figures.error_figures(analysis).values())


def test_markup_in_labels_and_slices_is_shown_not_obeyed(found: JudgedSearch) -> None:
    names = ("<b>bad</b>", "![x](http://y/z.png)")
    data = replace(found.history.data, label_names=names)
    text = render_card(replace(found, history=replace(found.history, data=data)), MODEL)
    assert "<b>" not in text
    assert "](http" not in text


def test_a_report_says_that_its_verdict_is_older_than_the_best_trial(found: JudgedSearch) -> None:
    newer = replace(found.history, best=6)
    assert "The search has gone on since: trial 6 is its best now" in render_report(newer, None, found)["report.md"]
    assert "gone on since" not in render_report(found.history, None, found)["report.md"]


def test_a_report_without_findings_keeps_its_verdict(found: JudgedSearch) -> None:
    text = render_report(found.history, None, None, found.verdict)["report.md"]
    assert "default-refit against the best baseline, tfidf_logreg: BETTER" in text


def history_with(found: JudgedSearch, *trials: TrialRecord) -> SearchRecord:
    return replace(found.history, trials=trials, curves=(), best=None, changes=(), stretches=(), importances={})


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (TrialRecord(0, {"model": "a"}, TrainingResult(State.FAIL, reason="out of memory: 2 | GB")),),
        (
            TrialRecord(0, {"model": "a", "x": 1.0}, TrainingResult(State.COMPLETE, 0.5)),
            TrialRecord(1, {"model": "b"}, TrainingResult(State.COMPLETE, 0.5)),
        ),
    ],
)
def test_a_report_can_be_drawn_of_any_search(found: JudgedSearch, trials: tuple[TrialRecord, ...]) -> None:
    history = replace(history_with(found, *trials), space={"model": "a, b", "x": "0 .. 1"}, baselines={
        "majority": TrainingResult(State.FAIL, reason="no <b>luck</b>")})  # fmt: skip
    files = render_report(history, None)
    assert "# starter-minilm" in files["report.md"]
    assert "<b>luck" not in files["report.html"]


def test_the_page_needs_nothing_beside_it_and_obeys_no_markup_from_data(found: JudgedSearch) -> None:
    page = render_report(replace(found.history, study="<script>alert(1)</script>"), None, found)["report.html"]
    assert "<script" not in page
    assert 'src="figures/' not in page
    assert set(re.findall(r'(?:src|href)="(\w+:)', page)) == {"data:"}
    assert page.count("data:image/svg+xml;base64,") >= 8


def test_cells_cannot_break_a_table() -> None:
    assert tables.markdown_table(["a", "b"], [["x | y\nz", None]]) == "| a | b |\n| --- | ---: |\n| x \\| y z |  |"
    assert tables.markdown_table(["a"], [["[x](http://y) <b>"]]).splitlines()[-1] == r"| [x]\(http://y) \<b\> |"
    assert tables.markdown_table(["a"], [["0.5 [0.4, 0.6]"]]).splitlines()[-1] == "| 0.5 [0.4, 0.6] |"


# --- on the runs ---


def test_report_card_and_inspection_are_on_the_runs(judged: tuple[Place, Any]) -> None:
    client = client_of(judged[0])
    experiments = [e.experiment_id for e in client.search_experiments()]

    def run(query: str) -> str:
        return client.search_runs(experiments, query)[0].info.run_id

    def files(run_id: str, folder: str) -> set[str]:
        return {f.path.removeprefix(f"{folder}/") for f in client.list_artifacts(run_id, folder)}

    study = run("tags.kind = 'study'")
    assert files(study, "report") == {"report.md", "report.html", "history.json", "figures"}
    assert files(study, "card") == {"README.md", "findings.json", "figures"}
    best = client.get_run(study).data.tags["best.trial"]
    trial = run(f"tags.`trial.number` = '{best}'")
    assert files(trial, "inspection") == {"model.txt", "changes.svg", "layers.json", "tensors.json"}
    errors = client.get_run(trial).data
    assert {"path": "errors/errors.json", "type": "table"} in json.loads(errors.tags["mlflow.loggedArtifacts"])
    assert math.isfinite(errors.metrics["validation/calibration_error"])
    result = JudgedSearch.from_json((judged[0].study("letters") / "comparison" / "findings.json").read_text())
    assert result.validation is None  # a refit was trained on it
    winner = result.verdict.contender(result.verdict.winner)
    assert result.test.accuracy == pytest.approx(winner.registered_test["accuracy"])
    assert "classifier" not in {change.part for change in result.changes}  # which began from several seeds


def test_a_page_that_cannot_be_drawn_is_a_note_and_the_rest_is_there(
    judged: tuple[Place, Any], here: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = saved_study.load_study("letters", here)
    verdict, store = load_verdict(saved.comparison_dir), open_store(saved.settings.tracking, here.root)
    client = client_of(judged[0])
    before = {f.path for f in client.list_artifacts(run_tree.study_run(saved.study).known_run_id, "report")}

    def broken(_: object) -> str:
        raise ValueError("no ink")

    monkeypatch.setattr(figures, "to_svg", broken)
    monkeypatch.setattr(figures, "to_png", broken)
    (saved.study.folder / sweep_report.REPORTED_FILE).unlink()
    assert sweep_report.try_write_report(saved, store) == "the report could not be drawn (ValueError: no ink)"
    _, _, uri = (saved.study.folder / "delivered-model").read_text().partition(" ")  # the best trial's
    monkeypatch.setattr(logged_model, "download_attached", lambda *_: None)
    assert "the version has no card with it (ValueError: no ink)" in sweep_report.attach_card(
        saved, verdict, store, uri
    )
    monkeypatch.undo()
    assert sweep_report.try_write_report(saved, store) is None
    assert {f.path for f in client.list_artifacts(run_tree.study_run(saved.study).known_run_id, "report")} == before
