"""The best model of a study, logged once as an MLflow model that loads as a transformers pipeline."""

import logging
from importlib.metadata import version
from pathlib import Path

from src.evidence.store import Store

ARTIFACT = "model"
LABEL, SCORE = "label", "score"


def log_model(store: Store, run_id: str, folder: Path) -> str:
    """Log the weights and tokenizer in `folder` on the run; returns the models:/ URI.

    MLflow opens and ends the run on the way: repeat its status afterwards, also after an error.
    """
    import mlflow
    from mlflow.models import infer_signature
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    signature = infer_signature(["a text"], {LABEL: "a label", SCORE: 0.5}, {"truncation": True})
    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)  # it asks the Hub for a card, and says it has none
    mlflow.set_tracking_uri(store.uri)
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.transformers.log_model(
            classify,
            name=ARTIFACT,
            task="text-classification",
            signature=signature,
            model_config={"truncation": True},
            pip_requirements=[f"{package}=={version(package)}" for package in ("torch", "transformers", "mlflow")],
        )
    return str(logged.model_uri)


def logged_model(store: Store, run_id: str) -> str | None:
    """The URI of the model that the run has logged whole, if it has: a kill may come before anybody noted it."""
    from mlflow.exceptions import MlflowException

    for output in store.client.get_run(run_id).outputs.model_outputs:
        try:
            model = store.client.get_logged_model(output.model_id)
        except MlflowException:  # deleted since
            continue
        if str(model.status) in ("READY", "LoggedModelStatus.READY"):
            return str(model.model_uri)
    return None


def attach(store: Store, uri: str, folder: Path, place: str) -> None:
    """Put the files in `folder` beside the logged model's own, below `place`; files of the same name are replaced."""
    store.client.log_model_artifacts(uri.removeprefix("models:/"), str(folder), place)


def place_of(store: Store, uri: str) -> str:
    """Where the files of the logged model at `uri` lie: what its version calls its source."""
    return str(store.client.get_logged_model(uri.removeprefix("models:/")).artifact_location)


def attached(store: Store, source: str, file: str, folder: Path) -> Path | None:
    """A file that lies beside a model's own in `source`, copied into `folder`; None if there is none."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    place, _, _ = file.rpartition("/")
    there = {item.path for item in mlflow.artifacts.list_artifacts(artifact_uri=f"{source}/{place}") or []}
    if not any(path.endswith(file) for path in there):
        return None
    return Path(mlflow.artifacts.download_artifacts(f"{source}/{file}", dst_path=str(folder)))


def drop_model(store: Store, uri: str) -> None:
    """Delete a logged model that is the best no longer, with its files."""
    import shutil
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    model_id = uri.removeprefix("models:/")
    logged = store.client.get_logged_model(model_id)
    store.client.delete_logged_model(model_id)
    place = urlparse(logged.artifact_location)
    if place.scheme in ("", "file"):
        shutil.rmtree(url2pathname(place.path), ignore_errors=True)
