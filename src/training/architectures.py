"""Facts about the architectures of transformers, by model_type."""

ENCODER_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
BERT_FIELDS = (*ENCODER_FIELDS, "classifier_dropout")
ATTENTION_ONLY = ("attention_dropout",)
DEBERTA_FIELDS = (*ENCODER_FIELDS, "pooler_dropout", "cls_dropout")
DROPOUT_FIELDS = {
    "albert": (*ENCODER_FIELDS, "classifier_dropout_prob"),
    "bert": BERT_FIELDS,
    "camembert": BERT_FIELDS,
    "deberta": DEBERTA_FIELDS,
    "deberta-v2": DEBERTA_FIELDS,  # also DeBERTa-v3
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "electra": BERT_FIELDS,
    "gemma": ATTENTION_ONLY,
    "gemma2": ATTENTION_ONLY,
    "gemma3_text": ATTENTION_ONLY,
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "gpt_neox": ("attention_dropout", "hidden_dropout", "classifier_dropout"),
    "llama": ATTENTION_ONLY,  # also SmolLM2
    "mistral": ATTENTION_ONLY,
    "modernbert": ("embedding_dropout", "mlp_dropout", "attention_dropout", "classifier_dropout"),
    "mpnet": ENCODER_FIELDS,
    "olmo2": ATTENTION_ONLY,
    "opt": ("dropout", "attention_dropout"),
    "phi3": ("resid_pdrop", "embd_pdrop", "attention_dropout"),
    "qwen2": ATTENTION_ONLY,
    "qwen3": ATTENTION_ONLY,
    "roberta": BERT_FIELDS,
    "smollm3": ATTENTION_ONLY,
    "xlm-roberta": BERT_FIELDS,
}
"""The config fields that `model.dropout` sets, per transformers model_type."""
POSITION_FIELDS = ("max_position_embeddings", "n_positions")  # how many tokens a text can have; GPT-2 has the second
OFFSET_POSITION_MODELS = (  # two of their positions are reserved for padding
    "camembert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip
NO_DECODERS = ("bigbird_pegasus", "plbart", "xlnet")  # with language models, but texts are not read by the last token


def is_decoder(kind: str) -> bool:
    """Whether models of this type read a text from left to right, so that its last token stands for it."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or kind in NO_DECODERS
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_encoder
