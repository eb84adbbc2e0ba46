"""The benchmarks' own reckoning. What they measure is measured by running them, not here."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import (
    bare,
    common,
    coordination,
    curves,
    packing,
    pages,
    portfolio,
    quality,
    scale,
    schedulers,
    search,
    step,
)
from src.training import pretrained
from src.training.classifier_trainer import EpochSampler
from tests.support.data import settings_of


def test_the_page_is_made_from_the_records() -> None:
    assert pages.README.read_text() == pages.page(), "run python -m benchmarks.pages"


def test_the_page_about_large_models_has_the_recorded_figures() -> None:
    record = json.loads((common.RECORDS / "adapters.json").read_text())
    assert (
        pages.adapter_table(record).strip() in (common.HERE.parent / "docs" / "how-to" / "large-models.md").read_text()
    )


def test_every_record_says_what_it_was_made_with() -> None:
    files = list(common.RECORDS.glob("**/*.json"))
    assert files
    for file in files:
        record = json.loads(file.read_text())
        assert record["command"].startswith("python -m benchmarks."), file
        assert record["machine"]["cores"] > 0
        assert record["versions"]["torch"]


def test_bare_pytorch_sees_the_batches_that_a_trial_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order of rows from the same seed and epoch."""
    rng = np.random.default_rng(0)
    rows = [[1] * int(n) for n in rng.integers(3, 40, size=100)]
    seen: list[list[int]] = []
    kept = bare.batches
    monkeypatch.setattr(
        bare, "batches", lambda r, la, order, *rest: seen.append(list(order)) or kept(r, la, order, *rest)
    )
    setting = bare.Setting(1e-3, 2, 0.0, 0.0, batch=8, seed=7, shares=(1.0,))
    bare.train(_Scores(), setting, rows, [0, 1] * 50, [(rows[:10], [0, 1] * 5)] * 2)
    sampler = EpochSampler([len(r) for r in rows], 8, 7, group=True)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        assert list(sampler) in seen


def test_steps_go_over_texts_as_they_are_and_strung_together() -> None:
    texts = [[101, *range(1000, 1000 + n), 102] for n in range(1, 41)]
    short, *rest = step.batches(texts, [0, 1] * 20, None)
    assert len(rest) == 1  # what does not fill a batch is left out
    assert int(short["attention_mask"].sum(1).max()) == short["input_ids"].shape[1] == 42
    long = step.batches(texts, [0, 1] * 20, 256)
    assert [tuple(batch["input_ids"].shape) for batch in long] == [(step.BATCH, 256)] * step.LONG[256]
    assert all((batch["input_ids"][:, [0, -1]] == torch.tensor([101, 102])).all() for batch in long)
    assert not any((batch["input_ids"][:, 1:-1] < 1000).any() for batch in long)


def test_best_so_far() -> None:
    trials = [{"elapsed": e, "value": v} for e, v in ((30, 0.7), (10, 0.6), (20, 0.5), (40, 0.8))]
    assert [t["elapsed"] for t in search.incumbents(trials)] == [10, 30, 40]


@pytest.mark.parametrize(
    "made", [{"machine": {"processor": "another"}}, {"beside": {"seed": 0, "trials": []}}], ids=["elsewhere", "done"]
)
def test_trialbook_searches_beside_a_peer_once_and_on_its_machine(tmp_path: Path, made: dict[str, Any]) -> None:
    record = tmp_path / "peer-0.json"
    record.write_text(json.dumps({"machine": common.circumstances()["machine"], **made}))
    before = record.read_text()
    search.accompany(record, 0, tmp_path / "no-data", tmp_path / "place")
    assert record.read_text() == before
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("name", ["sst2", "trec", "sms_spam"])
def test_a_draw_of_a_set_shares_no_text_with_its_test_split(tmp_path: Path, name: str) -> None:
    column = "sentence" if name == "sst2" else "text"
    texts = [f"text {i}" for i in range(3_000)]
    frame = pd.DataFrame({column: texts, "label": np.arange(3_000) % 3})
    (tmp_path / name).mkdir()
    frame.to_parquet(tmp_path / name / "train.parquet")
    if name != "sms_spam":
        test = "validation" if name == "sst2" else "test"
        frame[:500].to_parquet(tmp_path / name / f"{test}.parquet")
    draws = []
    for draw in (0, 0, 1):
        folder = quality.drawn(tmp_path / name, name, draw, tmp_path / f"draw-{draw}")
        train, test = (pd.read_parquet(folder / f"{split}.parquet") for split in ("train", "test"))
        assert len(train) == 1_176  # 1,000 after 15 % are carved off
        assert set(train.columns) == set(test.columns) == {"text", "label"}
        assert not set(train["text"]) & set(test["text"])
        draws.append(set(train["text"]))
    assert draws[0] == draws[1] != draws[2]


