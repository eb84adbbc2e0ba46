"""Intervals, tests and verdicts: right on known answers, and not wrong too often on contenders that are equal."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score

from src.core.metric import known_metrics
from src.core.task import MULTI_LABEL, Task
from src.reports import rendering
from src.training.metrics import score_of
from src.verdict import decision, estimates, tables
from src.verdict.bootstrap import PairedBootstrap, Predictions, mcnemar
from src.verdict.decision import Hypothesis
from src.verdict.power import Power, deciding_examples
from src.verdict.records import BETTER, ContenderRecord, Interval, PairwiseResult, SeedRunRecord, Verdict
from tests.support.predictions import chances_of

TASKS = {n: Task(tuple("abcd"[:n])) for n in (2, 4)}
SEVERAL = Task(("a", "b", "c"), kind=MULTI_LABEL)


def simulated(
    generator: np.random.Generator,
    shape: tuple[int, int, int],
    between_seeds: float,
    better: float = 0.0,
    fails: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong on validation and test, [n_recipes, n_seeds, n_examples] each; the last recipe is the reference.

    `shape`: recipes, seeds, test examples. Examples differ in difficulty, each recipe finds some of them harder, each
    seed is as good or bad on both splits.
    """
    recipes, seeds, examples = shape
    seed = generator.normal(0, between_seeds, (recipes, seeds, 1))
    seed -= 3.0 * (generator.random((recipes, seeds, 1)) < fails)  # seeds from which a training collapses
    lead = np.full((recipes, 1, 1), better)
    lead[-1] = 0.0

    def split(n: int) -> np.ndarray:
        difficulty = generator.normal(0, 2.0, n) + generator.normal(0, 0.5, (recipes, 1, n))
        return 1.3 + difficulty + seed + lead + generator.normal(0, 1, (recipes, seeds, n)) > 0

    return split(300), split(examples)


def share_better(
    comparisons: int, seeds: int, between_seeds: float, examples: int = 300, better: float = 0.0, fails: float = 0.0
) -> float:
    """How often the best of three on validation is called better than the fourth on test."""
    generator = np.random.default_rng(int(1000 * between_seeds) + seeds)
    labels, result = np.ones(examples, dtype=int), 0
    for number in range(comparisons):
        validation, test = simulated(generator, (4, seeds, examples), between_seeds, better, fails)
        winner = int(validation[:3].mean(axis=(1, 2)).argmax())
        answers = {"winner": Predictions(chances_of(test[winner])), "default": Predictions(chances_of(test[3]))}
        draws = PairedBootstrap(labels, answers, draws=200, seed=number)
        difference = draws.difference("winner", "default", "accuracy", among=3)
        question = Hypothesis("winner", ("default",), "accuracy", 0.0, 3)
        result += decision.decide(question, Interval(difference.value, difference.low, difference.high)) == "better"
    return result / comparisons


@pytest.mark.parametrize(("seeds", "between_seeds"), [(5, 0.0), (5, 0.2), (5, 1.0), (4, 0.2)])
def test_equal_contenders_are_called_better_in_at_most_one_of_forty_comparisons(
    seeds: int, between_seeds: float
) -> None:
    assert share_better(1000, seeds, between_seeds) <= 0.025


@pytest.mark.parametrize(("seeds", "fails"), [(4, 0.5), (5, 0.3)])
def test_equal_contenders_that_collapse_on_some_seeds(seeds: int, fails: float) -> None:
    assert share_better(1000, seeds, 0.05, fails=fails) <= 0.025


@pytest.mark.heavy
@pytest.mark.parametrize("between_seeds", [0.0, 0.1, 0.2, 1.0])
@pytest.mark.parametrize(("seeds", "examples"), [(4, 600), (5, 600), (10, 600), (5, 100)])
def test_equal_contenders_over_many_kinds_of_data(seeds: int, examples: int, between_seeds: float) -> None:
    assert share_better(2000, seeds, between_seeds, examples) <= 0.025


