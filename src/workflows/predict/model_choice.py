"""Chooses the model to classify with: of a run, a version, the champion, or else the challenger."""

from dataclasses import dataclass
from typing import Any

from src.core.errors import InvalidInput, first_line
from src.tracking import registry
from src.tracking.registry import CHALLENGER, CHAMPION
from src.tracking.store import TrackingStore
from src.workflows.predict.request import PredictRequest


@dataclass(frozen=True)
class ChosenModel:
    """A logged model, and its name in messages."""

    uri: str
    name: str


def choose_model(request: PredictRequest, store: TrackingStore) -> ChosenModel:
    """The model to classify with: of a run, a version, the champion, or else the challenger."""
    if request.run:
        return _model_of_run(request.run, store)
    model = request.model or registry.only_model(store, "--model NAME")
    if request.version:
        version = registry.get_version(store, model, request.version)
        return ChosenModel(version.uri, f"{model} version {version.number}")
    champion = registry.by_alias(store, model, CHAMPION)
    if champion:
        return ChosenModel(champion.uri, f"{model} version {champion.number}, the champion")
    challenger = registry.by_alias(store, model, CHALLENGER)
    if challenger:
        name = (
            f"{model} version {challenger.number}, the challenger: no version has passed the gate, there is no champion"
        )
        return ChosenModel(challenger.uri, name)
    raise InvalidInput(
        f"The registered model {model} has neither a champion nor a challenger in {store.address}. Compare and promote "
        "first (python -m src.compare, python -m src.promote), or name a --version or a --run."
    )


def load_model(store: TrackingStore, model: ChosenModel) -> Any:
    """The model as a text-classification pipeline. Raises InvalidInput if it cannot be loaded."""
    try:
        return registry.load_pipeline(store, model.uri)
    except Exception as error:  # MLflow raises errors of any type
        first = first_line(error)
        raise InvalidInput(f"The model {model.name} ({model.uri}) cannot be loaded: {first}") from error


def _model_of_run(run_id: str, store: TrackingStore) -> ChosenModel:
    from src.tracking import run_reader

    tags = run_reader.read_tags(store, run_id)
    if "model.uri" not in tags:
        raise InvalidInput(
            f"--run is {run_id}, and that run has no model: only the best trial of a study, a promoted training and "
            "python -m src.train log theirs."
        )
    return ChosenModel(tags["model.uri"], f"the run {run_id}")
