"""More workers for a study that another command has begun: from its folder, or from any machine its records reach."""

from collections.abc import Callable, Sequence

from src.errors import Refusal, StudyEnded, masked
from src.learning import devices
from src.paths import Paths
from src.runner import studies
from src.runner.plan import machine_for
from src.search.study import Book, attributes
from src.settings import Settings

OVERRIDES = "overrides"  # attribute of a study: its own command's
LOCAL = ("worker.", "workers=", "launcher=", "hydra", "study.join=")  # what a command says of itself, not of its study
PLACES = (
    "storage",
    "tracking",
    "progress",
    "launcher.",
    "data.path=",
    "model.checkpoint=",
    "study.name=",
)  # and how it gets there
SAID = ("worker.*", "workers", "launcher", "storage", "tracking", "progress", "data.path", "model.checkpoint")


def note(book: Book, settings: Settings) -> None:
    """Leave with the study what those who join it from elsewhere need; passwords they know themselves."""
    book.study.set_user_attr(OVERRIDES, [masked(o) for o in settings.overrides])


def overrides(settings: Settings, paths: Paths, own: Sequence[str]) -> list[str]:
    """The overrides of the study's own command, then this one's. Raises Refusal if there is no such study."""
    name = settings.study.join
    assert name is not None
    if strange := [o for o in own if not o.lstrip("+~").startswith((*LOCAL, *PLACES))]:
        raise Refusal(
            f"{strange[0]} has no place beside study.join={name}: what the study trains, on what, and for how long is "
            f"as its own command said. Of itself a command that joins says {', '.join(sorted({*SAID}))}."
        )
    if settings.worker.home is None:
        theirs = studies.load(name, paths).settings.overrides
    else:
        try:
            theirs = attributes(settings.storage, name)[OVERRIDES]
        except LookupError:
            raise Refusal(
                f"study.join is {name}, and its records are not in the database that storage.url names. A study can be "
                "joined once its own command has begun it."
            ) from None
    given = {o.lstrip("+~").partition("=")[0] for o in own}
    kept = [o for o in theirs if not o.startswith(LOCAL) and o.lstrip("+~").partition("=")[0] not in given]
    return [*kept, *own, f"study.name={name}"]


def join(settings: Settings, launch: Callable[[int], int]) -> None:
    """Start workers, and leave the study to the command that began it once they have nothing more to do.

    `launch` returns how many ended with an error; raises StudyEnded if any did.
    """
    workers = settings.workers or devices.workers_that_pay(machine_for(settings), settings.study.n_trials)
    joining = "worker joins" if workers == 1 else "workers join"
    print(f"{workers} {joining} the study {settings.study.join}", flush=True)
    if failed := launch(workers):
        raise StudyEnded(
            f"{failed} of the {workers} that joined {settings.study.join} ended early. What they were at is taken up "
            "by the study's other workers, or by its command, typed again."
        )
    print("Nothing is left for them to do; the command that began the study ends it, or, typed again, reports it.")