def test_what_a_tool_delivers_is_scored_on_the_test_split(tmp_path: Path) -> None:
    pd.DataFrame({"text": list("abcd"), "label": [0, 1, 2, 1]}).to_parquet(tmp_path / "test.parquet")
    scored = quality.score(np.eye(3)[[0, 1, 1, 1]], tmp_path)
    assert (scored["accuracy"], scored["right"]) == (0.75, "1101")
    assert scored["f1_macro"] == pytest.approx((1 + 0.8 + 0) / 3)


def test_regret_at_each_budget() -> None:
    whole_training = schedulers.WHOLE
    result = schedulers.regrets([(1.2 * whole_training, 0.7), (3.5 * whole_training, 0.75)], 0.8)
    assert result[0] is None
    assert result[1] == pytest.approx(0.1)
    assert result[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_replay_is_the_same_twice_and_gets_better(pruner: str) -> None:
    table = schedulers.Table()
    assert len(table.lines) >= 100
    assert len(table.lines[0]["correct"]) == len(curves.SHARES)
    variant = schedulers.Variant("random", pruner)
    traces = [schedulers.Replay(table, variant, 3).run() for _ in range(2)]
    assert traces[0] == traces[1]
    assert traces[0][-1][1] > 0.7
    assert [spent for spent, _ in traces[0]] == sorted(spent for spent, _ in traces[0])


@pytest.mark.long
def test_packing_counts_trainings_of_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RECORDS", tmp_path)
    for split, rows in (("train", 2500), ("validation", 40)):
        sentences = [(f"{'good' if i % 2 else 'bad'} film number {i} of {split}", i % 2) for i in range(rows)]
        pd.DataFrame(sentences, columns=["sentence", "label"]).to_parquet(tmp_path / f"{split}.parquet")
    weights = pretrained.find(settings_of("model=tiny").recipe.model, tmp_path).folder
    arguments = ["--data", str(tmp_path), "--weights", str(weights), "--texts", "40", "--trainings", "2", "--most", "2"]
    result = packing.main(arguments)
    assert result["over_one"]["1"] == 1
    assert all(f["trials_per_hour"] > 0 for f in result["packed"].values())
    assert json.loads((tmp_path / "packing.json").read_text())["packed"] == result["packed"]


class _Scores(bare.torch.nn.Module):
    """A classifier of two numbers, that answers as transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = bare.torch.nn.Parameter(bare.torch.zeros(2))

    def forward(self, input_ids: bare.torch.Tensor, labels: bare.torch.Tensor, **_: object) -> object:
        from transformers.modeling_outputs import SequenceClassifierOutput

        logits = self.scores.expand(len(input_ids), 2)
        loss = bare.torch.nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def test_a_crowded_study_is_filled_and_shared(tmp_path: Path) -> None:
    result = coordination.latency(tmp_path, None, finished=30)
    assert result["claim"] + result["end"] > 0
    assert result["p50"] <= result["p95"]
    study = coordination.opened(tmp_path, None, "latency-30", 30)
    assert len(study.ended_trials()) == 30 + coordination.ROUNDS + 1
    assert {t.state for t in study.trials()} == {"COMPLETE"}


def test_the_page_on_scale_is_made_from_the_record() -> None:
    page = scale.page(pages._read("coordination"), pages._table)
    assert pages.SCALE.read_text() == page, "run python -m benchmarks.pages"


def test_what_carries_how_many_workers() -> None:
    limit = scale.Limit("writes", asked=6, given=60, words="", turn="")
    assert limit.workers(minutes=5) == 3000  # 10 trials' writes per second, for 300 s
    assert scale.Limit("connections", 2, 100, "", "", per_worker=True).workers(minutes=5) == 50


def test_a_lead_is_paired_on_the_texts() -> None:
    difference, error = quality._paired("1110", "1000")
    assert difference == 0.5
    assert error == pytest.approx(np.std([0, 1, 1, 0], ddof=1) / 2)


def test_the_summary_has_every_record_of_a_draw_that_trialbook_has_run() -> None:
    lines = list(quality.summary())
    for file in quality.FOLDER.glob("*.json"):
        record = json.loads(file.read_text())
        assert any(record["peer"] in line and f"{record['accuracy']:.4f}" in line for line in lines), file
    assert sum("records" in line for line in lines) >= 2


def test_random_settings_of_a_portfolio_are_averaged_over_all_draws() -> None:
    """The mean over every draw, counted one by one."""
    scores = [0.5, 0.1, 0.9, 0.4, 0.7]  # the first is the default recipe's
    for n in (2, 3, 4):
        every = [max([scores[0], *draw]) for draw in itertools.combinations(scores[1:], n - 1)]
        assert portfolio.mean_best(scores, n) == pytest.approx(np.mean(every))
