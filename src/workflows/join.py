"""Adds workers to a study that another command has started, in its folder or on any machine with its database."""

from collections.abc import Callable, Sequence

from src.comparison import saved_study
from src.config.settings import Settings
from src.console.output import Console
from src.core import own_code
from src.core.errors import CommandFailed, InvalidInput, mask_secrets
from src.core.paths import Paths
from src.search.study import Study, study_attributes
from src.training import devices
from src.workflows.sweep.plan import machine_for

OVERRIDES_ATTR = "overrides"  # attribute of a study: the overrides of the command that started it
# settings of a command itself, not of its study
OWN_PREFIXES = ("worker.", "workers=", "launcher=", "hydra", "study.join=", "code=")
# and how it gets there
LOCATION_PREFIXES = ("storage", "tracking", "progress", "launcher.", "data.path=", "model.checkpoint=", "study.name=")
ALLOWED_KEYS = (
    "worker.*",
    "workers",
    "launcher",
    "code",
    "storage",
    "tracking",
    "progress",
    "data.path",
    "model.checkpoint",
)


def save_overrides(study: Study, settings: Settings) -> None:
    """Store the overrides with the study, without passwords, for commands that join it from other machines."""
    study.optuna_study.set_user_attr(OVERRIDES_ATTR, [mask_secrets(o) for o in settings.overrides])


def joined_overrides(settings: Settings, paths: Paths, own_overrides: Sequence[str]) -> list[str]:
    """The overrides of the command that started the study, then `own_overrides`.

    Raises:
        InvalidInput: there is no such study, or `own_overrides` has more than such a command may set.
    """
    name = settings.study.join
    assert name is not None
    if strange := [o for o in own_overrides if not o.lstrip("+~").startswith((*OWN_PREFIXES, *LOCATION_PREFIXES))]:
        raise InvalidInput(
            f"{strange[0]} cannot be combined with study.join={name}: the command that started the study defines it. A "
            f"command that joins may set {', '.join(sorted({*ALLOWED_KEYS}))}."
        )
    if settings.worker.home is None:
        saved = saved_study.load_study(name, paths)
        own_code.load(settings.code, paths.root)
        own_code.check_recorded(saved.code, saved.settings.code, f"The study {name}")
        study_overrides = saved.settings.overrides
    else:
        try:
            study_overrides = study_attributes(settings.storage, name)[OVERRIDES_ATTR]
        except LookupError:
            raise InvalidInput(
                f"study.join is {name}, and its records are not in the database that storage.url names. A study can be "
                "joined once its own command has begun it."
            ) from None
    own_keys = {o.lstrip("+~").partition("=")[0] for o in own_overrides}
    kept = [
        o
        for o in study_overrides
        if not o.startswith(OWN_PREFIXES) and o.lstrip("+~").partition("=")[0] not in own_keys
    ]
    no_code = [] if any(o.startswith("code=") for o in own_overrides) else ["code=[]"]  # is imported where it is typed
    return [*kept, *own_overrides, *no_code, f"study.name={name}"]


def join(settings: Settings, launch: Callable[[int], int]) -> None:
    """Start workers that join a study, and return when they have nothing more to do.

    The command that started the study finishes it.

    Raises:
        CommandFailed: workers ended with an error.
    """
    console = Console(settings.progress)
    workers = settings.workers or devices.default_worker_count(machine_for(settings), settings.study.n_trials)
    joining = "worker joins" if workers == 1 else "workers join"
    console.print(f"{workers} {joining} the study {settings.study.join}")
    if failed := launch(workers):
        raise CommandFailed(
            f"{failed} of the {workers} that joined {settings.study.join} ended early. Their trials are continued "
            "by the study's other workers, or by the command that started the study."
        )
    console.print("Nothing is left for them to do. The command that started the study finishes it.")
