"""The best model of a study, logged once as an MLflow model that loads as a transformers pipeline."""

import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from src.core.task import Threshold, gives_several_labels, pair_columns, threshold_text
from src.core.texts import TEXT, TEXT_PAIR
from src.tracking.store import TrackingStore
from src.training import adapters
from src.training.pretrained import BEST_DIR

ARTIFACT = "model"
LABEL, SCORE = "label", "score"
THRESHOLD_PARAM, FORM_PARAM = "decision_threshold", "form"  # of a logged model
ADAPTER = "adapter"  # of FORM_PARAM, and the name of the artifact


def log_model(store: TrackingStore, run_id: str, folder: Path, threshold: Threshold | None = None) -> str:
    """Log the weights and tokenizer in `folder` on the run; returns the models:/ URI.

    `threshold`: the decision threshold that is in the weights, for the record.

    MLflow opens and ends the run on the way: repeat its status afterwards, also after an error.
    """
    import mlflow
    from transformers import AutoModelForSequenceClassification, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    tokenizer = _truncating_tokenizer(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    call, signature = _signature(model.config)
    # MLflow asks the Hub for a card, and warns that there is none
    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(store.uri)
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.transformers.log_model(
            classify,
            name=ARTIFACT,
            task="text-classification",
            signature=signature,
            model_config=call,
            params=_params(threshold),
            pip_requirements=_requirements("torch", "transformers", "mlflow"),
        )
    return str(logged.model_uri)


def log_adapter(store: TrackingStore, run_id: str, folder: Path, threshold: Threshold | None = None) -> str:
    """Log the adapter and tokenizer in `folder` on the run, without its base; returns the models:/ URI.

    See log_model.
    """
    import mlflow
    from transformers import AutoConfig

    signature = _signature(AutoConfig.from_pretrained(folder, local_files_only=True), called=False)[1]
    mlflow.set_tracking_uri(store.uri)
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are neither type hints nor an example
        logged = mlflow.pyfunc.log_model(
            name=ARTIFACT,
            python_model=str(Path(__file__).with_name("adapter_model.py")),
            artifacts={ADAPTER: str(folder)},
            signature=signature,
            params=_params(threshold, merge=False),
            pip_requirements=_requirements("torch", "transformers", "peft", "mlflow", "pandas"),
        )
    return str(logged.model_uri)


def adapter_folder(uri: str, to: Path) -> Path | None:
    """The adapter of the logged model at `uri`, downloaded into `to`; None if it is a plain model of transformers."""
    import mlflow

    if "transformers" in mlflow.models.get_model_info(uri).flavors:
        return None
    folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(to))) / "artifacts" / BEST_DIR
    return folder if adapters.is_adapter(folder) else None


def _signature(config: Any, called: bool = True) -> tuple[dict[str, Any], Any]:
    """How a logged model is called, and its signature.

    Args:
        config: of the classifier.
        called: whether how it is called is part of the signature, and can be changed.
    """
    from mlflow.models import infer_signature

    example: Any = {TEXT: "a text", TEXT_PAIR: "another"} if pair_columns(config) else ["a text"]
    call: dict[str, Any] = {"truncation": True}
    answer: Any = {LABEL: "a label", SCORE: 0.5}
    if gives_several_labels(config):
        # such an answer for every label, a column each, for which MLflow's signatures have no type
        call, answer = call | {"top_k": config.num_labels}, None
    return call, infer_signature(example, answer, call if called else None)


def _requirements(*packages: str) -> list[str]:
    return [f"{package}=={version(package)}" for package in packages]


def _truncating_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder` as one that cuts texts by itself; unchanged if it is not a fast tokenizer."""
    from transformers import AutoTokenizer

    from src.tracking.truncating_tokenizer import TruncatingTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        return tokenizer
    names = tokenizer.model_input_names
    return TruncatingTokenizer.from_pretrained(folder, local_files_only=True, model_input_names=names)


def save_without_code(classifier: Any, folder: Path) -> None:
    """Save a loaded pipeline to `folder` with a tokenizer of transformers' own, which needs no code from the folder."""
    from transformers import PreTrainedTokenizerFast

    classifier.save_pretrained(str(folder))
    if classifier.tokenizer.is_fast and "auto_map" in classifier.tokenizer.init_kwargs:
        names = classifier.tokenizer.model_input_names
        plain = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, model_input_names=names)
        plain.init_kwargs.pop("auto_map", None)
        plain.save_pretrained(folder)
        for module in folder.glob("*.py"):
            module.unlink()


def _params(threshold: Threshold | None, merge: bool = True) -> dict[str, str]:
    """What tells logged models of the same weights apart."""
    params = {} if threshold is None else {THRESHOLD_PARAM: threshold_text(threshold)}
    return params if merge else {**params, FORM_PARAM: ADAPTER}


def find_logged_model(
    store: TrackingStore, run_id: str, outdated: str = "", threshold: Threshold | None = None, merge: bool = True
) -> str | None:
    """The URI of the model that the run has logged completely; None if there is none.

    Args:
        store: of MLflow.
        run_id: of the run.
        outdated: the URI of another one, which does not count.
        threshold: the decision threshold that it has in it; None: 0.5.
        merge: whether it is a plain model, or an adapter without its base.
    """
    from mlflow.exceptions import MlflowException

    for output in store.client.get_run(run_id).outputs.model_outputs:
        try:
            model = store.client.get_logged_model(output.model_id)
        except MlflowException:  # deleted since
            continue
        params = {k: v for k, v in (model.params or {}).items() if k in (THRESHOLD_PARAM, FORM_PARAM)}
        if params != _params(threshold, merge):
            continue
        if str(model.status) in ("READY", "LoggedModelStatus.READY") and str(model.model_uri) != outdated:
            return str(model.model_uri)
    return None


def exists(store: TrackingStore, uri: str) -> bool:
    """Whether the store has the model, and it was not deleted. A store that does not answer counts as having it."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.get_logged_model(uri.removeprefix("models:/"))
    except MlflowException as error:
        return error.error_code != "RESOURCE_DOES_NOT_EXIST"
    return True


def attach_files(store: TrackingStore, uri: str, folder: Path, subfolder: str) -> None:
    """Add the files in `folder` to a logged model, in `subfolder`. Files of the same name are replaced."""
    store.client.log_model_artifacts(uri.removeprefix("models:/"), str(folder), subfolder)


def artifact_location(store: TrackingStore, uri: str) -> str:
    """The location of the logged model's files, which a registered version calls its source."""
    return str(store.client.get_logged_model(uri.removeprefix("models:/")).artifact_location)


def download_attached(store: TrackingStore, source: str, file: str, folder: Path) -> Path | None:
    """Download a file that was added to the model at `source` into `folder`; None if there is none."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    subfolder, _, _ = file.rpartition("/")
    paths = {item.path for item in mlflow.artifacts.list_artifacts(artifact_uri=f"{source}/{subfolder}") or []}
    if not any(path.endswith(file) for path in paths):
        return None
    return Path(mlflow.artifacts.download_artifacts(f"{source}/{file}", dst_path=str(folder)))


def delete_model(store: TrackingStore, uri: str) -> None:
    """Delete a logged model with its files."""
    import shutil
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    model_id = uri.removeprefix("models:/")
    logged = store.client.get_logged_model(model_id)
    store.client.delete_logged_model(model_id)
    location = urlparse(logged.artifact_location)
    if location.scheme in ("", "file"):
        shutil.rmtree(url2pathname(location.path), ignore_errors=True)
