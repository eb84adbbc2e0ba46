"""Settings that cannot be trained with, or that nothing reads, are found by building them."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from src.config.settings import Recipe
from src.core.errors import InvalidInput
from src.core.task import Task
from src.training import devices, pretrained
from src.training.dry_run import DryRunResult, dry_run
from src.training.pretrained import PretrainedModel
from src.workers import recipe_check
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES, DECODERS

TASK = Task(("low", "high"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    return pretrained.resolve(recipe_of().model, tmp_path_factory.mktemp("cache"))


def recipe_of(*overrides: str) -> Recipe:
    return settings_of("model=tiny", "trainer=cpu", *overrides).recipe


def tried(tiny: PretrainedModel, *overrides: str) -> DryRunResult:
    return dry_run(recipe_of(*overrides), tiny, TASK, frozenset())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optimizer.optim=grokadamw", "grokadamw"),
        ("optimizer.optim=galore_adamw", "galore"),
        ("schedule.lr_scheduler_type=cosine_with_min_lr", "Type +schedule.lr_scheduler_kwargs={min_lr_rate:0.1}"),
        ("schedule.lr_scheduler_type=warmup_stable_decay", "Type +schedule.lr_scheduler_kwargs={num_decay_steps:100}"),
        (
            "+schedule.lr_scheduler_kwargs={min_lrr:0.1}",
            "Arguments of a schedule are typed +schedule.lr_scheduler_kwargs",
        ),
        ("+trainer.fp16=true", "trainer.fp16=true would have no effect: this machine's cpu computes in fp32 with it."),
    ],
)
def test_what_cannot_be_trained_with(tiny: PretrainedModel, override: str, says: str) -> None:
    (problem,) = tried(tiny, override).problems
    assert says in problem


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=sgd"],
        ["optimizer=adafactor"],
        ["optimizer.optim=adamw_torch"],
        ["+schedule.lr_scheduler_kwargs={min_lr_rate:0.1}", "schedule.lr_scheduler_type=cosine_with_min_lr"],
        ["schedule=constant"],
        ["schedule.lr_scheduler_type=constant_with_warmup"],
        ["+trainer.gradient_checkpointing=true"],
        ["+trainer.neftune_noise_alpha=5"],
        ["trainer.bf16=true"],
        ["trainer.label_smoothing_factor=0.1", "trainer.gradient_accumulation_steps=4"],
    ],
    ids=" ".join,
)
def test_what_works_is_let_through_and_nothing_in_it_is_called_idle(
    tiny: PretrainedModel, overrides: list[str]
) -> None:
    found = tried(tiny, *overrides)
    assert (found.problems, found.idle) == ((), frozenset())
    assert "optimizer.weight_decay" in found.effective


@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        (["optimizer.optim=sgd"], {"optimizer.adam_beta1", "optimizer.adam_beta2", "optimizer.adam_epsilon"}),
        (["optimizer=adafactor", "+optimizer.adam_beta1=0.8"], {"optimizer.adam_beta1"}),
        (["schedule=constant", "+schedule.warmup_steps=0.1"], {"schedule.warmup_steps"}),
        (["+optimizer.optim_args='a=1'"], {"optimizer.optim_args"}),
    ],
)
def test_what_nothing_reads(tiny: PretrainedModel, overrides: list[str], idle: set[str]) -> None:
    assert tried(tiny, *overrides).idle == idle


def test_a_setting_that_one_of_the_searched_options_reads_is_no_mistake(tiny: PretrainedModel) -> None:
    sgd, adamw = recipe_of("optimizer.optim=sgd"), recipe_of()
    assert "optimizer.adam_beta1 would have no effect, because optimizer.optim is sgd; remove it." in (
        recipe_check.find_problems([("", sgd, tiny)], TASK)
    )
    assert recipe_check.find_problems([("", sgd, tiny), ("space.optimizer with adamw", adamw, tiny)], TASK) == []


def test_a_problem_is_a_note_where_workers_run_on_other_machines(tiny: PretrainedModel) -> None:
    candidates = [("", recipe_of("+trainer.fp16=true"), tiny)]
    with pytest.raises(InvalidInput, match=r"trainer\.fp16=true would have no effect"):
        recipe_check.check_recipes(candidates, TASK, elsewhere=False)
    (note,) = recipe_check.check_recipes(candidates, TASK, elsewhere=True)
    assert note.startswith(
        "on this machine, which may differ from the workers': trainer.fp16=true would have no effect"
    )


def test_a_problem_names_the_option_that_has_it(tiny: PretrainedModel) -> None:
    bad = recipe_of("optimizer.optim=galore_adamw")
    (problem,) = recipe_check.find_problems([("", recipe_of(), tiny), ("space.optimizer with mine", bad, tiny)], TASK)
    assert problem.startswith("space.optimizer with mine: A training with these settings ends at its first step")


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_architecture_is_tried_out_in_small(tiny: PretrainedModel, tmp_path: Path, kind: str) -> None:
    AutoConfig.for_model(kind, **ARCHITECTURES[kind]).save_pretrained(tmp_path)
    pretrained.load_tokenizer(tiny).save_pretrained(tmp_path)
    checkpoint = PretrainedModel(tmp_path, "mine", "folder", None)
    found = dry_run(recipe_of(), checkpoint, TASK, frozenset())
    if kind == "deberta" and devices.fast_precision(use_cpu=True) == "bf16":  # its masks are below what bf16 can hold
        assert "This architecture does not compute in that precision: trainer.bf16=false." in found.problems[0]
        found = dry_run(recipe_of("trainer.bf16=false"), checkpoint, TASK, frozenset())
    assert (found.problems, found.idle) == ((), frozenset())


@pytest.mark.parametrize("kind", sorted(DECODERS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_decoder_is_tried_out_in_small(tmp_path: Path, kind: str, dtype: str) -> None:
    decoder = pretrained.resolve(recipe_of("model=tiny_decoder").model, tmp_path / "cache")
    layers = {"n_layer": 5} if kind == "gpt2" else {"num_hidden_layers": 5}
    AutoConfig.for_model(
        kind, **{**DECODERS[kind], **layers, "vocab_size": 5000, "pad_token_id": 4999}
    ).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(decoder.folder).save_pretrained(tmp_path)
    checkpoint = PretrainedModel(tmp_path, "mine", "folder", None)
    recipe = recipe_of("model=tiny_decoder", "adapter=lora", f"model.dtype={dtype}")
    found = dry_run(recipe, checkpoint, TASK, frozenset())
    assert (found.problems, found.idle) == ((), frozenset())
    assert "optimizer.weight_decay" in found.effective


def test_a_tokenizer_without_padding(tmp_path: Path) -> None:
    words = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "film", "good"])}
    own = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=own, unk_token="[UNK]").save_pretrained(tmp_path)
    BertConfig(
        vocab_size=5, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=None
    ).save_pretrained(tmp_path)
    checkpoint = PretrainedModel(tmp_path, "mine", "folder", None)
    (problem,) = dry_run(recipe_of(), checkpoint, TASK, frozenset()).problems
    assert "model.checkpoint is mine, whose tokenizer has no padding token" in problem
