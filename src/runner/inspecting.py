"""Looking into the weights that a training left: what changed in them, and where they err on validation."""

from pathlib import Path

import numpy as np

from src.learning import checkpoints, inspection
from src.learning.checkpoints import BEST, CHANCES
from src.pages.analysis import Analysis, analyse
from src.pages.findings import Inspected
from src.paths import Paths
from src.settings import Settings
from src.text.corpus import Corpus


def inspect(settings: Settings, training: Path, corpus: Corpus, paths: Paths) -> Inspected:
    """Inspect the best weights of the training in the folder `training`, made with `settings`. Some seconds."""
    model, names = settings.recipe.model, corpus.label_names
    checkpoint = checkpoints.resolve(model, paths.cache)
    start = inspection.start_of(checkpoint, model, names, settings.recipe.seed)
    tensors = inspection.changes(start, training / BEST)
    return Inspected(
        layers=tuple(inspection.by_layer(tensors, start.base_model_prefix)),
        tensors=tuple(tensors),
        summary=inspection.summary(start, model.max_tokens),
        analysis=validation(training, corpus),
    )


def validation(training: Path, corpus: Corpus) -> Analysis | None:
    """Where the best weights err on validation, from the answers that were kept with them."""
    file = training / BEST / CHANCES
    if not file.exists():
        return None
    return analyse("validation", corpus.frame("validation"), np.load(file), corpus.label_names)
