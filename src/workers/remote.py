"""Workers on machines that share no folder with the launching one (worker.home).

The study's records are in PostgreSQL and its runs on an MLflow server. Data, base weights and checkpoints are copied
through the artifact store of the study's experiment (tracking/folder_sync).
"""

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from src.config.settings import ModelSettings, Settings
from src.core.cache import make_once
from src.core.errors import InvalidInput
from src.core.paths import Paths, atomic_write
from src.core.records import State
from src.data import dataset
from src.data.dataset import PreparedDataset
from src.search import stopping
from src.search.storages.connect import POSTGRES
from src.search.study import Study, study_attributes
from src.tracking import run_tree
from src.tracking.folder_sync import FolderSync
from src.tracking.run_log import RunLog
from src.tracking.store import TrackingStore, tracking_uri
from src.training import pretrained
from src.training.pretrained import HUB_FILES, ORIGIN_FILE, PretrainedModel
from src.workers import timeline

RUN, TRAINING, BASELINES, MATERIAL = "run", "training", "baselines", "material"
SHARED_FILES = ("corpus.json", "train.parquet", "validation.parquet")  # the test split stays where it is sealed


def check_remote(settings: Settings, root: Path) -> None:
    """Raises InvalidInput if storage, tracking or the number of workers requires a shared folder."""
    if settings.worker.home is None:
        return
    problems = []
    if not (settings.storage.url or "").startswith(POSTGRES):
        problems.append("the study must be in PostgreSQL (storage=postgresql storage.url=...)")
    if not tracking_uri(settings.tracking, root).startswith("http"):
        problems.append("its runs must be on an MLflow server (tracking=server tracking.uri=http://...)")
    if settings.workers is None:
        problems.append("the number of workers must be set (workers=<number>)")
    if settings.code:
        problems.append("code must be empty, since modules of your own are not copied to them")
    if problems:
        raise InvalidInput(
            f"worker.home is {settings.worker.home}: the workers' machines share no folder. Then "
            f"{'; '.join(problems)}. With a folder that all of them see, leave worker.home at null."
        )


# --- on the launching machine ---


def send_material(
    settings: Settings,
    prepared: PreparedDataset,
    models: Iterable[tuple[ModelSettings, PretrainedModel]],
    study: Study,
    run: RunLog,
    store: TrackingStore,
) -> None:
    """Upload what every worker needs: the train and validation splits, and the pretrained models.

    Args:
        settings: of the study.
        prepared: the data.
        models: every model that a trial may need, with its settings.
        study: that the workers will run.
        run: of the study.
        store: whose artifact store takes the files.
    """
    folders = FolderSync(store, str(study.optuna_study.user_attrs["uid"]))
    names = [_send(folders, dataset.shipped_dir(settings.data), [prepared.folder / name for name in SHARED_FILES])]
    for model, checkpoint in models:
        files = {f for pattern in HUB_FILES for f in checkpoint.folder.glob(pattern)}
        origin = {"source": checkpoint.source, "revision": checkpoint.revision}
        names.append(_send(folders, pretrained.shipped_dir(model), files, json.dumps(origin)))
    about = {"experiment": store.experiment_id, "run": run.ensure_run_id(store), MATERIAL: sorted(set(names))}
    study.optuna_study.set_user_attr("shared", about)


def _send(folders: FolderSync, name: str, files: Iterable[Path], origin: str | None = None) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            (Path(scratch) / file.name).symlink_to(file.resolve())
        if origin is not None:
            atomic_write(Path(scratch) / ORIGIN_FILE, origin)
        folders.upload(Path(scratch), f"{MATERIAL}/{name}")
    return name


def collect_results(study: Study, store: TrackingStore) -> None:
    """Download every run's log, the timelines and the best trials' weights into the study's folder.

    Other weights are deleted from the artifact store.
    """
    folders = FolderSync(store, str(study.optuna_study.user_attrs["uid"]))
    kept = {
        t.number
        for t in stopping.rank_trials(study.own_ended_trials(), study.direction)[: study.study_settings.keep_until_end]
    }
    for name in [*folders.list_names(BASELINES), *folders.list_names(timeline.TIMELINE_DIR)]:
        folders.download(study.folder / name, name)
    for trial in stopping.own_trials(study.trials()):
        place = study.lease_name(trial.number)
        folders.download(study.trial_folder(trial.number) / RUN, f"{place}/{RUN}")
        if trial.number in kept:
            folders.download(study.training_folder(trial.number), f"{place}/{TRAINING}")
        elif State(trial.state).is_final:
            folders.delete(f"{place}/{TRAINING}")


