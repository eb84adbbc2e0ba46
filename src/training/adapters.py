"""LoRA and DoRA through peft: what of a classifier they train, and how adapters are saved and merged.

A saved adapter is a folder with its matrices, the head, the classifier's config, and base.json, which says on which
pretrained weights it was trained. Sources: Hu and others 2021, arXiv:2106.09685; Liu and others 2024, arXiv:2402.09353.
"""

import copy
import json
import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from src.config.settings import ATTENTION_TARGETS, AUTO_TARGETS, DORA, AdapterSettings, ModelSettings, Pin
from src.core.errors import CommandFailed, InvalidInput
from src.core.paths import Paths
from src.core.record_files import read_json, write_json
from src.training import pretrained, random_models
from src.training.pretrained import PretrainedModel

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
BASE_FILE = "base.json"
INSTALL = "pip install -e '.[large]'"
LAYER = re.compile(r"\.\d+\.")  # in the names of modules that every layer has
ATTENTION_WORDS = ("attn", "attention")  # in the names of attention's modules


@dataclass(frozen=True)
class AdapterBase:
    """The pretrained weights that an adapter belongs to."""

    checkpoint: str  # as model.checkpoint names them
    revision: str | None
    package: str | None
    fingerprint: str  # of the weights
    folder: str  # where they were
    dtype: str  # of the weights in memory, as model.dtype names it
    precision: str  # beside weights in 4 bits: bf16, fp16 or fp32

    @classmethod
    def of(cls, base: PretrainedModel, model: ModelSettings, precision: str) -> "AdapterBase":
        """Those of a training in this precision."""
        revision = base.revision or model.pin.revision
        return cls(base.id, revision, model.pin.package, base.fingerprint, str(base.folder), model.dtype, precision)

    def find(self) -> PretrainedModel:
        """The weights where they were, or else where `model.checkpoint` leads to from the working folder.

        Raises CommandFailed if they are gone, or are others now.
        """
        there = PretrainedModel(Path(self.folder), self.checkpoint, "folder", self.revision)
        if self.folder and there.weights and there.fingerprint == self.fingerprint:
            return there
        pins = {self.checkpoint: Pin(self.revision, self.package)}
        model = ModelSettings("", self.checkpoint, None, 0, 0.0, pins)
        try:
            found = pretrained.find(model, Paths(Path.cwd()).cache_dir)
        except InvalidInput as error:
            raise CommandFailed(f"An adapter needs the weights that it was trained on: {error}") from error
        if found.fingerprint != self.fingerprint:
            raise CommandFailed(
                f"The weights of {self.checkpoint} in {found.folder} are not those that the adapter was trained on: "
                f"their fingerprint is {found.fingerprint}, not {self.fingerprint}."
            )
        return found

    @property
    def is_on_the_hub(self) -> bool:
        """Whether others can load the weights by their name."""
        return not Path(self.checkpoint).expanduser().is_dir() and not self.checkpoint.startswith(random_models.PREFIX)


def is_adapter(folder: Path) -> bool:
    """Whether the weights in `folder` are an adapter's."""
    return (folder / WEIGHTS_FILE).is_file()


def base_of(folder: Path) -> AdapterBase:
    """The base of the adapter in `folder`."""
    return AdapterBase(**read_json(folder / BASE_FILE, {}))


def add_adapter(classifier: Any, adapter: AdapterSettings, seed: int) -> Any:
    """The classifier as a peft model, of which the adapter and the head are trained.

    Args:
        classifier: of transformers.
        adapter: with a method other than none.
        seed: of the matrices.

    Raises:
        InvalidInput: peft is not installed, or the classifier has none of the modules that are named.
    """
    from transformers import set_seed

    targets = target_modules(classifier, adapter.target_modules)
    peft = _peft()
    set_seed(seed)
    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        modules_to_save=head_modules(classifier),
        use_dora=adapter.method == DORA,
        fan_in_fan_out=_has_transposed(classifier),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for an attribute that transformers has renamed
        model = peft.get_peft_model(classifier, config)
    for parameter in model.parameters():
        if parameter.requires_grad:  # small updates would be lost in 16 bits
            parameter.data = parameter.data.float()
    return model


def head_modules(classifier: Any) -> list[str]:
    """The modules that are trained whole: everything that is not the pretrained model, and its pooler."""
    prefix, base = classifier.base_model_prefix, classifier.base_model
    own = [name for name, module in classifier.named_children() if name != prefix and _has_weights(module)]
    pooler = getattr(base, "pooler", None)
    return own if pooler is None or base is classifier else [*own, f"{prefix}.pooler"]


def target_modules(classifier: Any, wanted: str | Sequence[str]) -> list[str]:
    """The modules of every layer that get matrices, by their names within the layer.

    Args:
        classifier: of transformers.
        wanted: auto for attention and MLP projections, attention, or names (as words of one text, or a list).

    Raises:
        InvalidInput: the classifier has none of a name.
    """
    known = _projections(classifier)
    if wanted == AUTO_TARGETS:
        return known
    if wanted == ATTENTION_TARGETS:
        return [name for name in known if any(word in name for word in ATTENTION_WORDS)]
    chosen = []
    for word in wanted.split() if isinstance(wanted, str) else wanted:
        matching = [name for name in known if name == word or name.endswith(f".{word}")]
        if not matching:
            raise InvalidInput(
                f"adapter.target_modules has {word}, and the layers of this {classifier.config.model_type} model have "
                f"{', '.join(known)}; or type auto, or attention."
            )
        chosen += matching
    return list(dict.fromkeys(chosen))


def save_adapter(model: Any, base: AdapterBase, folder: Path) -> None:
    """Save the adapter of a peft model, its head and its config to `folder`, and which weights it belongs to."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card without content
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):  # the weights beside it are not quantized
        del config.quantization_config
    config.save_pretrained(folder)
    write_json(folder / BASE_FILE, asdict(base))


def write_for_others(folder: Path, to: Path) -> None:
    """Write the adapter in `folder` to the new folder `to`, its base named as on the Hub, without paths from here."""
    base = base_of(folder)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(pretrained.PROBABILITIES_FILE))
    known = read_json(to / CONFIG_FILE, {})
    named = {"base_model_name_or_path": base.checkpoint, "revision": base.revision}
    (to / CONFIG_FILE).write_text(json.dumps({**known, **named}, indent=2), encoding="utf-8")
    write_json(to / BASE_FILE, asdict(replace(base, folder="")))


def load_adapter(classifier: Any, folder: Path) -> Any:
    """The peft model of a classifier, which was built from the adapter's base, and the adapter in `folder`."""
    peft = _peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        return peft.PeftModel.from_pretrained(classifier, folder)


def _projections(classifier: Any) -> list[str]:
    """The names, within a layer, of all linear modules of the pretrained model's layers."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    names = [
        LAYER.split(name)[-1]
        for name, module in classifier.base_model.named_modules()
        if isinstance(module, (Linear, Conv1D)) and LAYER.search(name)
    ]
    return list(dict.fromkeys(names))


def _has_transposed(classifier: Any) -> bool:
    """Whether the projections keep their weights transposed, as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in classifier.base_model.modules())


def _has_weights(module: Any) -> bool:
    return next(module.parameters(), None) is not None


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InvalidInput(f"Adapters need peft: {INSTALL}.") from error
    return peft
