"""Chooses the form in which the winner is registered, by validation, before the test split is opened."""

import numpy as np

from src.comparison.contenders import SeedRun
from src.comparison.forms import averaged_form
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection
from src.core.errors import CommandFailed
from src.core.records import State
from src.verdict import decision, estimates
from src.verdict.records import AVERAGE, REFIT, SINGLE


def choose_form(saved: SavedStudy, selection: Selection) -> tuple[str, str]:
    """The form that is registered, and why.

    With deliver.form=auto it is the average of the winner's seed runs, unless that is shown to be worse on validation
    than they are on average; and the refit in its place if there is one, which is such an average, too. A refit cannot
    be judged on validation, since it was trained on it.

    Raises:
        CommandFailed: deliver.form=refit, and a refit has failed.
    """
    asked, failed = selection.contenders.deliver, failed_refits(selection)
    if asked == REFIT and failed:
        raise CommandFailed(
            f"deliver.form=refit, and {len(failed)} of {len(selection.refits)} refits failed: {_reason_of(failed[0])}. "
            "The same command tries them again; the test split is still sealed."
        )
    if asked != "auto":
        return asked, f"deliver.form={asked}"
    if AVERAGE not in selection.forms:
        return SINGLE, ""
    metric = saved.settings.study.metric
    labels = saved.dataset.frame("validation")["label"].to_numpy()
    form = averaged_form(selection.winning_recipe, AVERAGE, selection.contenders, selection.folder)
    average, members = np.load(form.validation_probabilities_path), np.load(form.members_validation_path)
    score = estimates.metrics_per_seed(labels, average[None])[metric][0]
    mean = estimates.metrics_per_seed(labels, members)[metric].mean()
    scores = f"on validation ({metric} {score:.4f}; they have {mean:.4f} on average)"
    if decision.is_shown_worse(labels, average, members, metric):
        return SINGLE, f"averaging its seed runs is shown to be worse {scores}"
    not_worse = f"averaging its seed runs is not shown to be worse {scores}"
    if REFIT not in selection.forms:
        return AVERAGE, not_worse
    if failed:
        return AVERAGE, f"{not_worse}; a refit failed ({_reason_of(failed[0])})"
    return REFIT, f"{not_worse}, and a refit learns from validation, too"


def failed_refits(selection: Selection) -> list[SeedRun]:
    """The refits that have failed."""
    return [run for run in selection.refits if (result := run.result()) and result.state != State.COMPLETE]


def _reason_of(failed: SeedRun) -> str:
    result = failed.result()
    return str(result.reason) if result else ""
