"""What of a study and its trainings goes into MLflow's runs, and under which names."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from src.evidence import environment
from src.evidence.runs import Run
from src.records import Outcome, State, TrialRecord
from src.search.study import Book
from src.settings import Settings
from src.text.corpus import Corpus


def study_run(book: Book) -> Run:
    """The parent of all runs of the study."""
    return Run(book.folder / "run", f"{_uid(book)}/study", book.name)


def trial_run(book: Book, number: int) -> Run:
    """The run that mirrors trial `number`, a child of the study's run."""
    return Run(book.trial_folder(number) / "run", f"{_uid(book)}/trial/{number}", f"trial-{number:04d}", _parent(book))


def baseline_run(book: Book, name: str) -> Run:
    return Run(book.folder / "baselines" / name, f"{_uid(book)}/baseline/{name}", f"baseline-{name}", _parent(book))


def experiment_file(study_folder: Path) -> Path:
    """Holds the id of the MLflow experiment that the study's runs belong to."""
    return study_folder / "run" / "experiment_id"


def facts(corpus: Corpus, study: str) -> dict[str, str]:
    """Tags that every run carries."""
    prints = {f"data.fingerprint.{split}": value for split, value in corpus.fingerprints.items()}
    commit = environment.git_commit()
    return {
        "study": study,
        "data": corpus.name,
        "data.fingerprint": corpus.fingerprint,
        **prints,
        "machine": environment.machine(),
        "launched.by": environment.command_line(),
        "mlflow.source.name": "trialbook",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


def describe(run: Run, settings: Settings) -> None:
    """The whole composed config and the library versions, as artifacts."""
    run.text("config.yaml", settings.yaml)
    run.text("environment.json", json.dumps(environment.versions(), indent=1))


def describe_training(run: Run, settings: Settings, first: Sequence[str], overrides: Sequence[str]) -> None:
    """Params (the keys in `first` first), config, versions, and the command that repeats the training."""
    flat = {k: v for k, v in settings.recipe.flat().items() if v is not None}
    choices = {key: settings.choices[key] for key in first if key in settings.choices}
    describe(run, settings)
    run.tags({"command": shlex.join(["python", "-m", "src.train", *overrides])})
    run.params({**choices, **{k: flat[k] for k in first if k in flat}, **flat, "data.name": settings.data.name})


def record_outcome(run: Run, outcome: Outcome | TrialRecord) -> None:
    """How a run ended or paused: its numbers, its state, step and reason, its MLflow status."""
    state = State(outcome.state)
    if state.final:
        numbers = {
            "score": outcome.score,
            "share_of_schedule": outcome.share,
            "seconds": outcome.seconds,
            "model/megabytes": outcome.megabytes,
            "model/ms_per_1000_texts": outcome.ms_per_1000_texts,
        }
        run.metrics(outcome.steps or 0, {k: v for k, v in numbers.items() if v is not None})
    run.tags({"trial.state": state, "trial.steps": outcome.steps, "trial.reason": outcome.reason or ""})
    run.status(state)


def _parent(book: Book) -> str:
    return (book.folder / "run" / "run_id").read_text()


def _uid(book: Book) -> str:
    return str(book.study.user_attrs["uid"])
