"""A portfolio of settings that complement each other."""

import pytest

from src.search.portfolio import choose_portfolio
from src.search.space import parse_space

GOOD_HERE_ONLY, GOOD_THERE_ONLY, MIDDLING, BAD = [0.0, 1.0], [1.0, 0.0], [0.4, 0.4], [0.9, 0.9]


def test_each_one_lowers_the_mean_of_the_least_loss_most() -> None:
    losses = [GOOD_HERE_ONLY, GOOD_THERE_ONLY, MIDDLING, BAD]
    assert choose_portfolio(losses, 1) == [2]
    assert choose_portfolio(losses, 2) == [2, 0]
    assert choose_portfolio(losses, 3) == [2, 0, 1]


def test_what_adds_nothing_follows_by_its_mean() -> None:
    assert choose_portfolio([[0.9], [0.0], [0.2]], 3) == [1, 2, 0]


def test_those_that_are_tried_in_any_case_count() -> None:
    losses = [GOOD_HERE_ONLY, GOOD_THERE_ONLY, MIDDLING]
    assert choose_portfolio(losses, 2, first=(0,)) == [0, 1]
    assert choose_portfolio(losses, 9, first=(0,)) == [0, 1, 2]


def test_points_as_numbers() -> None:
    tree = {
        "optimizer": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "optim": {"choices": ["a", "b"]}},
        "schedule": {"warmup_ratio": {"low": 0.0, "high": 0.5, "when": {"optimizer.optim": "b"}}},
    }
    base = {"optimizer.learning_rate": 1e-4, "optimizer.optim": "a", "schedule.warmup_ratio": 0.0}
    space = parse_space(tree, base)
    assert space.encode({"optimizer.learning_rate": 1e-4, "optimizer.optim": "a"}) == pytest.approx([0.5, 1, 0, -1])
    both = {"optimizer.learning_rate": 1e-3, "optimizer.optim": "b", "schedule.warmup_ratio": 0.25}
    assert space.encode(both) == pytest.approx([1, 0, 1, 0.5])
    beyond = {"optimizer.learning_rate": 0.0, "optimizer.optim": "c", "schedule.warmup_ratio": None}
    assert space.encode(beyond) == pytest.approx([0, 0, 0, -1])
