"""The head of a classifier: what becomes of one that was fine-tuned before, and of a decision threshold."""

from collections.abc import Sequence
from typing import Any

import torch

from src.core.task import Threshold, gives_several_labels, labels_in

THRESHOLD_FIELD = "decision_threshold"  # in the config of a model whose threshold was tuned
CLASSIFIER_SUFFIX = "ForSequenceClassification"  # of the architecture of a checkpoint with such a head


def head_labels(config: Any) -> tuple[str, ...] | None:
    """The labels of the checkpoint's own head, by index; None if it has none. `config`: the checkpoint's own."""
    architectures = config.architectures or []
    if not any(name.endswith(CLASSIFIER_SUFFIX) for name in architectures):
        return None
    return labels_in(config)


def label_order(own: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """For each label of the data, its index in the head; None if the head has other labels. Case does not count."""
    index = {label.casefold(): i for i, label in enumerate(own)}
    order = [index.get(name.casefold()) for name in names]
    if len(index) != len(names) or None in order or len(own) != len(names):
        return None
    return [i for i in order if i is not None]


def adapt_head(model: Any, own: Sequence[str], names: Sequence[str], seed: int) -> None:
    """Make the head of a loaded classifier one for `names`.

    A head for the same labels is kept, its outputs in the order of `names`. Any other one is replaced by a random one:
    by its positions alone nobody knows what its labels mean.

    Args:
        model: of transformers, with weights.
        own: labels of the head that was loaded, by index.
        names: labels of the data, by index.
        seed: of a random head.
    """
    from transformers import AutoModelForSequenceClassification, set_seed

    order = label_order(own, names)
    head = head_parameters(model)
    with torch.no_grad():
        if order is None:
            set_seed(seed)
            fresh = dict(AutoModelForSequenceClassification.from_config(model.config).named_parameters())
            for name, parameter in head.items():
                parameter.copy_(fresh[name])
        elif order != list(range(len(names))):
            for parameter in head.values():
                if parameter.shape[0] == len(names):  # of the last layer
                    parameter.copy_(parameter[order].clone())


def note_on_head(checkpoint: str, own: Sequence[str] | None, names: Sequence[str]) -> str | None:
    """What to say about the head of a checkpoint before it is fine-tuned; None if there is nothing to say."""
    if own is None or list(own) == list(names):
        return None
    shown = ", ".join(own[:5]) + (" ..." if len(own) > 5 else "")
    if label_order(own, names) is None:
        return f"{checkpoint} has a head for other labels ({shown}), so every training begins with a new one"
    return f"{checkpoint} has a head for {shown}; it is kept, each label by its name"


def head_parameters(model: Any) -> dict[str, Any]:
    """The parameters outside the pretrained model by name. Of a peft model, those that are trained."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {
        name.replace(".modules_to_save.default", ""): parameter
        for name, parameter in inner.named_parameters()
        if not name.startswith(f"{inner.base_model_prefix}.") and ".original_module." not in name
    }


def output_bias(model: Any) -> Any | None:
    """The bias of a classifier's last layer, [n_labels]; None if it has none. `model`: of transformers."""
    shape = (model.config.num_labels,)
    biases = [p for name, p in head_parameters(model).items() if name.endswith("bias") and p.shape == shape]
    return biases[-1] if biases else None


def output_weight(model: Any) -> Any | None:
    """The weight of a classifier's last layer, [n_labels, n_dimensions]; None if it has no bias (see output_bias)."""
    bias = output_bias(model)
    parameters = head_parameters(model)
    names = [name for name, parameter in parameters.items() if parameter is bias]
    return parameters.get(f"{names[0].removesuffix('bias')}weight") if names else None


def scale_outputs(model: Any, factor: Any, shift: Any) -> None:
    """Multiply the outputs of a classifier by a factor each, and add a shift, in its last layer.

    A classifier whose last layer has no bias is left as it is.

    Args:
        model: of transformers.
        factor: a number, or [n_labels].
        shift: a number, or [n_labels].
    """
    weight, bias = output_weight(model), output_bias(model)
    if weight is None or bias is None:
        return
    factors = torch.as_tensor(factor, dtype=bias.dtype, device=bias.device)
    with torch.no_grad():
        weight.mul_(factors.reshape(-1, 1))
        bias.mul_(factors).add_(torch.as_tensor(shift, dtype=bias.dtype, device=bias.device))


def put_threshold_into(model: Any, threshold: Threshold) -> None:
    """Let a classifier give a label from the probability `threshold` on.

    That is label 1 of two, or, where texts can have several, each of them. The bias of its last layer is shifted;
    `decision_threshold` in its config says by which threshold.

    Args:
        model: of transformers, with a bias in its last layer.
        threshold: above 0 and below 1.
    """
    bias = output_bias(model)
    assert bias is not None
    each = torch.as_tensor(threshold, dtype=torch.float64)
    shift = ((1 - each) / each).log().to(bias.dtype)
    with torch.no_grad():
        if gives_several_labels(model.config):
            bias += shift
        else:
            bias[1] += shift
    setattr(model.config, THRESHOLD_FIELD, threshold)
