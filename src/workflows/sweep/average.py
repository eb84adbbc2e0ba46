"""Averages the weights of a study's best trials when the study ends, and judges the average on validation.

Near the top, trials differ by less than validation can tell, so the one with the best score is mostly the luckiest.
Their average does not depend on that choice.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from src.core.metric import MAXIMIZE, gain
from src.core.paths import atomic_write
from src.core.record_files import read_record
from src.core.records import AverageRecord, TrialRecord, nested_from_json
from src.core.texts import texts_of
from src.data.dataset import PreparedDataset
from src.search import constraints, stopping
from src.search.study import Study
from src.tracking import recorders, run_tree
from src.tracking.store import TrackingStore
from src.training import inference
from src.training.pretrained import BEST_DIR, PROBABILITIES_FILE
from src.verdict import estimates

MODEL_KEYS = ("model", "model.checkpoint", "model.name", "model.dtype")  # of which all members have the same values
NEW_DIR, OLD_DIR = "new", "old"  # beside BEST_DIR, while weights are replaced
RECORD_FILE = "average.json"  # with the weights
NOTED_FILE = "recorded"  # the members of the average that is on its run


def training_folder(study: Study) -> Path:
    """The folder of the average. Like a trial's, it has the weights in BEST_DIR."""
    return study.folder / "average"


def load_average(study: Study) -> AverageRecord | None:
    """The average that was made last; None if there is none."""
    return read_record(training_folder(study) / BEST_DIR / RECORD_FILE, partial(nested_from_json, AverageRecord))


def make_average(study: Study, dataset: PreparedDataset, store: TrackingStore) -> AverageRecord | None:
    """Average the best trials' weights, judge the average on validation, and record it. Safe to repeat.

    An average that exists is extended if trials belong to it that have ended since. If some of its members no longer
    belong to it, it is made anew from the trials whose weights are still there, unless these are fewer. So it is if its
    scale was matched with that of its members (see training/matching).

    Args:
        study: that has ended.
        dataset: its data.
        store: of its runs.

    Returns:
        None if fewer than two trials belong together.
    """
    if not (training_folder(study) / BEST_DIR).is_dir():
        _replace_weights(study)
    known = load_average(study)
    chosen = {trial.number: trial for trial in choose_members(study, dataset)}
    weights = {n: study.training_folder(n) / BEST_DIR for n in chosen}
    present = [n for n in chosen if weights[n].is_dir()]
    is_matched = dataset.task.depends_on_scale  # with its members: it has a scale of its own, and is not extended
    if known is None or is_matched or not set(known.members) <= chosen.keys():
        members, counts = present, {weights[n]: 1 for n in present}
    else:
        new = [n for n in present if n not in known.members]
        members = [*known.members, *new] if new else []
        counts = {training_folder(study) / BEST_DIR: len(known.members), **{weights[n]: 1 for n in new}}
    if len(members) < 2 or (known is not None and len(members) <= len(known.members)):
        if known is not None:
            _record(study, dataset, store, known)
        return known
    from src.training import matching, weight_average

    new_weights = training_folder(study) / NEW_DIR
    if is_matched:
        texts, task, use_cpu = texts_of(dataset.frame("validation")), dataset.task, _use_cpu(study)
        answers = matching.answers_of(list(counts), texts, task, use_cpu)
        matching.average_members(list(counts), answers, texts, task, new_weights, use_cpu)
    else:
        weight_average.average_weights(counts, new_weights)
    record = _judge(study, dataset, new_weights, {n: chosen[n].score or 0.0 for n in sorted(members)})
    atomic_write(new_weights / RECORD_FILE, record.to_json())
    _replace_weights(study)
    _record(study, dataset, store, record)
    return record


def _record(study: Study, dataset: PreparedDataset, store: TrackingStore, average: AverageRecord) -> None:
    """Record the average on its run, once, and deliver what waits."""
    run, noted = run_tree.average_run(study), training_folder(study) / NOTED_FILE
    members = ", ".join(map(str, average.members))
    if read_record(noted, str) != members:
        from src.training import weight_average

        ids = {t.number: t.run_id for t in study.trials()}  # of an inherited one, whose folder may be gone
        runs = [run_tree.trial_run(study, number).known_run_id or ids.get(number) for number in average.members]
        sha256 = weight_average.weights_sha256(training_folder(study) / BEST_DIR)
        recorders.record_average(run, recorders.common_tags(dataset, study.name), average, runs, sha256)
        atomic_write(noted, members)
    run.send_to(store, retry_now=True)


def choose_members(study: Study, dataset: PreparedDataset) -> list[TrialRecord]:
    """The trials that belong to the average, the best first: at most study.average of those that ran to their end.

    They have the same pretrained model as the best one, and a score inside the 95 % interval of its score, which is
    about two standard errors wide on either side.
    """
    ranked = stopping.rank_trials(study.trials(), study.direction)
    if not ranked:
        return []
    best = ranked[0]
    worst = _worst_in_interval(study, best, dataset)
    belong = [
        trial
        for trial in ranked
        if gain((trial.score or 0.0) - worst, study.direction) >= 0
        and all(trial.params.get(key) == best.params.get(key) for key in MODEL_KEYS)
    ]
    return belong[: study.study_settings.average_most]


def _worst_in_interval(study: Study, best: TrialRecord, dataset: PreparedDataset) -> float:
    """The worse end of the best score's interval over validation examples; the score if its predictions are gone."""
    file = study.training_folder(best.number) / BEST_DIR / PROBABILITIES_FILE
    if not file.exists():
        return best.score or 0.0
    from src.verdict.bootstrap import PairedBootstrap, Predictions  # imports scipy, which takes a second

    answers, metric = {"best": Predictions(np.load(file)[None])}, study.study_settings.metric
    interval = PairedBootstrap(dataset.labels("validation"), answers, metric=metric).estimate("best", metric)
    return interval.low if study.direction == MAXIMIZE else interval.high


def _replace_weights(study: Study) -> None:
    """Put complete new weights in the place of the old ones. After a kill in between, the next call goes on."""
    folder = training_folder(study)
    if not (folder / NEW_DIR / RECORD_FILE).exists():
        return
    if (folder / BEST_DIR).is_dir():
        shutil.rmtree(folder / OLD_DIR, ignore_errors=True)
        (folder / BEST_DIR).rename(folder / OLD_DIR)
    (folder / NEW_DIR).rename(folder / BEST_DIR)
    shutil.rmtree(folder / OLD_DIR, ignore_errors=True)


def _use_cpu(study: Study) -> bool:
    return bool(study.settings.recipe.trainer.get("use_cpu"))


def _judge(study: Study, dataset: PreparedDataset, folder: Path, members: Mapping[int, float]) -> AverageRecord:
    """Judge the weights in `folder` on validation. `members`: their trials and scores."""
    classifier = inference.load_classifier(folder, _use_cpu(study))
    probabilities = inference.predict_probabilities(classifier, texts_of(dataset.frame("validation")))
    np.save(folder / PROBABILITIES_FILE, probabilities)
    metric = study.study_settings.metric
    found = estimates.metrics_per_seed(dataset.labels("validation"), probabilities[None], metric)
    metrics = {name: float(values[0]) for name, values in found.items()}
    for extra in study.study_settings.extra_metrics:
        values = estimates.metrics_per_seed(dataset.labels("validation"), probabilities[None], extra)
        metrics[extra] = float(values[extra][0])
    # it costs what its members do
    violates = constraints.violations(metrics, study.study_settings.constraints)
    mean = float(np.mean(list(members.values())))
    return AverageRecord(tuple(members), metrics[metric], metrics, mean, violates)
