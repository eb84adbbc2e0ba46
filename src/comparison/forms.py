"""The forms of a recipe that are averages: of its fresh-seed trainings, or of its refits on train + validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.comparison import contenders
from src.comparison.contenders import TRAINING_DIR, Contender, Contenders, ModelFolder, SeedRun, seeds_key
from src.verdict.records import AVERAGE, SINGLE


@dataclass(frozen=True)
class AveragedForm(ModelFolder):
    """One model: the average of the weights of its members."""

    contender: Contender  # in this form
    members: tuple[SeedRun, ...]
    folder: Path

    @property
    def sha256_path(self) -> Path:
        """The file with the SHA-256 of its weights, which stays when they are deleted."""
        return self.folder / "weights.sha256"

    @property
    def validation_probabilities_path(self) -> Path:
        """The file of probabilities on the validation split, [n_examples, n_labels]. A refit has none."""
        return self.folder / "validation.npy"

    @property
    def members_validation_path(self) -> Path:
        """The file of the members' probabilities on validation, [n_members, n_examples, n_labels]. A refit has none."""
        return self.folder / "members-validation.npy"

    @property
    def leave_one_out_path(self) -> Path:
        """The file of what averages without one member each predict on the test split.

        Probabilities [n_members, n_examples, n_labels].
        """
        return self.folder / "leave-one-out.npy"


def averaged_form(recipe: Contender, form: str, comparison: Contenders, folder: Path) -> AveragedForm:
    """The average of a recipe's trainings or refits on all fresh seeds.

    Args:
        recipe: trained once.
        form: AVERAGE, REFIT or STUDENT.
        comparison: has the fresh seeds.
        folder: of the comparison.
    """
    contender = comparison.in_form(recipe, form)
    trained = recipe if form == AVERAGE else contender
    members = tuple(contenders.seed_run(trained, seed, folder) for seed in comparison.seeds)
    return AveragedForm(contender, members, average_dir(contender.key, comparison.seeds, folder))


def average_dir(key: str, seeds: Sequence[int], folder: Path) -> Path:
    """The folder of an average in the comparison's `folder`. With other seeds it is another average."""
    return folder / "averages" / key / seeds_key(seeds)


def registered_training_dir(key: str, form: str, seed: int | None, seeds: Sequence[int], folder: Path) -> Path:
    """The folder of the weights that are registered for a contender, laid out as a training's.

    Args:
        key: of the contender, in its form.
        form: of the contender.
        seed: of its median seed run, if its form is SINGLE.
        seeds: of the comparison.
        folder: of the comparison.
    """
    if form == SINGLE:
        return contenders.seed_run_dir(key, seed or 0, folder) / TRAINING_DIR
    return average_dir(key, seeds, folder) / TRAINING_DIR