def delete_old_weights(study: Study, store: TrackingStore, most: int) -> None:
    """Delete the weights of all ended trials except the best `most` from the artifact store."""
    folders = FolderSync(store, str(study.optuna_study.user_attrs["uid"]))
    for trial in stopping.rank_trials(study.own_ended_trials(), study.direction)[most:]:
        folders.delete(f"{study.lease_name(trial.number)}/{TRAINING}")


# --- on a worker's machine ---


class RemoteSync:
    """Uploads and downloads of a worker whose machine has a folder of its own.

    Raises OSError if the store does not answer.
    """

    def __init__(self, folders: FolderSync) -> None:
        self.folders = folders

    def fetch_trial(self, study: Study, number: int) -> None:
        """Download the log and checkpoints that another worker has uploaded of a trial."""
        place = study.lease_name(number)
        self.folders.download(study.trial_folder(number) / RUN, f"{place}/{RUN}")
        self.folders.download(study.training_folder(number), f"{place}/{TRAINING}")

    def upload_run(self, study: Study, number: int) -> None:
        """Upload the log of a trial."""
        self.folders.upload(study.trial_folder(number) / RUN, f"{study.lease_name(number)}/{RUN}")

    def upload_training(self, study: Study, number: int) -> None:
        """Upload the checkpoints and best weights of a trial."""
        self.folders.upload(study.training_folder(number), f"{study.lease_name(number)}/{TRAINING}")

    def upload_ended_trial(self, study: Study, number: int) -> None:
        """Upload the log of an ended trial.

        Keep its weights if it is among the best, and delete those of the trial it displaces.
        """
        self.upload_run(study, number)
        ranked = [t.number for t in stopping.rank_trials(study.own_ended_trials(), study.direction)]
        most = study.study_settings.keep_until_end
        if number not in ranked[:most]:
            self.folders.delete(f"{study.lease_name(number)}/{TRAINING}")
        elif displaced := ranked[most : most + 1]:
            self.folders.delete(f"{study.lease_name(displaced[0])}/{TRAINING}")

    def fetch_baselines(self, study: Study) -> None:
        """Download the baseline results of other workers."""
        for name in study.study_settings.baselines:
            place = f"{BASELINES}/{name}"
            if not (study.folder / place / "outcome.json").exists():
                self.folders.download(study.folder / place, place)

    def upload_folder(self, study: Study, folder: Path) -> None:
        """Upload a folder of the study."""
        self.folders.upload(folder, str(folder.relative_to(study.folder)))


def join_from_remote(settings: Settings) -> tuple[Paths, RemoteSync]:
    """Prepare this machine's own folder for the study; its material is downloaded once per machine."""
    assert settings.worker.home is not None
    known = study_attributes(settings.storage, settings.study.name)
    paths = Paths(Path(settings.worker.home).expanduser() / str(known["uid"]))
    shared = known["shared"]
    store = TrackingStore(tracking_uri(settings.tracking, paths.root), str(shared["experiment"]))
    folders = FolderSync(store, str(known["uid"]))
    for name in shared[MATERIAL]:
        make_once(paths.cache_dir / name, lambda folder, name=name: _fetch_material(folders, folder, name))  # type: ignore[misc]
    folder = paths.study_dir(settings.study.name)
    atomic_write(run_tree.experiment_file(folder), str(shared["experiment"]))
    atomic_write(folder / RUN / "run_id", str(shared["run"]))
    return paths, RemoteSync(folders)


def _fetch_material(folders: FolderSync, folder: Path, name: str) -> None:
    if not folders.download(folder, f"{MATERIAL}/{name}"):
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"{name} of the study is not where it was sent to")