def test_a_large_difference_is_seen_and_a_margin_is_kept() -> None:
    assert share_better(100, 5, 0.1, better=0.8) > 0.9
    question = Hypothesis("a", ("b",), "accuracy", 0.02, 1)
    assert decision.decide(question, Interval(0.03, 0.01, 0.05)) == "not shown"
    assert decision.decide(question, Interval(0.05, 0.021, 0.08)) == "better"
    assert decision.decide(question, Interval(-0.05, -0.08, -0.01)) == "worse"


def test_of_a_loss_less_is_better() -> None:
    question = Hypothesis("a", ("b",), "loss", 0.0, 1)
    assert decision.decide(question, Interval(-0.2, -0.3, -0.1)) == "better"
    assert decision.decide(question, Interval(0.2, 0.1, 0.3)) == "worse"
    assert decision.best_name({"a": 0.3, "b": 0.2}, "loss") == "b"
    assert decision.best_name({"a": 0.3, "b": 0.3, "c": 0.1}, "accuracy") == "a"


def test_intervals_cover_the_truth_and_widen_with_the_seeds_spread() -> None:
    generator = np.random.default_rng(0)
    labels = np.ones(400, dtype=int)
    calm, wild = (generator.random((5, 400)) < 0.8 + shift[:, None]
                  for shift in (np.zeros(5), np.array([-0.15, -0.08, 0.0, 0.08, 0.15])))  # fmt: skip
    draws = PairedBootstrap(labels, {"calm": Predictions(chances_of(calm)), "wild": Predictions(chances_of(wild))})
    one, two = draws.estimate("calm", "accuracy"), draws.estimate("wild", "accuracy")
    assert one.low < 0.8 < one.high
    assert two.high - two.low > 3 * (one.high - one.low)
    assert (
        draws.difference("calm", "wild", "accuracy", among=3).error
        == draws.difference("calm", "wild", "accuracy").error
    )
    narrow, wide = draws.difference("calm", "wild", "accuracy"), draws.difference("calm", "wild", "accuracy", among=3)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("right", [0.97, 0.8, 0.5])
def test_intervals_of_few_examples_cover_the_truth(right: float) -> None:
    generator, covered = np.random.default_rng(4), 0
    labels = np.ones(60, dtype=int)
    for number in range(300):
        hits = generator.random((5, 60)) < right
        result = PairedBootstrap(labels, {"one": Predictions(chances_of(hits))}, draws=200, seed=number).estimate(
            "one", "accuracy"
        )
        covered += result.low <= right <= result.high
    assert covered / 300 > 0.92


def test_no_errors_are_no_certainty() -> None:
    result = PairedBootstrap(np.ones(60, dtype=int), {"one": Predictions(chances_of(np.ones((5, 60))))}).estimate(
        "one", "accuracy"
    )
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == pytest.approx(0.025 ** (1 / 60))


def test_macro_averages_are_over_the_labels_that_come() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.eye(3)[np.array([[0, 0, 1, 1]])]
    assert estimates.metrics_per_seed(labels, probabilities)["f1_macro"][0] == 1.0
    wanted = f1_score(labels, [0, 2, 1, 1], average="macro", zero_division=0)
    assert estimates.metrics_per_seed(labels, np.eye(3)[np.array([[0, 2, 1, 1]])])["f1_macro"][0] == pytest.approx(
        wanted
    )


def test_a_single_predictor_has_the_binomial_interval() -> None:
    labels = np.ones(500, dtype=int)
    hits = np.arange(500) % 10 != 0
    result = PairedBootstrap(labels, {"one": Predictions(chances_of(hits)[None])}, draws=4000).estimate(
        "one", "accuracy"
    )
    reach = 1.965 * np.sqrt(0.9 * 0.1 / 500)
    assert result.value == 0.9
    assert result.high - result.low == pytest.approx(2 * reach, rel=0.05)


