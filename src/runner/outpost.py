"""Workers whose machines see no common folder (worker.home): what is sent to them, and what they send back.

The study's records are in PostgreSQL and its runs on an MLflow server; data, base weights, checkpoints and what goes
with them travel through the depot, beside the artifacts of the study's experiment.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from src import mirror
from src.errors import Refusal
from src.evidence.depot import Depot
from src.evidence.runs import Run
from src.evidence.store import Store, tracking_uri
from src.learning import checkpoints
from src.learning.checkpoints import HUB_FILES, ORIGIN, Checkpoint
from src.paths import Paths, write_whole
from src.records import State
from src.runner import timesheet
from src.search import stopping
from src.search.storage import POSTGRES
from src.search.study import Book, attributes
from src.settings import ModelSettings, Settings
from src.text import corpus as corpora
from src.text.corpus import Corpus

RUN, TRAINING, BASELINES, MATERIAL = "run", "training", "baselines", "material"
OPEN = ("corpus.json", "train.parquet", "validation.parquet")  # the test split stays where it is sealed


def check(settings: Settings, root: Path) -> None:
    """Raises Refusal if workers with folders of their own could not work together."""
    if settings.worker.home is None:
        return
    problems = []
    if not (settings.storage.url or "").startswith(POSTGRES):
        problems.append("the study must be in PostgreSQL (storage=postgresql storage.url=...)")
    if not tracking_uri(settings.tracking, root).startswith("http"):
        problems.append("its runs must be on an MLflow server (tracking=server tracking.uri=http://...)")
    if settings.workers is None:
        problems.append("the number of workers must be said (workers=<number>)")
    if problems:
        raise Refusal(
            f"worker.home is {settings.worker.home}: the workers' machines see no common folder. Then "
            f"{'; '.join(problems)}. With a folder that all of them see, leave worker.home at null."
        )


# --- on the launching machine ---


def send(
    settings: Settings, corpus: Corpus, models: Iterable[tuple[ModelSettings, Checkpoint]], book: Book, run: Run,
    store: Store,
) -> None:  # fmt: skip
    """Put what every worker needs where it can fetch it: train and validation, and the checkpoints."""
    depot = Depot(store, str(book.study.user_attrs["uid"]))
    names = [_send(depot, corpora.shipped(settings.data), [corpus.folder / name for name in OPEN])]
    for model, checkpoint in models:
        files = {f for pattern in HUB_FILES for f in checkpoint.folder.glob(pattern)}
        origin = {"source": checkpoint.source, "revision": checkpoint.revision}
        names.append(_send(depot, checkpoints.shipped(model), files, json.dumps(origin)))
    about = {"experiment": store.experiment_id, "run": run.run_id(store), MATERIAL: sorted(set(names))}
    book.study.set_user_attr("shared", about)


def _send(depot: Depot, name: str, files: Iterable[Path], origin: str | None = None) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            (Path(scratch) / file.name).symlink_to(file.resolve())
        if origin is not None:
            write_whole(Path(scratch) / ORIGIN, origin)
        depot.put(Path(scratch), f"{MATERIAL}/{name}")
    return name


def gather(book: Book, store: Store) -> None:
    """Bring the study's folder here: every run's records, the sheets, the best trials' weights; the rest goes."""
    depot = Depot(store, str(book.study.user_attrs["uid"]))
    kept = {t.number for t in stopping.ranked(book.ended(), book.direction)[: book.rules.keep_checkpoints]}
    for name in [*depot.names(BASELINES), *depot.names(timesheet.WORK)]:
        depot.fetch(book.folder / name, name)
    for trial in book.trials():
        place = book.lease(trial.number)
        depot.fetch(book.trial_folder(trial.number) / RUN, f"{place}/{RUN}")
        if trial.number in kept:
            depot.fetch(book.training_folder(trial.number), f"{place}/{TRAINING}")
        elif State(trial.state).final:
            depot.drop(f"{place}/{TRAINING}")


# --- on a worker's machine ---


class Outpost:
    """What a worker does beside working where it has a folder of its own. Raises OSError where it cannot."""

    def __init__(self, depot: Depot) -> None:
        self.depot = depot

    def take_up(self, book: Book, number: int) -> None:
        """Bring in what another worker has left of a trial."""
        place = book.lease(number)
        self.depot.fetch(book.trial_folder(number) / RUN, f"{place}/{RUN}")
        self.depot.fetch(book.training_folder(number), f"{place}/{TRAINING}")

    def keep_run(self, book: Book, number: int) -> None:
        self.depot.put(book.trial_folder(number) / RUN, f"{book.lease(number)}/{RUN}")

    def keep_training(self, book: Book, number: int) -> None:
        """Put the checkpoint and the best weights of a trial where others can continue from them."""
        self.depot.put(book.training_folder(number), f"{book.lease(number)}/{TRAINING}")

    def let_go(self, book: Book, number: int) -> None:
        """Keep an ended trial's weights if it is among the best; one that it displaces loses its own."""
        self.keep_run(book, number)
        ranked = [t.number for t in stopping.ranked(book.ended(), book.direction)]
        most = book.rules.keep_checkpoints
        if number not in ranked[:most]:
            self.depot.drop(f"{book.lease(number)}/{TRAINING}")
        elif displaced := ranked[most : most + 1]:
            self.depot.drop(f"{book.lease(displaced[0])}/{TRAINING}")

    def baselines(self, book: Book) -> None:
        """Bring in what others have found of the baselines."""
        for name in book.rules.baselines:
            place = f"{BASELINES}/{name}"
            if not (book.folder / place / "outcome.json").exists():
                self.depot.fetch(book.folder / place, place)

    def keep(self, book: Book, folder: Path) -> None:
        """Put a folder of the study's where the launching machine finds it."""
        self.depot.put(folder, str(folder.relative_to(book.folder)))


def arrive(settings: Settings) -> tuple[Paths, Outpost]:
    """Make this machine's own folder ready for the study; what is brought comes once per machine."""
    assert settings.worker.home is not None
    known = attributes(settings.storage, settings.study.name)
    paths = Paths(Path(settings.worker.home).expanduser() / str(known["uid"]))
    shared = known["shared"]
    store = Store(tracking_uri(settings.tracking, paths.root), str(shared["experiment"]))
    depot = Depot(store, str(known["uid"]))
    for name in shared[MATERIAL]:
        corpora.once(paths.cache / name, lambda folder, name=name: _bring(depot, folder, name))  # type: ignore[misc]
    folder = paths.study(settings.study.name)
    write_whole(mirror.experiment_file(folder), str(shared["experiment"]))
    write_whole(folder / RUN / "run_id", str(shared["run"]))
    return paths, Outpost(depot)


def _bring(depot: Depot, folder: Path, name: str) -> None:
    if not depot.fetch(folder, f"{MATERIAL}/{name}"):
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"{name} of the study is not where it was sent to")
