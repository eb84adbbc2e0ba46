"""The metrics of numbers over weighted draws, and what a verdict makes of them."""

import numpy as np
import pytest
from scipy.stats import rankdata

from src.training.metrics import compute_metrics, score_of
from src.verdict import estimates
from src.verdict.bootstrap import PairedBootstrap, Predictions, mcnemar
from src.verdict.decision import Hypothesis, compare_with_others
from src.verdict.number_formulas import NUMBER_FORMULAS, draw_ranks

GENERATOR = np.random.default_rng(0)
TRUE = np.round(GENERATOR.normal(1000.0, 2.0, 80), 1)  # with equal values among them


def predicted(noise: float, n_seeds: int, true: np.ndarray = TRUE, seed: int = 1) -> np.ndarray:
    """Of a model of which each seed has an error of its own, [n_seeds, n_examples, 1]."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, noise, len(true))
    return np.round(true + common + generator.normal(0, noise / 4, (n_seeds, len(true))), 1)[..., None]


@pytest.mark.parametrize("metric", NUMBER_FORMULAS)
def test_draws_are_those_of_their_examples(metric: str) -> None:
    answers = predicted(1.0, 3)
    counts = np.random.default_rng(2).multinomial(len(TRUE), np.full(len(TRUE), 1 / len(TRUE)), 20).astype(float)
    weighted = estimates.weighted_metrics(TRUE, answers, counts, [metric])[metric]
    for draw in range(20):
        rows = np.repeat(np.arange(len(TRUE)), counts[draw].astype(int))
        for seed in range(3):
            assert weighted[draw, seed] == pytest.approx(score_of(metric, TRUE[rows], answers[seed, rows]), abs=1e-9)
    found = compute_metrics(TRUE, answers[0])
    assert set(found) == {"mse", "mae", "r2", "spearman"}
    assert estimates.metrics_per_seed(TRUE, answers)[metric][0] == pytest.approx(found[metric])


def test_ranks_in_a_draw_are_those_of_its_examples() -> None:
    values, counts = np.array([3.0, 1.0, 3.0, 2.0]), np.array([[1.0, 2.0, 1.0, 0.0], [0.0, 0.0, 3.0, 1.0]])
    ranks = draw_ranks(values, counts)
    assert ranks[0][[1, 0, 2]] == pytest.approx(rankdata([1.0, 1.0, 3.0, 3.0])[[0, 2, 3]])
    assert ranks[1][[3, 2]] == pytest.approx([1.0, 3.0])


@pytest.mark.parametrize("metric", NUMBER_FORMULAS)
def test_numbers_that_are_all_the_same_have_a_value(metric: str) -> None:
    constant = np.full((1, 10, 1), 5.0)
    varied = np.arange(10.0)
    for numbers, answers in ((varied, constant), (np.full(10, 5.0), varied[None, :, None])):
        value = estimates.metrics_per_seed(numbers, answers)[metric][0]
        assert np.isfinite(value)
        if metric == "spearman":
            assert value == 0.0


@pytest.mark.parametrize("metric", NUMBER_FORMULAS)
def test_intervals_hold_the_true_value(metric: str) -> None:
    everything = np.random.default_rng(9).normal(0, 2, 100_000)
    wanted = estimates.metrics_per_seed(everything, predicted(1.0, 1, everything))[metric][0]
    missed = 0
    for number in range(200):
        true = np.random.default_rng(number).normal(0, 2, 200)
        answers = {"one": Predictions(predicted(1.0, 1, true, seed=1000 + number))}
        interval = PairedBootstrap(true, answers, draws=300, metric=metric).estimate("one", metric)
        assert interval.low >= (0 if metric.startswith("m") else -np.inf)
        assert interval.high <= (np.inf if metric.startswith("m") else 1)
        missed += not interval.low <= wanted <= interval.high
    assert missed <= 22  # 10 expected


@pytest.mark.parametrize("metric", NUMBER_FORMULAS)
def test_equal_models_are_rarely_shown_better(metric: str) -> None:
    better = 0
    for number in range(200):
        true = np.random.default_rng(number).normal(0, 2, 200)
        answers = {name: Predictions(predicted(1.0, 4, true, seed=s + 10 * number)) for s, name in enumerate("ab")}
        interval = PairedBootstrap(true, answers, draws=300, metric=metric).difference("a", "b", metric)
        better += interval.low > 0
    assert better <= 12  # 5 expected


def test_a_better_model_is_shown_to_be_better_in_the_metrics_direction() -> None:
    true = np.random.default_rng(0).normal(0, 2, 300)
    answers = {"good": Predictions(predicted(0.5, 4, true)), "poor": Predictions(predicted(1.0, 4, true, seed=7))}
    registered = {name: p.probabilities[0] for name, p in answers.items()}
    for metric in NUMBER_FORMULAS:
        bootstrap = PairedBootstrap(true, answers, draws=500, metric=metric)
        (found,) = compare_with_others(bootstrap, Hypothesis("good", ("poor",), metric, 0.0, 1), true, registered)
        assert found.verdict == "better", metric
        assert found.only_winner > found.only_other


def test_the_sign_test_counts_who_is_nearer() -> None:
    true, first, second = np.zeros(5), np.array([0.1, 0.1, -0.1, 0.5, 0.3]), np.array([0.2, -0.2, 0.2, 0.4, -0.3])
    test = mcnemar(true, first[:, None], second[:, None])
    assert (test.only_first, test.only_second) == (3, 1)
    assert test.p == pytest.approx(10 / 16)