def assert_draws_are_those_of_their_examples(
    name: str, labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray, draws: Iterable[int]
) -> None:
    """The metric of weighted draws is scikit-learn's of examples that are repeated as often as they weigh."""
    weighted = estimates.weighted_metrics(labels, probabilities, counts, [name])[name]
    for draw in draws:
        rows = np.repeat(np.arange(len(labels)), counts[draw].astype(int))
        for seed in range(len(probabilities)):
            wanted = score_of(name, labels[rows], probabilities[seed, rows])
            assert weighted[draw, seed] == pytest.approx(wanted), (draw, seed)
    assert estimates.metrics_per_seed(labels, probabilities, name)[name] == pytest.approx(weighted[0])


def intervals_that_miss(
    metric: str, sample: Callable[[int], tuple[np.ndarray, np.ndarray]], everything: int, size: int
) -> int:
    """Of 200 samples of a size, how many have an interval that misses the value of a sample of `everything`."""
    labels, probabilities = sample(everything)
    true = estimates.metrics_per_seed(labels, probabilities, metric)[metric][0]
    missed = 0
    for number in range(200):
        labels, probabilities = sample(size)
        bootstrap = PairedBootstrap(labels, {"one": Predictions(probabilities)}, 200, number, metric)
        interval = bootstrap.estimate("one", metric)
        missed += not interval.low <= true <= interval.high
    return missed


@pytest.mark.parametrize("name", known_metrics(SEVERAL))
def test_every_metric_of_a_draw_of_texts_with_several_labels_is_scikit_learns(name: str) -> None:
    generator = np.random.default_rng(5)
    labels = (generator.random((60, 3)) < (0.5, 0.3, 0.1)).astype(int)
    probabilities = generator.random((3, 60, 3)).round(1) * 0.96 + 0.02
    counts = generator.integers(0, 4, (5, 60)).astype(float)
    counts[0] = 1
    counts[1, labels[:, 2] == 1] = 0  # a draw without a label
    assert_draws_are_those_of_their_examples(name, labels, probabilities, counts, range(5))


@pytest.mark.parametrize("metric", ["accuracy", "f1_micro", "f1_macro", "f1_samples", "average_precision"])
def test_intervals_of_texts_with_several_labels_hold_the_true_value(metric: str) -> None:
    """200 samples of 400 texts, whose labels go together: the interval misses the value in 5 %, give or take."""
    generator = np.random.default_rng(6)

    def sample(size: int) -> tuple[np.ndarray, np.ndarray]:
        topic = generator.normal(size=(size, 1))
        labels = (topic + generator.normal(size=(size, 3)) > (0.0, 0.5, 1.5)).astype(int)
        return labels, expit(generator.normal(2.5 * labels - 1.2, 1.0))[None]

    assert intervals_that_miss(metric, sample, 200_000, 400) <= 22  # of 200; 5 % are 10


@pytest.mark.parametrize("metric", ["accuracy", "f1_micro", "f1_macro", "average_precision"])
def test_equal_models_of_several_labels_are_called_better_in_at_most_one_of_forty(metric: str) -> None:
    generator, shown = np.random.default_rng(7), 0
    for number in range(200):
        labels = (generator.random((300, 3)) < (0.5, 0.3, 0.1)).astype(int)
        hard = generator.normal(size=(1, 300, 3))  # what is hard is hard for both
        answers = {
            name: Predictions(expit(2.5 * labels - 1.2 + hard + generator.normal(size=(4, 300, 3)) * 0.5))
            for name in ("one", "two")
        }
        bootstrap = PairedBootstrap(labels, answers, 200, number, metric)
        question = Hypothesis("one", ("two",), metric, 0.0, 1)
        registered = {name: each.probabilities[0] for name, each in answers.items()}
        (result,) = decision.compare_with_others(bootstrap, question, labels, registered)
        shown += result.verdict == BETTER
    assert shown <= 12  # of 200; 2.5 % are 5


