"""Builds classifiers from pretrained models, and loads those that were fine-tuned."""

import copy
import shutil
from pathlib import Path
from typing import Any

from src.config.settings import BFLOAT16, FOUR_BIT, ModelSettings
from src.core.task import TEXT_COLUMNS, Task, Threshold
from src.training import adapters, classification_head, devices
from src.training.architectures import DROPOUT_FIELDS, is_decoder
from src.training.pretrained import PretrainedModel, load_tokenizer, own_config

OF_EARLIER_TRAININGS = (TEXT_COLUMNS, classification_head.THRESHOLD_FIELD)
"""Fields by which Trialbook describes a fine-tuned model; another training of it does not inherit them."""


def build_classifier(
    checkpoint: PretrainedModel,
    model: ModelSettings,
    task: Task,
    seed: int,
    quantized: bool = False,
    use_cpu: bool = False,
) -> Any:
    """The classifier with a head for the task's labels.

    Args:
        checkpoint: the pretrained model.
        model: its settings; `dropout` is set in every dropout of the architecture, None keeps the model's own.
        task: of the data.
        seed: of a head that the model lacks, or that is for other labels (see classification_head).
        quantized: whether weights of model.dtype=4bit stay in 4 bits. If not, they are only rounded to them.
        use_cpu: quantize for the processor, also where there is a GPU.
    """
    from transformers import set_seed

    own = classification_head.head_labels(own_config(checkpoint))
    config = classifier_config(checkpoint, model, task)
    set_seed(seed)
    classifier = load_weights(checkpoint.folder, config, model.dtype, use_cpu, devices.fast_precision(use_cpu))
    if own is not None and len(own) == len(task.label_names):
        names = () if task.is_regression else task.label_names  # a head for numbers is new: it has a unit of its own
        classification_head.adapt_head(classifier, own, names, seed)
    return classifier if quantized else _dequantized(classifier)


def classifier_config(checkpoint: PretrainedModel, model: ModelSettings, task: Task) -> Any:
    """The model's config with the task's labels, and `model.dropout` in every dropout unless it is None.

    A decoder's has the tokenizer's padding token, by which it finds the last token of a text.
    """
    from transformers import AutoConfig

    names = dict(enumerate(task.label_names))
    config = AutoConfig.from_pretrained(
        checkpoint.folder,
        local_files_only=True,
        id2label=names,
        label2id={name: i for i, name in names.items()},
        problem_type=task.problem_type,
    )
    for field in DROPOUT_FIELDS.get(config.model_type, ()) if model.dropout is not None else ():
        setattr(config, field, model.dropout)
    for field in OF_EARLIER_TRAININGS:
        if hasattr(config, field):
            delattr(config, field)
    if task.has_pairs:
        setattr(config, TEXT_COLUMNS, list(task.text_columns))
    if is_decoder(config.model_type):
        padding = load_tokenizer(checkpoint).pad_token_id
        for part in (config, config.get_text_config()):
            part.pad_token_id, part.use_cache = padding, False  # a cache is for texts that grow
    return config


def load_finetuned(folder: Path, exact: bool = False) -> Any:
    """The fine-tuned classifier in `folder`, a plain model of transformers: an adapter is merged into its base.

    Args:
        folder: with weights and tokenizer.
        exact: leave a merged model in 32 bits, in which it is computed. Else it is rounded to the dtype of its base.

    Raises:
        CommandFailed: the base of an adapter is gone.
    """
    from transformers import AutoModelForSequenceClassification

    if not adapters.is_adapter(folder):
        return AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    merged = adapters.load_adapter(_base_classifier(folder).float(), folder).merge_and_unload()
    return merged if exact else merged.to(merged.config.dtype)  # which the config keeps


def write_plain(folder: Path, to: Path, threshold: Threshold | None = None, classifier: Any = None) -> None:
    """Write the classifier in `folder` to the new folder `to` as a plain model of transformers.

    Args:
        folder: with weights and tokenizer; an adapter is merged into its base.
        to: must not exist.
        threshold: by which the written classifier decides (see classification_head.put_threshold_into); None: 0.5.
        classifier: to write in the place of that in `folder`.
    """
    classifier = load_finetuned(folder) if classifier is None else classifier
    if threshold is not None:
        classification_head.put_threshold_into(classifier, threshold)
    weights = ("model*.safetensors", "config.json", "adapter_*", adapters.BASE_FILE)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(*weights))
    classifier.save_pretrained(to)


def merged_megabytes(model: Any) -> float:
    """Size of a peft model's classifier once the adapter is merged, in MB (10**6 bytes)."""
    classifier = model.get_base_model()
    config = copy.deepcopy(classifier.config)
    plain = without_weights(config)
    frozen = [p for p in classifier.base_model.parameters() if not p.requires_grad and p.is_floating_point()]
    size = max((p.element_size() for p in frozen), default=4)
    return sum(p.numel() for p in plain.parameters()) * size / 1e6


def without_weights(config: Any) -> Any:
    """A classifier of this config whose weights take no memory and have no values."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def write_adapter(folder: Path, to: Path, threshold: Threshold | None = None) -> None:
    """Write the adapter in `folder` to the new folder `to`, with a decision threshold in its head (None: 0.5)."""
    shutil.copytree(folder, to)
    if threshold is not None:
        model = adapters.load_adapter(_base_classifier(folder), folder)
        classification_head.put_threshold_into(model, threshold)
        adapters.save_adapter(model, adapters.base_of(folder), to)


def _base_classifier(folder: Path) -> Any:
    """The classifier that the adapter in `folder` belongs to, with a random head."""
    from transformers import AutoConfig

    base = adapters.base_of(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return _dequantized(load_weights(base.find().folder, config, base.dtype, precision=base.precision))


def load_weights(folder: Path, config: Any, dtype: str, use_cpu: bool = False, precision: str = "fp32") -> Any:
    """The pretrained weights in `folder` as a classifier with a random head, if they have none that fits the config.

    Args:
        folder: of transformers.
        config: of the classifier.
        dtype: as model.dtype names it.
        use_cpu: quantize for the processor, also where there is a GPU.
        precision: beside weights in 4 bits (see devices.four_bit_arguments).
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    more: dict[str, Any] = {"dtype": torch.bfloat16 if dtype == BFLOAT16 else torch.float32}
    if dtype == FOUR_BIT:
        more = devices.four_bit_arguments(use_cpu, precision, adapters.head_modules(without_weights(config)))
    classifier = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        **more,
    )
    if dtype == FOUR_BIT:
        _keep_trainable(classifier)
    return classifier


def _keep_trainable(classifier: Any) -> None:
    """Let weights in 4 bits stay as they are in evaluations.

    On some processors bitsandbytes repacks them there, and later gradients would be wrong.
    """
    for module in classifier.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _dequantized(classifier: Any) -> Any:
    return classifier.dequantize().to("cpu") if getattr(classifier, "is_quantized", False) else classifier
