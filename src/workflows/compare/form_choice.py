"""Chooses the form in which the winner is registered, by validation, before the test split is opened."""

import numpy as np

from src.comparison.contenders import SeedRun
from src.comparison.forms import averaged_form
from src.comparison.saved_study import SavedStudy
from src.comparison.selection import Selection, has_failed
from src.core.errors import CommandFailed
from src.core.task import Threshold, has_several
from src.verdict import decision, estimates, threshold
from src.verdict.records import AVERAGE, REFIT, SINGLE, STUDENT

ADDED = {  # by form, why it is registered if averages are not shown to be worse
    STUDENT: ", and students learn from the unlabelled texts, too",
    REFIT: ", and a refit learns from validation, too",
    AVERAGE: "",
}


def choose_thresholds(saved: SavedStudy, selection: Selection) -> dict[str, Threshold]:
    """The threshold of each contender that has seed runs, by their answers on validation; none if all are 0.5.

    Refits and students have that of the average of the seed runs, since they may be trained on validation.
    """
    if not selection.contenders.has_thresholds:
        return {}
    labels, metric = saved.dataset.labels("validation"), saved.settings.study.metric
    thresholds = dict[str, Threshold]()
    per_label = selection.contenders.thresholds_per_label
    for recipe in selection.tested_recipes:
        form = averaged_form(recipe, AVERAGE, selection.contenders, selection.folder)
        members = np.load(form.members_validation_path)
        thresholds[recipe.name] = threshold.choose_threshold(labels, members, metric, per_label)
        average = np.load(form.validation_probabilities_path)[None]
        of_average = threshold.choose_threshold(labels, average, metric, per_label)
        forms = [each.contender for each in selection.averaged_forms if each.contender.recipe_key == recipe.key]
        thresholds |= {contender.name: of_average for contender in forms}
    return thresholds


def choose_form(saved: SavedStudy, selection: Selection) -> tuple[str, str]:
    """The form that is registered, and why.

    With deliver.form=auto it is an average, unless the average of the winner's seed runs is shown to be worse on
    validation than they are on average. It is that of the students if there are unlabelled texts, else that of the
    refits if there are any. These cannot be judged on validation, since they may be trained on it.

    Raises:
        CommandFailed: deliver.form asks for a form of which a training has failed.
    """
    asked = selection.contenders.deliver
    if failed := failed_trainings(selection, asked):
        raise CommandFailed(
            f"deliver.form={asked}, and {len(failed)} of {len(selection.contenders.seeds)} trainings for it failed: "
            f"{_reason_of(failed[0])}. The same command tries them again; the test split is still sealed."
        )
    if asked != "auto":
        return asked, f"deliver.form={asked}"
    if AVERAGE not in selection.forms:
        return SINGLE, ""
    metric = saved.settings.study.metric
    labels = saved.dataset.labels("validation")
    form = averaged_form(selection.winning_recipe, AVERAGE, selection.contenders, selection.folder)
    average, members = (
        threshold.with_threshold(np.load(file), selection.thresholds.get(name), has_several(labels))
        for file, name in (
            (form.validation_probabilities_path, form.contender.name),
            (form.members_validation_path, selection.winner),
        )
    )
    score = estimates.metrics_per_seed(labels, average[None], metric)[metric][0]
    mean = estimates.metrics_per_seed(labels, members, metric)[metric].mean()
    scores = f"on validation ({metric} {score:.4f}; they have {mean:.4f} on average)"
    if decision.is_shown_worse(labels, average, members, metric):
        return SINGLE, f"averaging its seed runs is shown to be worse {scores}"
    made = [each for each in ADDED if each in selection.forms]
    chosen = next(each for each in made if not failed_trainings(selection, each))
    reasons = [
        f"; a {each} failed ({_reason_of(failed[0])})" for each in made if (failed := failed_trainings(selection, each))
    ]
    return chosen, f"averaging its seed runs is not shown to be worse {scores}{ADDED[chosen]}{''.join(reasons)}"


def failed_trainings(selection: Selection, form: str) -> list[SeedRun]:
    """The winner's trainings for a form that have failed."""
    return [run for run in selection.trainings_of(form, selection.winner) if has_failed(run)]


def _reason_of(failed: SeedRun) -> str:
    result = failed.result()
    return str(result.reason) if result else ""
