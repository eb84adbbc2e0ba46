"""Small trainings in this process: architectures, data, and a callback that records its calls."""

from collections.abc import Mapping
from pathlib import Path

from src.config.settings import Settings
from src.core.records import Calibration, Evaluation, State, StopDecision, TrainingResult
from src.data import dataset, tokenization
from src.training import pretrained
from src.training.callbacks import Objective, TrainingCallback
from src.training.classifier_trainer import TokenizedData
from src.training.trainer import fine_tune
from tests.support.data import settings_of

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
         "vocab_size": 60, "max_position_embeddings": 64}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 64}
SPECIAL = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
ARCHITECTURES = {
    "albert": SMALL | {"embedding_size": 16},
    "bert": SMALL,
    "camembert": SMALL,
    "deberta": SMALL | RELATIVE,
    "deberta-v2": SMALL | RELATIVE,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 60},
    "electra": SMALL | {"embedding_size": 32},
    "modernbert": SMALL | SPECIAL,
    "mpnet": SMALL,
    "roberta": SMALL,
    "xlm-roberta": SMALL,
}
DECODER = SMALL | {"num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": 16}
DECODERS = {
    "gemma": DECODER, "gemma2": DECODER, "gemma3_text": DECODER, "llama": DECODER, "mistral": DECODER, "olmo2": DECODER,
    "phi3": DECODER, "qwen2": DECODER, "qwen3": DECODER, "smollm3": DECODER,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 60, "pad_token_id": 0},
    "gpt_neox": SMALL | {"pad_token_id": 0},
    "opt": SMALL | {"word_embed_proj_dim": 32, "ffn_dim": 64, "pad_token_id": 0},
}  # fmt: skip
"""Architectures that read from left to right."""


class RecordingCallback(TrainingCallback):
    """A callback that records its calls, and can stop the training."""

    def __init__(
        self, stop_at: float | None = None, stop_after_steps: int | None = None, state: State = State.PRUNED
    ) -> None:
        self.state = state
        self.curves: list[tuple[int, Mapping[str, float]]] = []
        self.evaluations: list[Evaluation] = []
        self.speeds: list[Calibration] = []
        self.stop_at, self.left = stop_at, stop_after_steps

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        self.curves.append((step, values))

    def on_evaluation(self, evaluation: Evaluation) -> StopDecision | None:
        self.evaluations.append(evaluation)
        return StopDecision(self.state, "bad") if evaluation.share == self.stop_at else None

    def on_speed_measured(self, found: Calibration) -> None:
        self.speeds.append(found)

    def should_stop(self, _step: int) -> StopDecision | None:
        if self.left is None:
            return None
        self.left -= 1
        return StopDecision(self.state, "late") if self.left == 0 else None


def train_in_pieces(
    training: tuple[Settings, pretrained.PretrainedModel, TokenizedData], objective: Objective, folder: Path, *cuts: int
) -> tuple[TrainingResult, list[RecordingCallback]]:
    """The result of a training that is stopped after so many steps each time and continued, and its callbacks."""
    settings, checkpoint, data = training
    stopped = [RecordingCallback(stop_after_steps=cut, state=State.PAUSED) for cut in cuts]
    callbacks = [*stopped, RecordingCallback()]
    results = [fine_tune(settings.recipe, checkpoint, data, objective, callback, folder) for callback in callbacks]
    return results[-1], callbacks


def tiny_training(cache: Path, *overrides: str) -> tuple[Settings, pretrained.PretrainedModel, TokenizedData]:
    settings = settings_of("model=tiny", "data.max_examples=80", "trainer.logging_steps=2", *overrides)
    prepared = dataset.prepare_dataset(settings.data, cache)
    checkpoint = pretrained.resolve(settings.recipe.model, cache)
    tokenizer = pretrained.load_tokenizer(checkpoint)
    parts = [
        tokenization.tokenize_split(prepared, s, tokenizer, settings.recipe.model.max_tokens, cache)
        for s in ("train", "validation")
    ]
    return settings, checkpoint, TokenizedData(parts[0], parts[1], tokenizer, prepared.task)
