"""LoRA and DoRA: what is trained, saved, continued and merged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.core.errors import CommandFailed, InvalidInput
from src.core.records import State
from src.core.task import Task
from src.training import adapters, classifiers, devices, inference, pretrained, weight_average, weight_changes
from src.training.callbacks import Objective, TrainingFailed
from src.training.checkpoints import last_checkpoint
from src.training.classifier_trainer import build_trainer
from src.training.dry_run import dry_run
from src.training.pretrained import BEST_DIR
from src.training.trainer import fine_tune
from tests.support.data import settings_of
from tests.support.trainings import ARCHITECTURES, DECODERS, RecordingCallback, tiny_training, train_in_pieces

pytest.importorskip("peft")
GOAL = Objective("accuracy", "maximize", (0.5, 1.0))
TASK = Task(("low", "high"))
LINEAR = ("Linear", "Conv1D")  # GPT-2's are transposed
SHORT = ("trainer.num_train_epochs=2", "optimizer.learning_rate=0.01")
TEXTS = ["dull", "a warm and funny film", "it is far too long , and nobody in it is worth a second look"]


def trained(place: Path, *overrides: str) -> Path:
    """The folder of the best weights of a short training."""
    settings, checkpoint, data = tiny_training(place, *SHORT, *overrides)
    result = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), place / "training")
    assert result.state == State.COMPLETE, result.reason
    return place / "training" / BEST_DIR


@pytest.mark.parametrize("kind", [*ARCHITECTURES, *DECODERS])
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_every_projection_of_every_layer_and_the_whole_head_are_trained(kind: str, method: str) -> None:
    config = AutoConfig.for_model(kind, **(ARCHITECTURES | DECODERS)[kind], num_labels=2)
    classifier = AutoModelForSequenceClassification.from_config(config)
    prefix, head = classifier.base_model_prefix, set(adapters.head_modules(classifier))
    linear = {
        name for name, module in classifier.named_modules()
        if type(module).__name__ in LINEAR and name.startswith(f"{prefix}.") and adapters.LAYER.search(name)
    }  # fmt: skip
    model = adapters.add_adapter(classifier, settings_of(f"adapter={method}").recipe.adapter, 1)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    adapted = {n.removeprefix("base_model.model.").split(".lora_A")[0] for n in names if ".lora_A." in n}
    assert adapted == linear
    assert len(linear) >= 4
    whole = {
        n.removeprefix("base_model.model.").split(".modules_to_save")[0] for n in names if ".modules_to_save." in n
    }
    assert whole == head
    assert head & {"classifier", "score"}
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("attention", ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]),
        ("query value", ["attention.self.query", "attention.self.value"]),
        (["query", "intermediate.dense"], ["attention.self.query", "intermediate.dense"]),
    ],
)
def test_target_modules(wanted: str | list[str], expected: list[str]) -> None:
    classifier = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **ARCHITECTURES["bert"]))
    assert adapters.target_modules(classifier, wanted) == expected


def test_a_module_that_the_layers_do_not_have_is_refused_with_those_that_they_have(tmp_path: Path) -> None:
    recipe = settings_of("model=tiny", "adapter=lora", "adapter.target_modules=[q_proj,value]", "trainer=cpu").recipe
    (problem,) = dry_run(recipe, pretrained.resolve(recipe.model, tmp_path), TASK, frozenset()).problems
    assert problem.startswith(
        "adapter.target_modules has q_proj, and the layers of this bert model have attention.self."
    )


@pytest.mark.parametrize(
    "overrides", [["adapter=lora"], ["adapter=dora"], ["adapter=lora", "model=tiny_decoder"]], ids=" ".join
)
def test_merged_gives_what_the_adapter_gives(tmp_path: Path, overrides: list[str]) -> None:
    settings, checkpoint, data = tiny_training(tmp_path, *SHORT, *overrides, "trainer.bf16=false")
    trainer = build_trainer(settings.recipe, checkpoint, data, tmp_path / "out", max_steps=10)
    trainer.train()
    adapters.save_adapter(trainer.model, trainer.adapter_base, tmp_path / "best")
    batch = data.tokenizer(TEXTS, padding=True, return_tensors="pt")
    merged = classifiers.load_finetuned(tmp_path / "best")
    assert type(merged).__name__.endswith("ForSequenceClassification")
    with torch.inference_mode():
        unmerged, plain = trainer.model.eval()(**batch).logits, merged.eval()(**batch).logits
    torch.testing.assert_close(plain, unmerged, rtol=0, atol=1e-5)
    untrained = classifiers.build_classifier(checkpoint, settings.recipe.model, data.task, settings.recipe.seed).eval()
    with torch.inference_mode():
        assert (untrained(**batch).logits - plain).abs().max() > 1e-3  # it has learned something


def test_checkpoints_and_best_weights_hold_the_adapter_only(tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(tmp_path, *SHORT, "adapter=lora", "adapter.rank=2")
    paused = RecordingCallback(stop_at=0.5, state=State.PAUSED)
    fine_tune(settings.recipe, checkpoint, data, GOAL, paused, tmp_path / "training")
    for folder in (tmp_path / "training" / BEST_DIR, last_checkpoint(tmp_path / "training")):
        assert not (folder / "model.safetensors").exists()
        assert all(
            ".lora_" in n or ".classifier." in n or ".pooler." in n for n in load_file(folder / adapters.WEIGHTS_FILE)
        )
    (speed,) = paused.speeds
    assert speed.megabytes < 0.5 * checkpoint.megabytes
    result = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / "training")
    assert result.megabytes == pytest.approx(checkpoint.megabytes, rel=0.1)  # of the model that is delivered, merged
    assert result.ms_per_1000_texts > 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["adapter=lora", "adapter.dropout=0.1"],
        ["adapter=dora"],
        ["adapter=lora", "model.dtype=bfloat16"],
        ["adapter=lora", "trainer.activation_checkpointing=true"],
        ["adapter=lora", "model=tiny_decoder"],
    ],
    ids=" ".join,
)
def test_a_training_cut_anywhere_continues_bit_for_bit(tmp_path: Path, overrides: list[str]) -> None:
    training = tiny_training(tmp_path, *SHORT, *overrides)
    uninterrupted, (whole_run,) = train_in_pieces(training, GOAL, tmp_path / "a")
    pieces, callbacks = train_in_pieces(training, GOAL, tmp_path / "b", 2, 4)
    assert [c for callback in callbacks for c in callback.curves] == whole_run.curves
    assert (pieces.score, pieces.metrics) == (uninterrupted.score, uninterrupted.metrics)
    whole, cut = (load_file(tmp_path / name / BEST_DIR / adapters.WEIGHTS_FILE) for name in "ab")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_activation_checkpointing_changes_no_number(tmp_path: Path) -> None:
    for name, more in (("a", []), ("b", ["trainer.activation_checkpointing=true"])):
        settings, checkpoint, data = tiny_training(tmp_path, *SHORT, "adapter=lora", *more)
        fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / name)
    plain, checkpointed = (load_file(tmp_path / name / BEST_DIR / adapters.WEIGHTS_FILE) for name in "ab")
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_average_is_of_the_products_not_of_their_factors(tmp_path: Path, method: str) -> None:
    members = {}
    for seed in (1, 2, 3):
        (tmp_path / str(seed)).mkdir()
        members[trained(tmp_path / str(seed), f"adapter={method}", f"seed={seed}")] = seed
    weight_average.average_weights(members, tmp_path / "average")
    merged = [classifiers.load_finetuned(member).state_dict() for member in members]
    average = load_file(tmp_path / "average" / "model.safetensors")
    for name, tensor in average.items():
        wanted = sum(s[name].double() * count for s, count in zip(merged, members.values(), strict=True)) / 6
        torch.testing.assert_close(tensor.double(), wanted, rtol=0, atol=1e-7)
    assert not adapters.is_adapter(tmp_path / "average")
    assert not (tmp_path / "average" / "validation.npy").exists()
    answers = inference.predict_probabilities(inference.load_classifier(tmp_path / "average", use_cpu=True), TEXTS)
    assert np.isfinite(answers).all()


def test_layers_that_an_adapter_moves_have_moved_and_others_have_not(tmp_path: Path) -> None:
    best = trained(tmp_path, "adapter=lora", "adapter.target_modules=[query]")
    settings = settings_of("model=tiny")
    checkpoint = pretrained.resolve(settings.recipe.model, tmp_path)
    start = weight_changes.initial_model(
        checkpoint, settings.recipe.model, Task(("negative", "positive")), settings.recipe.seed
    )
    moved = {change.part: change.moved for change in weight_changes.tensor_changes(start, best)}
    assert {name for name, by in moved.items() if by > 0} == {
        name for name in moved
        if name.endswith("query.weight") or name.startswith(("classifier.", "bert.pooler."))
    }  # fmt: skip


def test_a_base_that_has_moved_is_found_by_its_name_and_another_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = trained(tmp_path, "adapter=lora")
    expected = inference.predict_probabilities(inference.load_classifier(best, use_cpu=True), TEXTS)
    base = adapters.base_of(best)
    monkeypatch.chdir(tmp_path)  # whose cache has no model yet: it is made again from its name
    adapters.write_json(best / adapters.BASE_FILE, vars(replace(base, folder=str(tmp_path / "gone"))))
    found = inference.predict_probabilities(inference.load_classifier(best, use_cpu=True), TEXTS)
    assert (found == expected).all()
    adapters.write_json(best / adapters.BASE_FILE, vars(replace(base, folder="", fingerprint="0" * 16)))
    with pytest.raises(CommandFailed, match="are not those that the adapter was trained on"):
        inference.load_classifier(best, use_cpu=True)
    adapters.write_json(best / adapters.BASE_FILE, vars(replace(base, folder="", checkpoint="./nowhere")))
    with pytest.raises(CommandFailed, match=r"An adapter needs the weights that it was trained on: .* no such folder"):
        inference.load_classifier(best, use_cpu=True)


def test_what_goes_to_others_names_the_base_and_no_path(tmp_path: Path) -> None:
    best = trained(tmp_path, "adapter=lora")
    adapters.write_for_others(best, tmp_path / "out")
    for file in ("base.json", "adapter_config.json", "config.json"):
        assert str(tmp_path) not in (tmp_path / "out" / file).read_text()
    assert not (tmp_path / "out" / "validation.npy").exists()
    assert adapters.base_of(tmp_path / "out").checkpoint == "random://bert"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.dtype=4bit"], "Train an adapter on them: adapter=lora"),
        (["model.dtype=bfloat16", "trainer.bf16=false"], "model.dtype is bfloat16, and trainer.bf16"),
    ],
)
def test_dtypes_that_cannot_be_trained(tmp_path: Path, overrides: list[str], says: str) -> None:
    recipe = settings_of("model=tiny", "trainer=cpu", *overrides).recipe
    (problem,) = dry_run(recipe, pretrained.resolve(recipe.model, tmp_path), TASK, frozenset()).problems
    assert says in problem


def test_weights_in_four_bits_are_trained_continued_and_delivered(tmp_path: Path) -> None:
    """On a model wide enough for blocks of 64 weights. The delivered one has the rounded weights, in full precision."""
    pytest.importorskip("bitsandbytes")
    wide = ARCHITECTURES["bert"] | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "vocab_size": 143,
        "max_position_embeddings": 128,
    }
    AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **wide)).save_pretrained(
        tmp_path / "wide"
    )
    tiny = pretrained.resolve(settings_of("model=tiny").recipe.model, tmp_path / "cache")
    pretrained.load_tokenizer(tiny).save_pretrained(tmp_path / "wide")
    where = (f"model.checkpoint={tmp_path / 'wide'}", "model.dtype=4bit", "adapter=lora", "trainer=cpu")
    settings, checkpoint, data = tiny_training(tmp_path, *SHORT, *where)
    assert dry_run(settings.recipe, checkpoint, data.task, frozenset()).problems == ()
    callback = RecordingCallback(stop_at=0.5, state=State.PAUSED)
    fine_tune(settings.recipe, checkpoint, data, GOAL, callback, tmp_path / "b")
    result = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / "b")
    uninterrupted = fine_tune(settings.recipe, checkpoint, data, GOAL, RecordingCallback(), tmp_path / "a")
    assert (result.score, result.metrics) == (uninterrupted.score, uninterrupted.metrics)
    merged = classifiers.load_finetuned(tmp_path / "a" / BEST_DIR)
    merged.save_pretrained(tmp_path / "merged")
    assert "quantization_config" not in (tmp_path / "merged" / "config.json").read_text()
    start = classifiers.build_classifier(checkpoint, settings.recipe.model, data.task, settings.recipe.seed)
    exact = load_file(tmp_path / "wide" / "model.safetensors")
    rounded, whole = (
        start.bert.encoder.layer[0].output.dense.weight.float(),
        exact["bert.encoder.layer.0.output.dense.weight"],
    )
    assert 0.01 < ((rounded - whole).norm() / whole.norm()).item() < 0.2
    pooler = start.bert.pooler.dense.weight  # part of the head, which is trained whole
    assert torch.equal(pooler, exact["bert.pooler.dense.weight"].to(pooler.dtype))


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_an_evaluation_changes_no_gradient_of_weights_in_four_bits(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    wide = {**(ARCHITECTURES | DECODERS)[kind], "hidden_size": 64, "intermediate_size": 128}
    config = AutoConfig.for_model(kind, **wide, attention_dropout=0.0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    precision = devices.fast_precision(use_cpu=True)
    base = classifiers.load_weights(tmp_path, config, "4bit", use_cpu=True, precision=precision)
    model = adapters.add_adapter(base, settings_of("adapter=lora").recipe.adapter, 1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = {"input_ids": torch.randint(3, 50, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.long)}

    def gradients() -> list[torch.Tensor]:
        model.train().zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            model(**batch, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    before = gradients()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        model.eval()(**batch)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))


def test_a_model_in_sixteen_bits_is_rounded_once_when_it_is_merged(tmp_path: Path) -> None:
    best = trained(tmp_path, "adapter=lora", "model.dtype=bfloat16")
    exact, rounded = classifiers.load_finetuned(best, exact=True), classifiers.load_finetuned(best)
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    for name, weights in exact.state_dict().items():
        assert torch.equal(weights.to(torch.bfloat16), rounded.state_dict()[name]), name
    batch = classifiers.load_tokenizer(pretrained.resolve(settings_of("model=tiny").recipe.model, tmp_path / "cache"))(
        TEXTS, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        probabilities = [model.eval()(**batch).logits.float().softmax(-1) for model in (exact, rounded)]
    assert (probabilities[0] - probabilities[1]).abs().max() < 0.02


def test_weights_in_four_bits_are_never_trained_themselves(tmp_path: Path) -> None:
    settings, checkpoint, data = tiny_training(tmp_path, "model.dtype=4bit")
    with pytest.raises(TrainingFailed, match=r"weights in 4 bits .* through an adapter only"):
        build_trainer(settings.recipe, checkpoint, data, tmp_path / "out")


def test_an_adapter_is_no_checkpoint_to_start_from(tmp_path: Path) -> None:
    best = trained(tmp_path, "adapter=lora")
    model = settings_of("model=checkpoint", f"model.checkpoint={best}", "model.max_tokens=64").recipe.model
    with pytest.raises(InvalidInput, match="an adapter without its base"):
        pretrained.resolve(model, tmp_path)


def test_without_peft_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    recipe = settings_of("model=tiny", "adapter=lora", "trainer=cpu").recipe
    (problem,) = dry_run(recipe, pretrained.resolve(recipe.model, tmp_path), TASK, frozenset()).problems
    assert problem == "Adapters need peft: pip install -e '.[large]'."


def test_an_adapter_needs_its_option(tmp_path: Path) -> None:  # noqa: ARG001
    with pytest.raises(InvalidInput, match=r"adapter\.rank has no effect without an adapter; choose one, adapter=lora"):
        settings_of("+adapter.rank=4")
