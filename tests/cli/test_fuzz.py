"""Whatever comes in, a InvalidInput comes out, or what was asked for: never another exception."""

import math
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.config.groups import CONF_DIR
from src.config.groups import group_options as options
from src.config.reader import read_settings
from src.core.errors import InvalidInput
from src.core.records import Calibration, Evaluation, Record, TimelineEntry, TrainingResult, TrialRecord, WeightChange
from src.data import loading, splits
from src.data import validate as data_validate
from src.search import space, validate
from src.training import arguments
from tests.support.data import settings_of, write_rows

Examples = pytest.mark.parametrize
WORDS = st.sampled_from(
    ["low", "high", "log", "step", "choices", "when", "model", "optimizer", "trainer", "schedule", "learning_rate",
     "weight_decay", "dropout", "num_train_epochs", "adam_beta1", "optim", "lr_scheduler_type", "seed", "data", "colour"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.integers(-3, 9), st.floats(), st.floats(0, 1),
    st.text(max_size=6), WORDS,
)  # fmt: skip
LEAVES = st.fixed_dictionaries(
    {}, optional={"low": SCALARS, "high": SCALARS, "log": SCALARS, "step": SCALARS,
                  "choices": st.one_of(SCALARS, st.lists(SCALARS, max_size=4)),
                  "when": st.dictionaries(st.sampled_from(["optimizer.optim", "model.dropout", "x.y"]), SCALARS, max_size=2)},
)  # fmt: skip
TREES = st.dictionaries(
    st.one_of(WORDS, st.text(max_size=4)),
    st.recursive(st.one_of(SCALARS, LEAVES), lambda inner: st.dictionaries(WORDS, inner, max_size=3), max_leaves=8),
    max_size=4,
)


def fuzzed(check: Callable[[Any], object], what: st.SearchStrategy[Any], examples: int) -> None:
    """`check` with so many examples: the same ones for a few, new ones each time for many."""
    run = settings(
        max_examples=examples, deadline=None, derandomize=examples <= 500, suppress_health_check=list(HealthCheck),
        database=None, print_blob=True,
    )(given(what)(check))  # fmt: skip
    run()


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.heavy)])
def test_spaces(examples: int) -> None:
    own = settings_of()
    base = space.base_values(own)

    def check(tree: Any) -> None:
        try:
            result = space.parse_space(tree, base)
        except InvalidInput:
            return
        for parameter in result.parameters:
            assert str(parameter)
            ends = parameter.bounds()
            assert all(not isinstance(end, float) or math.isfinite(end) or isinstance(end, bool) for end in ends) or (
                parameter.values() is not None
            )
            assert all(parameter.contains(end) for end in ends)
        try:
            validate.check_study(own, result, options())
        except InvalidInput:
            return

    fuzzed(check, TREES, examples)


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", return_hydra_config=True)


@pytest.mark.parametrize("examples", [200, pytest.param(800, marks=pytest.mark.heavy)])
def test_overrides(examples: int, composed: DictConfig) -> None:
    own = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(own, dict)
    groups = ["data", "model", "optimizer", "schedule", "trainer", "study", "storage", "tracking", "worker"]
    keys = [f"{group}.{key}" for group in groups for key in own[group]]
    keys += ["seed", "workers", "study", "space", "data.colour", "trainer.colour", "data.carve.test.size", "sampler"]
    values = st.one_of(
        SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(WORDS, SCALARS, max_size=3),
        st.sampled_from([0, -1, 1.5, "", "../x", "auto", "${data.name}", "${nothing}", "???", "cpu", [0.5, 1.0], [1, "a"]]),
    )  # fmt: skip

    def check(pairs: Any) -> None:
        cfg = composed.copy()
        try:
            with open_dict(cfg):
                for key, value in pairs:
                    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, AssertionError):
            return  # Hydra's own border: such an override does not get past its parser
        try:
            result = read_settings(cfg)
            arguments.check_arguments(result.recipe)
            data_validate.check_data_settings(result.data)
            validate.check_study(result, space.build_space(result), options())
        except InvalidInput:
            return

    fuzzed(check, st.lists(st.tuples(st.sampled_from(keys), values), min_size=1, max_size=3), examples)


