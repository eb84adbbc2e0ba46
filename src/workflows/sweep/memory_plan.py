"""Whether the trainings of a study fit into the memory of this machine, and how many of them at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from src.config.settings import Recipe, Settings
from src.core.errors import InvalidInput
from src.core.formatting import plural
from src.core.paths import atomic_write
from src.core.record_files import read_record
from src.core.records import MemoryEstimate
from src.core.texts import Text, texts_of
from src.data.dataset import PreparedDataset
from src.search.space import Space
from src.training.devices import SAFE_GPU_FRACTION, Machine
from src.workers.recipe_check import Candidate
from src.workflows.sweep import recipes

ESTIMATE_FILE = "memory.json"  # in the study's folder
LONGEST_TEXTS = 8  # by characters, of which one has the most tokens
NOTABLE_FRACTION = 0.25  # of the machine's memory, from which the plan says what trainings take
ADVICE = (
    "Take one of: adapter=lora, model.dtype=bfloat16 (or, under an adapter, 4bit), optimizer=adamw_8bit, "
    "trainer.activation_checkpointing=true, a smaller model.max_tokens, a smaller model; see "
    "docs/how-to/large-models.md."
)


def longest_texts(dataset: PreparedDataset) -> list[Text]:
    """The texts of train and validation that are likely to have the most tokens."""
    texts = [text for split in ("train", "validation") for text in texts_of(dataset.frame(split))]
    return sorted(texts, key=lambda text: sum(map(len, [text] if isinstance(text, str) else text)))[-LONGEST_TEXTS:]


def largest_recipes(settings: Settings, space: Space, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """The candidates with the largest searched values of what takes memory."""
    for name, recipe, checkpoint in candidates:
        yield name, _largest(settings, space, recipe), checkpoint


def _largest(settings: Settings, space: Space, recipe: Recipe) -> Recipe:
    bounds = {p.key: p.bounds() for p in space.parameters}
    keys = ["model.max_tokens", "trainer.per_device_train_batch_size"] + ["adapter.rank"] * recipe.has_adapter
    largest = {key: max(bounds[key]) for key in keys if key in bounds}
    return recipes.recipe_of(replace(settings, recipe=recipe), largest)


def save_estimate(estimate: MemoryEstimate | None, folder: Path) -> None:
    """Keep the estimate in the study's folder, for commands that continue it."""
    if estimate is not None:
        atomic_write(folder / ESTIMATE_FILE, estimate.to_json())


def load_estimate(folder: Path, machine: Machine) -> MemoryEstimate | None:
    """The estimate of the study in `folder`; None if there is none, or if it is for processors and these are GPUs."""
    estimate = read_record(folder / ESTIMATE_FILE, MemoryEstimate.from_json)
    return estimate if estimate and bool(estimate.gpu_gigabytes) == bool(machine.gpus) else None


def check_fit(estimate: MemoryEstimate | None, machine: Machine) -> None:
    """Raise InvalidInput if a training would not fit into the memory even with one text at a time."""
    if estimate is None or estimate.least <= _gigabytes(estimate, machine):
        return
    which = f"A training of {estimate.recipe}" if estimate.recipe else "A training"
    raise InvalidInput(
        f"{which} takes about {estimate.least:.1f} GB of memory with one text at a time ({estimate.parts}), and "
        f"{_place(machine)} has {_gigabytes(estimate, machine):.1f} GB{_free(machine)}. {ADVICE}"
    )


def workers_that_fit(estimate: MemoryEstimate | None, machine: Machine, workers: int) -> int:
    """The largest number of workers, at most `workers`, whose trainings fit into the memory together."""
    if estimate is None:
        return workers
    fraction = SAFE_GPU_FRACTION if machine.gpus else 1.0
    at_once = int(fraction * _gigabytes(estimate, machine) / estimate.total) * max(1, machine.gpus)
    return max(1, min(workers, at_once))


def describe(estimate: MemoryEstimate | None, machine: Machine, workers: int, always: bool) -> str:
    """What trainings take, for the plan; empty where it is little, unless `always`."""
    if estimate is None:
        return ""
    there = _gigabytes(estimate, machine)
    together = estimate.total * -(-workers // max(1, machine.gpus))
    if not always and together <= NOTABLE_FRACTION * there:
        return ""
    each = f"about {estimate.total:.1f} GB"
    if workers > 1:
        each += f" for each of {plural(workers, 'worker')}"
    too_much = "; micro-batches are halved where it runs out" if together > there else ""
    return f"{each} ({estimate.parts}); {_place(machine)} has {there:.1f} GB{_free(machine)}{too_much}"


def _gigabytes(estimate: MemoryEstimate, machine: Machine) -> float:
    return estimate.gpu_gigabytes if machine.gpus else machine.free_gigabytes


def _place(machine: Machine) -> str:
    return "each GPU" if machine.gpus > 1 else "the GPU" if machine.gpus else "this machine"


def _free(machine: Machine) -> str:
    return "" if machine.gpus else " free"
