"""What a study knows of its screening: whether it needs one, and with which models it goes on.

All choices stay in the space, so that the study's definition and its trials remain as they are. The sampler proposes
only the models that were kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from src.core.record_files import read_record, without_schema, write_json
from src.core.records import ENQUEUED, Params, ScreeningResult
from src.search import inheritance
from src.search.sampler import SCREENED_ATTR, SCREENED_KEY, kept_models
from src.search.study import Study

SCREENING_FILE = "screening.json"  # in the study's folder


def models_to_screen(study: Study) -> list[str]:
    """The models that the study searches, if they have to be screened before a trial starts; else none."""
    if study.settings.screening.keep is None or kept_models(study.optuna_study) is not None:
        return []
    return searched_models(study)


def searched_models(study: Study) -> list[str]:
    """The models in the study's space, whether or not they are screened."""
    return [str(choice) for p in study.space.parameters if p.key == SCREENED_KEY for choice in p.values() or ()]


def folder_of(study: Study, place: int) -> Path:
    """The folder of a model's short trial. `place`: of the model in the space."""
    return study.folder / "screening" / str(place)


def keep_models(study: Study, kept: Mapping[str, Params]) -> None:
    """Search only these models from now on, each first with its own default recipe. Only the first call has an effect.

    Args:
        study: that was screened.
        kept: by model, the default recipe's values of searched keys; the sampler proposes those that are missing.
    """
    with study.lock:
        if kept_models(study.optuna_study) is not None:
            return
        known = study.optuna_study.get_trials(deepcopy=False)
        have = [t.system_attrs.get("fixed_params", t.params) for t in known]
        room = max(0, study.limits().n_trials - len(inheritance.own_trials(known)))
        for params in [params for params in kept.values() if params not in have][:room]:
            study.optuna_study.enqueue_trial(dict(params), user_attrs={"origin": ENQUEUED})
        study.optuna_study.set_user_attr(SCREENED_ATTR, list(kept))


def write_results(folder: Path, results: Sequence[ScreeningResult]) -> None:
    """Save all results of a screening, which is over, in the study's folder."""
    write_json(folder / SCREENING_FILE, {"models": [asdict(result) for result in results]}, indent=1)


def read_results(folder: Path) -> tuple[ScreeningResult, ...]:
    """The results of the screening of the study in `folder`; empty if there is none, or it is not over."""

    def parse(text: str) -> tuple[ScreeningResult, ...]:
        return TypeAdapter(tuple[ScreeningResult, ...]).validate_python(without_schema(json.loads(text))["models"])

    return read_record(folder / SCREENING_FILE, parse) or ()