RECORDS = [Evaluation, TrainingResult, TrialRecord, TimelineEntry, WeightChange, Calibration]
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(), "float": st.floats(allow_nan=False), "str": st.text(), "bool": st.booleans(),
    "tuple[str, ...]": st.lists(st.text(), max_size=3).map(tuple),
    "tuple[float, ...]": st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
    "Mapping[str, float]": st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
    "Mapping[str, Any]": st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none()), max_size=3),
}  # fmt: skip


def record_of(kind: type[Record]) -> st.SearchStrategy[Any]:
    def strategy(name: str, written: str) -> st.SearchStrategy[Any]:
        if (kind, name) == (Evaluation, "share"):
            return st.floats(0, 1, exclude_min=True)
        plain = PLAIN[written.removesuffix(" | None")]
        return st.one_of(st.none(), plain) if written.endswith("| None") else plain

    if kind is TrialRecord:
        PLAIN["TrainingResult"] = record_of(TrainingResult)
    given_ = {f.name: strategy(f.name, f.type if isinstance(f.type, str) else _written(f.type)) for f in fields(kind)}
    return st.builds(kind, **given_)


def _written(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return text.replace("collections.abc.", "").replace("typing.", "")


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.heavy)])
def test_records_come_back_equal(examples: int) -> None:
    def check(record: Any) -> None:
        assert type(record).from_json(record.to_json()) == record

    fuzzed(check, st.one_of([record_of(kind) for kind in RECORDS]), examples)


CELLS = st.one_of(
    st.sampled_from(["good film", "bad film", "0", "1", "yes", "no", "", " ", "-1", '"', "a,b", "\x00", "é"]),
    st.text(max_size=8),
)
CSV = st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=12).map(
    lambda rows: "\n".join(",".join(row) for row in [["text", "label"], *rows]).encode(errors="surrogatepass")
)
JSON = st.lists(
    st.dictionaries(st.sampled_from(["text", "label", "x"]), st.one_of(CELLS, SCALARS), max_size=3), max_size=8
)


def _json_bytes(rows: Any) -> bytes:
    import json

    return "\n".join(json.dumps(row) for row in rows).encode(errors="surrogatepass")


FILES = st.one_of(
    st.tuples(st.just("reviews.csv"), st.one_of(CSV, st.binary(max_size=60))),
    st.tuples(st.just("reviews.jsonl"), st.one_of(JSON.map(_json_bytes), st.binary(max_size=60))),
    st.tuples(st.just("reviews.json"), st.one_of(JSON.map(_json_bytes), st.binary(max_size=60))),
    st.tuples(st.just("reviews.tsv"), CSV.map(lambda c: c.replace(b",", b"\t"))),
)


@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.heavy)])
def test_data_files(examples: int, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    def check(file: Any) -> None:
        name, content = file
        path = tmp_path / "data" / name
        path.write_bytes(content)
        given_ = settings_of_data(path)
        try:
            result_splits = splits.make_splits(loading.load_splits(given_), given_)
        except InvalidInput:
            return
        assert set(result_splits.train["label"]) <= {0, 1}

    fuzzed(check, FILES, examples)


def settings_of_data(path: Path) -> Any:
    """The settings of one's own file, read once."""
    import dataclasses

    return dataclasses.replace(own_data(), path=str(path))


@lru_cache
def own_data() -> Any:
    return settings_of("data=files", "data.path=x", "data.label_names=[no,yes]").data


def test_a_good_file_is_no_refusal(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "reviews.csv", [(f"review {i} of a film", ("no", "yes")[i % 2]) for i in range(40)])
    given_ = settings_of_data(path)
    result_splits = splits.make_splits(loading.load_splits(given_), given_)
    assert len(result_splits.train) + len(result_splits.validation) + len(result_splits.test) == 40
