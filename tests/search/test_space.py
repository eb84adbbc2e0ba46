"""The space: what YAML means, and what the lint says of it."""

import re

import pytest

from src.config.groups import group_options
from src.core.errors import InvalidInput
from src.search import validate
from src.search.space import build_space, parse_space
from tests.support.data import settings_of

BASE = {"trainer.num_train_epochs": 3, "optimizer.weight_decay": 0.01, "optimizer.optim": "adamw_torch_fused"}


def one(**leaf: object) -> str:
    return str(parse_space({"trainer": {"num_train_epochs": leaf}}, BASE).parameters[0])


def test_both_ends_of_an_integer_range_count() -> None:
    (parameter,) = parse_space({"trainer": {"num_train_epochs": {"low": 1, "high": 4}}}, BASE).parameters
    assert parameter.values() == [1, 2, 3, 4]


def test_whole_numbers_for_a_float_setting_make_a_float_range() -> None:
    (parameter,) = parse_space({"optimizer": {"weight_decay": {"low": 0, "high": 1}}}, BASE).parameters
    assert type(parameter.distribution).__name__ == "FloatDistribution"


def test_a_group_and_a_key_of_it_can_both_be_searched() -> None:
    tree = {"model": {"choices": ["tiny", "minilm"], "dropout": {"low": 0.0, "high": 0.3, "step": 0.1}}}
    assert [p.key for p in parse_space(tree, {}).parameters] == ["model", "model.dropout"]


def test_a_group_whose_keys_were_all_taken_out_is_no_mistake() -> None:
    tree = {"model": {}, "optimizer": {"weight_decay": {"low": 0.0, "high": 0.1}}}
    assert [p.key for p in parse_space(tree, BASE).parameters] == ["optimizer.weight_decay"]
    with pytest.raises(InvalidInput, match=r"space\.optimizer\.learning_rate is empty"):
        parse_space({"optimizer": {"learning_rate": {}}}, BASE)


def test_conditions_hold_a_parameter_back_and_come_after_their_parent() -> None:
    tree = {
        "optimizer": {
            "adam_beta2": {"low": 0.9, "high": 0.99, "step": 0.09, "when": {"optimizer.optim": "adamw_torch"}},
            "optim": {"choices": ["sgd", "adamw_torch"]},
        }
    }
    space = parse_space(tree, BASE)
    assert [p.key for p in space.parameters] == ["optimizer.optim", "optimizer.adam_beta2"]
    assert list(space.points()) == [
        {"optimizer.optim": "sgd"},
        {"optimizer.optim": "adamw_torch", "optimizer.adam_beta2": 0.9},
        {"optimizer.optim": "adamw_torch", "optimizer.adam_beta2": 0.99},
    ]


@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        ({"low": 4, "high": 1}, "low 4 is above high 1."),
        ({"low": 1}, "high has no value; a range needs low and high (or choices)."),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "log and step do not go together; give choices instead."),
        ({"low": 0, "high": 9, "log": True}, "log needs a low above 0; it is 0."),
        ({"low": 1, "high": 4, "step": 2}, "high 4 is not low 1 plus a whole number of steps of 2; both ends count."),
        ({"low": 1, "high": 4, "step": 0}, "step is 0; it is above 0."),
        ({"low": "a", "high": 4}, "low is 'a'; it is a number."),
        ({"low": 1, "high": float("inf")}, "high is inf; it is a number."),
        ({"choices": []}, "choices is []; it is a list of at least one value."),
        ({"choices": [1, 1]}, "choices [1, 1] names a value twice."),
        ({"choices": [[1]]}, "choices holds [1]; choices are numbers, words, true, false or null."),
    ],
)
def test_a_bad_range_is_refused(leaf: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        one(**leaf)
    assert str(caught.value) == f"space.trainer.num_train_epochs: {says}"


def test_choices_replace_the_range_of_the_config_but_not_one_that_was_typed() -> None:
    choices = "+space.optimizer.learning_rate.choices=[1e-5,3e-5]"
    space = build_space(settings_of(choices))
    assert space.describe()["optimizer.learning_rate"] == "1e-05 | 3e-05"
    with pytest.raises(InvalidInput, match="choices and low do not go together; give one of them"):
        build_space(settings_of(choices, "space.optimizer.learning_rate.low=1e-6"))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "3.33e-05 .. 0.0003, log"),
        (["model.learning_rate=6e-4"], "0.0002 .. 0.0018, log"),
        (["optimizer.learning_rate=2e-5", "space.optimizer.learning_rate.factor=10"], "2e-06 .. 0.0002, log"),
        (["space.optimizer.learning_rate.high=1e-4"], "3.33e-05 .. 0.0001, log"),
        (["space.optimizer.learning_rate.low=1e-5", "space.optimizer.learning_rate.factor=null",
          "space.optimizer.learning_rate.high=1e-3"], "1e-05 .. 0.001, log"),
        (["+space.optimizer.learning_rate.choices=[1e-5,1e-4]"], "1e-05 | 0.0001"),
        (["space=wide"], "1e-05 .. 0.0003, log"),
    ],
)  # fmt: skip
def test_a_factor_gives_the_ends_that_have_no_value(overrides: list[str], says: str) -> None:
    assert build_space(settings_of(*overrides)).describe()["optimizer.learning_rate"] == says


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"optimizer": {"weight_decay": {"factor": 1}}}, "factor is 1; it is a number above 1."),
        ({"optimizer": {"weight_decay": {"factor": "two"}}}, "factor is 'two'; it is a number above 1."),
        ({"optimizer": {"optim": {"factor": 2}}}, "factor needs a config value above 0 to multiply; it is"),
        ({"optimizer": {"weight_decay": {"factor": None}}}, "low and high has no value"),
    ],
)
def test_a_bad_factor_is_refused(tree: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        parse_space(tree, BASE)


def test_a_recipe_at_the_edge_of_its_space_is_said() -> None:
    settings = settings_of("space=wide")
    (warning,) = validate.check_study(settings, build_space(settings), group_options())
    assert warning == (
        "The default recipe is at the edge of the space: trainer.num_train_epochs=4 is the highest value of 1 .. 4."
    )
    settings = settings_of()
    assert validate.check_study(settings, build_space(settings), group_options()) == []


def test_a_circle_of_conditions_is_refused() -> None:
    tree = {"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}}
    with pytest.raises(InvalidInput, match="depend on each other"):
        parse_space(tree, {})


def test_the_lint_names_samplers_that_fall_back_to_random() -> None:
    condition = "+space.optimizer.adam_beta2={low: 0.9, high: 0.9999, when: {trainer.num_train_epochs: [3, 4]}}"
    for sampler, name in {"gp": "GP", "qmc": "QMC", "cmaes": "CMA-ES"}.items():
        settings = settings_of(condition, f"sampler={sampler}")
        warnings = validate.check_study(settings, build_space(settings), group_options())
        assert warnings == [f"{name} samples conditional parameters at random: optimizer.adam_beta2."]


def test_a_default_recipe_outside_the_space_is_said() -> None:
    settings = settings_of("space.optimizer.learning_rate.high=5e-5")
    (warning,) = validate.check_study(settings, build_space(settings), group_options())
    assert warning.startswith(
        "The default recipe lies outside the space, so it is not trial 0: optimizer.learning_rate"
    )
