"""Averages of trainings: the jackknife, the choice of a form, and that equal forms are rarely called different."""

from dataclasses import replace

import numpy as np
import pytest

from src.verdict import decision, estimates
from src.verdict.bootstrap import PairedBootstrap, Predictions
from src.verdict.decision import Hypothesis
from src.verdict.records import BETTER, Interval
from tests.support.predictions import chances_of


def jackknife_variance(values: np.ndarray) -> float:
    """(n - 1) / n times the sum of squares about the mean of leave-one-out values."""
    n = len(values)
    return float((n - 1) / n * ((values - values.mean()) ** 2).sum())


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_the_variance_over_seeds_is_the_jackknifes(metric: str) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    average, without_one = generator.dirichlet((1, 1), (1, 300)), generator.dirichlet((1, 1), (5, 300))
    bootstrap = PairedBootstrap(labels, {"average": Predictions(average, without_one)})
    values = bootstrap.point_estimates["average"][metric]
    assert values.mean() == pytest.approx(estimates.metrics_per_seed(labels, average)[metric][0])
    wanted = jackknife_variance(estimates.metrics_per_seed(labels, without_one)[metric])
    assert values.var(ddof=1) / 5 == pytest.approx(wanted)
    found = bootstrap.estimate("average", metric)
    assert found.value == pytest.approx(values.mean())
    assert found.error**2 >= wanted * (1 - 1e-9)


def test_members_that_agree_add_nothing_to_the_interval() -> None:
    generator = np.random.default_rng(1)
    labels, average = np.ones(400, dtype=int), chances_of(generator.random((1, 400)) < 0.8)
    alone = PairedBootstrap(labels, {"a": Predictions(average)}).estimate("a", "accuracy")
    same = PairedBootstrap(labels, {"a": Predictions(average, np.repeat(average, 5, axis=0))}).estimate("a", "accuracy")
    assert (same.value, same.low, same.high) == pytest.approx((alone.value, alone.low, alone.high), abs=1e-3)


def test_an_average_is_worse_only_beyond_two_standard_errors() -> None:
    labels = np.ones(200, dtype=int)
    members = chances_of(np.arange(200)[None].repeat(4, axis=0) >= 20)  # all right on the same 180

    def right_on(n: int) -> np.ndarray:
        return chances_of(np.arange(200) < n)

    better = chances_of(np.arange(200) >= 10)
    assert not decision.is_shown_worse(labels, better, members, "accuracy")
    assert not decision.is_shown_worse(labels, members[0], members, "accuracy")
    slightly = chances_of(np.arange(200) >= 22)  # 2 more errors: 1 point, with a standard error of 0.7
    assert not decision.is_shown_worse(labels, slightly, members, "accuracy")
    clearly = chances_of(np.arange(200) >= 40)
    assert decision.is_shown_worse(labels, clearly, members, "accuracy")
    assert decision.is_shown_worse(labels, clearly, members, "loss")
    assert decision.is_shown_worse(labels, right_on(60), members, "accuracy")


# --- simulated comparisons ---

SPREAD, OF_RECIPE, OF_TRAINING, LEAD = (
    2.0,
    0.5,
    1.0,
    1.3,
)  # of the logits: of examples, of recipes on them, of trainings
SHARED = 0.7  # correlation of a refit with the seed run of the same seed