@pytest.mark.parametrize(("n_labels", "name"), [(n, name) for n in (2, 4) for name in known_metrics(TASKS[n])])
def test_every_metric_of_a_draw_is_scikit_learns_of_its_examples(n_labels: int, name: str) -> None:
    generator = np.random.default_rng(n_labels)
    labels = generator.integers(0, n_labels, 60)
    probabilities = generator.dirichlet(np.ones(n_labels), (3, 60))
    if name != "top_k_accuracy":  # where scikit-learn orders equal scores by their label
        probabilities = probabilities.round(1) * 0.96 + 0.04 / n_labels
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    counts = generator.integers(0, 4, (5, 60)).astype(float)
    counts[0] = 1
    counts[1, labels == 1] = 0  # a draw without a label
    is_of_frequencies = name.startswith("d2") and n_labels == 2  # not defined where all examples have one label
    draws = (0, 2, 3, 4) if is_of_frequencies else range(5)
    assert_draws_are_those_of_their_examples(name, labels, probabilities, counts, draws)


@pytest.mark.parametrize(
    "metric", ["average_precision", "roc_auc", "matthews_corrcoef", "balanced_accuracy", "f1_macro"]
)
def test_intervals_of_a_rare_label_hold_the_true_value(metric: str) -> None:
    """200 samples of 600 texts, of which 5 % have the label: the interval misses the value in 5 %, give or take."""
    generator = np.random.default_rng(3)

    def sample(size: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (generator.random(size) < 0.05).astype(int)
        positive = expit(generator.normal(3.2 * labels - 2.2, 1.0))
        return labels, np.stack([1 - positive, positive], axis=1)[None]

    assert intervals_that_miss(metric, sample, 400_000, 600) <= 22  # of 200; 5 % are 10


def test_a_ranking_of_few_positives_shows_nothing() -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat([1, 0], [5, 500])
    better, worse = (np.where(labels == 1, high, generator.random(505)) for high in (1.1, 0.2))
    answers = {n: Predictions(np.stack([-s, s], axis=1)[None]) for n, s in (("better", better), ("worse", worse))}
    bootstrap = PairedBootstrap(labels, answers, metric="average_precision")
    assert bootstrap.difference("better", "worse", "average_precision").low > 0
    assert not bootstrap.differ_on_enough_examples("better", "worse", "average_precision")
    labels[:12] = 1
    assert PairedBootstrap(labels, answers, metric="average_precision").differ_on_enough_examples(
        "better", "worse", "average_precision"
    )


def test_mcnemar_counts_who_alone_was_right() -> None:
    labels = np.ones(20, dtype=int)
    first = np.array([1] * 12 + [0] * 2 + [1] * 6)
    second = np.array([0] * 12 + [1] * 2 + [1] * 6)
    result = mcnemar(labels, chances_of(first), chances_of(second))
    assert (result.only_first, result.only_second) == (12, 2)
    assert result.p == pytest.approx(0.01293945, rel=1e-5)  # two-sided binomial of 2 in 14
    assert mcnemar(labels, chances_of(first), chances_of(first)).p == 1.0


def test_the_median_repeat_is_the_lower_one_of_two() -> None:
    assert decision.median_index([0.5, 0.9, 0.7]) == 2
    assert decision.median_index([0.5, 0.9, 0.7, 0.8]) == 2


def test_what_can_be_shown_is_what_simulation_shows() -> None:
    """The plan's promise against the whole procedure, on data whose spreads are the ones it supposes."""
    generator, seeds, examples = np.random.default_rng(3), 5, 599
    _, test = simulated(generator, (400, 2, 600), 0.15)
    score = float(test.mean())
    power = Power(examples, seeds, score, 3)
    assert power.probability(power.smallest_difference()) == pytest.approx(0.8, abs=0.01)
    assert power.probability(power.smallest_difference() / 3) < 0.3
    more = power.examples_and_seeds_for(power.smallest_difference() / 2)
    assert more is not None
    assert more.examples > examples
    assert more.smallest_difference() <= power.smallest_difference() / 2
    assert f"{power.smallest_difference() * 100:.1f} points" in power.describe()
    assert (
        Power(599, 5, 0.83, 3).smallest_difference()
        > Power(599, 10, 0.83, 3).smallest_difference()
        > Power(5990, 10, 0.83, 3).smallest_difference()
    )


@pytest.mark.parametrize(
    ("metric", "counts", "examples"),
    [
        ("accuracy", [500, 100], 600), ("f1", [500, 100], 100), ("recall", [500, 100], 100), ("f1", [], 600),
        ("f1_macro", [200, 200, 200], 600), ("f1_macro", [295, 295, 10], 84), ("f1_macro", [300, 300, 0], 600),
    ],
)  # fmt: skip
def test_a_metric_rests_on_the_examples_that_decide_it(metric: str, counts: list[int], examples: int) -> None:
    assert deciding_examples(metric, 600, counts) == examples


def test_the_power_for_f1_of_a_rare_label_is_that_of_its_examples() -> None:
    """The spread of f1 over samples of the same classifier is that of as many examples as the label has."""
    generator, n, rare = np.random.default_rng(0), 2000, 0.05
    accuracy, f1 = [], []
    for _ in range(400):
        labels = (generator.random(n) < rare).astype(int)
        predicted = np.where(generator.random(n) < np.where(labels == 1, 0.7, 0.985), labels, 1 - labels)
        accuracy.append((labels == predicted).mean())
        f1.append(f1_score(labels, predicted))
    assert np.std(f1) > 8 * np.std(accuracy)
    expected = Power(deciding_examples("f1", n, [round(n * (1 - rare)), round(n * rare)]), 5, float(np.mean(f1)))
    of_one = np.sqrt(expected.score * (1 - expected.score) / expected.examples)
    assert 0.5 < np.std(f1) / of_one < 1.5


def example() -> Verdict:
    interval = Interval(0.8, 0.75, 0.85)
    repeats = (SeedRunRecord(7, "r7", {"accuracy": 0.81}, {"accuracy": 0.8}),)
    shared = {"accuracy": interval, "f1": interval, "loss": interval}
    return Verdict(
        number=1, study="s|1", uid="u", key="k", made="2026-01-01T00:00:00+0000", data="starter",
        fingerprints={"test": "abc"}, registry="starter", metric="accuracy", direction="maximize", margin=0.0,
        seeds=(7, 8, 9), test_examples=100, chosen_among=2,
        contenders=(
            ContenderRecord("tfidf", "baseline", "b", "", {}, None, 0.7, None, None, None, (), dict(shared)),
            ContenderRecord("default", "default", "d", "trial 0", {"a.lr": 1e-4}, 0.9, 0.79, 0.01, 0.11, 7, repeats,
                            dict(shared)),
            ContenderRecord("trial-3", "tuned", "t3", "trial 3", {"a.lr": 2e-4}, 0.85, 0.82, 0.01, 0.03, 7, repeats,
                            dict(shared)),
            ContenderRecord("trial-5", "tuned", "t5", "trial 5", {"a.lr": 3e-4}, 0.86, 0.8, 0.01, 0.06, 8, repeats, {}),
        ),
        winner="trial-3", best_baseline="tfidf",
        against=(
            PairwiseResult("tfidf", "accuracy", Interval(0.1, 0.05, 0.15), "better", 12, 2, 0.013),
            PairwiseResult("default", "accuracy", Interval(0.01, -0.02, 0.04), "not shown", 5, 4, 1.0),
        ),
        opening=2, openings=2, champion=None, champion_key="", notes=("the <study> is not over",),
        not_judged=(("majority", "was not evaluated"),), limits=("Few test examples have the label high (5)",),
    )  # fmt: skip


def test_a_verdict_survives_json_and_names_the_searchs_top() -> None:
    verdict = example()
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert verdict.search_top == "default"
    assert verdict.contender("trial-5").test == {}


def test_the_tables_say_it_all() -> None:
    verdict = example()
    text = tables.to_markdown(verdict)
    assert (
        "trial-3 against the default recipe trained once: NOT SHOWN (+0.0100 [-0.0200, +0.0400] accuracy). Not "
        "compared with the baseline majority, which was not evaluated. Few test examples have the label high (5)."
    ) in text
    assert "trial-3 against the best baseline, tfidf: BETTER (+0.1000 [+0.0500, +0.1500] accuracy)." in text
    assert "the best in the search was default" in text
    assert "optimism of the search: +0.0300" in text
    assert "This test split has been opened 2 times." in text
    assert "| trial-3 * | 0.8500 | 0.8200 | 0.0100 | +0.0300 |" in text
    assert "0.8000 [0.7500, 0.8500]" in text
    page = rendering.to_html(text, "Verdict", {})
    assert "the &lt;study&gt; is not over" in page
    assert page.count("trial-3 *</td>") == 2
    assert "http" not in page  # self-contained


@pytest.mark.parametrize("metric", ["recall", "f1", "precision"])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_equal_predictors_of_a_rare_label_are_rarely_called_different(metric: str, share: float) -> None:
    generator, wrong, times = np.random.default_rng(7), 0, 200
    for number in range(times):
        labels = (np.arange(200) < 200 * share).astype(int)
        hard = generator.normal(0, 1.0, 200)
        result = {
            name: np.where(labels == 1, 1.0, -1.5) + hard + generator.normal(0, 1.0, (1, 200))
            for name in ("one", "two")
        }
        answers = {name: Predictions(chances_of(expit(values))) for name, values in result.items()}
        draws = PairedBootstrap(labels, answers, draws=200, seed=number)
        difference = draws.difference("one", "two", metric)
        decided = decision.decide(
            Hypothesis("one", ("two",), metric, 0.0, 1),
            Interval(difference.value, difference.low, difference.high),
            draws.differ_on_enough_examples("one", "two", metric),
        )
        wrong += decided == "better"
    assert wrong / times <= 0.025 + 0.02  # two standard errors of 200 times


def test_two_examples_show_nothing() -> None:
    labels = (np.arange(300) < 2).astype(int)
    right, never = labels.astype(float), np.zeros(300)
    answers = {"right": Predictions(chances_of(right)[None]), "never": Predictions(chances_of(never)[None])}
    draws = PairedBootstrap(labels, answers)
    assert draws.difference("right", "never", "recall").low < 0  # t with one degree of freedom
    assert not draws.differ_on_enough_examples("right", "never", "recall")
    exact = draws.estimate("right", "recall")
    assert (exact.low, exact.high) == pytest.approx((0.025**0.5, 1.0))  # two of two, exact binomial


def test_how_many_examples_tell_two_apart() -> None:
    labels = np.array([1, 1, 0, 0])
    first = chances_of(np.array([[1, 1, 0, 0], [1, 0, 0, 0]]))
    second = chances_of(np.array([[0, 0, 0, 1]]))
    assert estimates.n_differing_examples("accuracy", labels, first, second) == pytest.approx(2.5)
    assert estimates.n_differing_examples("f1", labels, first, second) == pytest.approx(2.5)
    assert estimates.n_differing_examples("recall", labels, first, second) == pytest.approx(1.5)
    result = estimates.support(labels, first)
    assert result == {"accuracy": 4, "loss": 4, "f1": 2, "precision": 1, "recall": 2}


def test_no_difference_has_no_sign_of_its_own() -> None:
    assert tables.signed_interval(Interval(-1e-9, -0.00004, 0.0)) == "+0.0000 [+0.0000, +0.0000]"
    assert tables.signed_interval(Interval(-0.01, -0.02, 0.01)) == "-0.0100 [-0.0200, +0.0100]"
