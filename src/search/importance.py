"""The importance of each searched setting for the score."""

from optuna.trial import FrozenTrial, TrialState

from src.search.study import Study

FEWEST = 8  # finished trials; fewer are too few to tell


def importances(study: Study) -> dict[str, float]:
    """The importance of each setting over finished trials, largest first. They sum to 1; empty if trials are too few.

    With several objectives it is the importance for the first.
    Source: PED-ANOVA (Watanabe, Bansal and Hutter 2023), as in Optuna.
    """
    done = [t for t in study.trials_in_state(TrialState.COMPLETE) if t.values]
    several = study.study_settings.has_several_objectives
    # if scores are equal, PED-ANOVA gives all settings the same importance
    if len(done) < FEWEST or len({t.values[0] for t in done}) < FEWEST // 2:
        return {}
    # imports scikit-learn, which only reports need
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    try:
        importances_by_key = get_param_importances(
            study.optuna_study, evaluator=PedAnovaImportanceEvaluator(), target=_first_value if several else None
        )
    except (ValueError, RuntimeError):  # for example, no parameter that all trials have
        return {}
    return {key: float(share) for key, share in importances_by_key.items()}


def _first_value(trial: FrozenTrial) -> float:
    return float(trial.values[0])
