"""Tiny models with random weights, for tests of the machinery: random://bert, and random://llama, a decoder."""

from pathlib import Path

from src.core.errors import InvalidInput

PREFIX = "random://"
CHARACTERS = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
SIZE = {  # of both: two layers of 32 dimensions
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 128,
}  # fmt: skip


def write_random_model(name: str, folder: Path) -> None:
    """Write the model with its tokenizer of single characters to `folder`. `name`: random://bert or random://llama."""
    writers = {f"{PREFIX}bert": _write_bert, f"{PREFIX}llama": _write_llama}
    if name not in writers:
        raise InvalidInput(f"model.checkpoint is {name}; there is {' and '.join(writers)}.")
    writers[name](folder)


def _write_bert(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, set_seed

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    indices = {token: i for i, token in enumerate(vocabulary)}  # transformers would silently ignore a vocab_file
    BertTokenizerFast(vocab=indices, model_max_length=128).save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocabulary), **SIZE)
    set_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)


def _write_llama(folder: Path) -> None:
    """A decoder as they are published: a language model whose tokenizer has no padding token and pads on the left."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    vocabulary = ["<unk>", "</s>", " ", *CHARACTERS]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", padding_side="left", model_max_length=128
    ).save_pretrained(folder)
    config = LlamaConfig(vocab_size=len(vocabulary), num_key_value_heads=1, eos_token_id=1, bos_token_id=None, **SIZE)
    set_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