class Simulated:
    """Logits of recipes, their seed runs and refits; an average's are the mean of its members'.

    An average is more often right than its members, since their errors partly cancel. Where forms must be equal, the
    lead of averages is made smaller by so much that they are as often right.
    """

    def __init__(self, generator: np.random.Generator, seeds: int, between_seeds: float, equal_forms: bool) -> None:
        self.generator, self.seeds = generator, seeds
        self.seed_effects = generator.normal(0, between_seeds, (4, seeds, 1))
        variance = SPREAD**2 + OF_RECIPE**2
        of_training = between_seeds**2 + OF_TRAINING**2
        of_average = of_training / seeds
        self.loss = LEAD * (1 - np.sqrt((variance + of_average) / (variance + of_training))) if equal_forms else 0.0

    def split(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Logits of seed runs and of refits, [n_recipes, n_seeds, n_examples] each; positive ones are right."""
        shared = LEAD + self.generator.normal(0, SPREAD, n) + self.generator.normal(0, OF_RECIPE, (4, 1, n))
        noise = self.generator.normal(0, OF_TRAINING, (2, 4, self.seeds, n))
        refit_noise = SHARED * noise[0] + np.sqrt(1 - SHARED**2) * noise[1]
        return shared + self.seed_effects + noise[0], shared + self.seed_effects + refit_noise

    def average(self, logits: np.ndarray) -> Predictions:
        """The average of members with logits [n_seeds, n_examples]."""
        without_one = np.stack([np.delete(logits, i, axis=0).mean(axis=0) for i in range(len(logits))])
        whole = logits.mean(axis=0, keepdims=True)
        return Predictions(chances_of(whole > self.loss), chances_of(without_one > self.loss), trainings="same")


def trained_once(logits: np.ndarray, paired: bool = False) -> Predictions:
    return Predictions(chances_of(logits > 0), trainings="same" if paired else "other")


OTHERS = ("other recipe averaged", "other recipe once", "same recipe once")


def share_better(comparisons: int, seeds: int, between_seeds: float, other: str, refit: bool) -> float:
    """How often what is delivered of the best of three recipes is called better than one of OTHERS that is as good.

    The best is chosen on validation, and so is its form. The other recipe is a fourth one.
    """
    generator = np.random.default_rng(int(1000 * between_seeds) + seeds)
    labels, result = np.ones(300, dtype=int), 0
    for number in range(comparisons):
        world = Simulated(generator, seeds, between_seeds, equal_forms=other != OTHERS[0])
        validation, _ = world.split(300)
        test, refits = world.split(300)
        winner = int((validation[:3] > 0).mean(axis=(1, 2)).argmax())
        members = chances_of(validation[winner] > 0)
        if decision.is_shown_worse(labels, world.average(validation[winner]).probabilities[0], members, "accuracy"):
            delivered = trained_once(test[winner], paired=True)
        else:
            delivered = world.average(test[winner])
            if refit:
                delivered = replace(world.average(refits[winner]), trainings="refits")
        compared = {
            OTHERS[0]: replace(world.average(test[3]), trainings="other"),
            OTHERS[1]: trained_once(test[3]),
            OTHERS[2]: trained_once(test[winner], paired=True),
        }
        answers = {"delivered": delivered, "other": compared[other]}
        bootstrap = PairedBootstrap(labels, answers, draws=200, seed=number)
        difference = bootstrap.difference("delivered", "other", "accuracy", among=3)
        question = Hypothesis("delivered", ("other",), "accuracy", 0.0, 3)
        interval = Interval(difference.value, difference.low, difference.high)
        enough = bootstrap.differ_on_enough_examples("delivered", "other", "accuracy", among=3)
        result += decision.decide(question, interval, enough) == BETTER
    return result / comparisons


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_forms_that_are_equal_are_called_better_in_at_most_one_of_forty_comparisons(other: str, refit: bool) -> None:
    assert share_better(400, 5, 0.2, other, refit) <= 0.025


@pytest.mark.heavy
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("between_seeds", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seeds", [4, 5, 10])
def test_equal_forms_over_many_kinds_of_data(seeds: int, between_seeds: float, other: str, refit: bool) -> None:
    assert share_better(2000, seeds, between_seeds, other, refit) <= 0.025


def test_what_averaging_gives_is_seen() -> None:
    """The same recipe trained once and averaged: the errors of trainings cancel. Pairing on seeds shows it."""
    world = Simulated(np.random.default_rng(5), 5, 0.2, equal_forms=False)
    single, _ = world.split(6000)
    paired = {"average": world.average(single[0]), "once": trained_once(single[0], paired=True)}
    apart = {"average": world.average(single[0]), "once": trained_once(single[0])}
    labels = np.ones(6000, dtype=int)
    found, wide = (
        PairedBootstrap(labels, a, draws=400).difference("average", "once", "accuracy") for a in (paired, apart)
    )
    assert found.low > 0
    assert found.value == wide.value
    assert wide.high - wide.low > 2 * (found.high - found.low)
